"""Training classifiers of bags: batches of texts, feature dropout, class weights."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.data.bags import Bags
from tickwise.training.class_objective import ClassObjective, LossName, class_losses
from tickwise.training.objective import Batch

_VALIDATED_AT_ONCE = 1024


class BagClassification(ClassObjective):
    """The loss of each text's class, from its bag of features. ``feature_dropout`` leaves out that share of a text's
    features and scales the others up."""

    def __init__(self, bags: Bags, classes: Tensor, validation: tuple[Bags, Tensor] | None, *, batch_size: int,
                 seed: int, feature_dropout: float = 0.0, label_smoothing: float = 0.0,
                 example_weights: Tensor | None = None, loss: LossName = "cross-entropy") -> None:
        assert len(bags) == len(classes)
        super().__init__(classes, batch_size=batch_size, seed=seed, label_smoothing=label_smoothing,
                         example_weights=example_weights, loss=loss)
        self._bags, self._validation, self._feature_dropout = bags, validation, feature_dropout

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else len(self._validation[0].rows)

    def _batch(self, chosen: NDArray[np.int64], step: int | None) -> Batch:
        index = torch.from_numpy(chosen)
        bags = self._bags.take(index)
        weights = bags.weights
        if self._feature_dropout and step is not None:
            draws = self._draws(step).random(len(weights), dtype=np.float32)
            kept = torch.from_numpy(draws) >= self._feature_dropout
            weights = weights * kept / (1 - self._feature_dropout)
        return Batch((bags.rows, weights, bags.offsets, self._classes[index], self._weights[index]),
                     n_tokens=len(bags.rows))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        if n == 1:
            return (batch,)
        rows, weights, offsets, classes, importance = batch.inputs
        bags, parts = Bags(rows, weights, offsets), []
        for texts in torch.arange(len(classes)).chunk(n):
            part = bags.take(texts)
            parts.append(Batch((part.rows, part.weights, part.offsets, classes[texts], importance[texts]),
                               n_tokens=len(part.rows), weight=float(importance[texts].sum())))
        return parts

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        rows, weights, offsets, classes, importance = inputs
        return self._mean_loss(module(rows, weights, offsets[:-1]), classes, importance), ()

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Mean loss and accuracy on the whole validation part (``max_tokens`` is for longer ones)."""
        assert self._validation is not None
        bags, classes = self._validation
        logits = classify_bags(module, bags, device)
        return {"loss": class_losses(self._loss, logits, classes).mean().item(),
                "accuracy": (logits.argmax(1) == classes).float().mean().item()}


@torch.no_grad()
def classify_bags(module: nn.Module, bags: Bags, device: torch.device) -> Tensor:
    """Logits (B, C) on the CPU, computed some hundred texts at a time."""
    was_training = module.training
    module.eval()
    parts = [torch.empty(0, 0)]
    for texts in torch.arange(len(bags)).split(_VALIDATED_AT_ONCE):
        part = bags.take(texts)
        parts.append(module(part.rows.to(device), part.weights.to(device), part.offsets[:-1].to(device)).float().cpu())
    module.train(was_training)
    return torch.cat(parts[1:]) if len(parts) > 1 else parts[0]


def balanced_weights(classes: Tensor, n_classes: int, given: Mapping[int, float] | None = None) -> Tensor:
    """(B,) weights with mean 1 of texts by class: inverse to its frequency, or as ``given`` (1 where left out)."""
    counts = torch.bincount(classes, minlength=n_classes).float()
    per_class = 1 / counts.clamp(min=1) if given is None else torch.tensor(
        [given.get(i, 1.0) for i in range(n_classes)])
    weights = per_class[classes]
    return weights / weights.mean()
