"""Training classifiers of bags: batches of texts, feature dropout, class weights."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.errors import CheckpointError
from tickwise.core.stages import Stage, mark
from tickwise.data.bags import Bags
from tickwise.training.objective import Batch

_VALIDATED_AT_ONCE = 1024
LossName = Literal["cross-entropy", "hinge"]


def class_losses(name: LossName, logits_BC: Tensor, classes_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(B,) nats of each text's class; or the squared hinge loss, in which every class is told from all others with a
    margin of 1 (what a linear support vector machine minimises; Fan et al. 2008)."""
    if name == "cross-entropy":
        return F.cross_entropy(logits_BC, classes_B, reduction="none", label_smoothing=label_smoothing)
    side_BC = 2 * F.one_hot(classes_B, logits_BC.shape[1]) - 1
    return (1 - side_BC * logits_BC).clamp(min=0).square().sum(1)


class BagClassification:
    """The loss of each text's class, over shuffled passes through the training texts.

    ``feature_dropout`` leaves out that share of a text's features and scales the others up. ``example_weights`` (B,)
    make some texts count for more; the mean loss is weighted by them. Everything random follows from ``seed`` and the
    number of batches so far.
    """

    def __init__(self, bags: Bags, classes: Tensor, validation: tuple[Bags, Tensor] | None, *, batch_size: int,
                 seed: int, feature_dropout: float = 0.0, label_smoothing: float = 0.0,
                 example_weights: Tensor | None = None, loss: LossName = "cross-entropy") -> None:
        assert len(bags) == len(classes)
        self._bags, self._classes, self._validation = bags, classes, validation
        self._batch_size = min(batch_size, len(bags))
        self._seed, self._feature_dropout, self._label_smoothing = seed, feature_dropout, label_smoothing
        self._weights = torch.ones(len(bags)) if example_weights is None else example_weights
        self._loss: LossName = loss
        self._step = 0
        self._pass, self._order = -1, torch.empty(0, dtype=torch.long)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self._bags) // self._batch_size)

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else len(self._validation[0].rows)

    @property
    def epochs_done(self) -> float:
        return self._step / self.steps_per_epoch

    @property
    def fixed_shapes(self) -> bool:
        return False

    def next_batch(self) -> Batch:
        number, place = divmod(self._step, self.steps_per_epoch)
        if number != self._pass:
            shuffle = np.random.default_rng((self._seed, number)).permutation(len(self._bags))
            self._pass, self._order = number, torch.from_numpy(shuffle)
        batch = self._batch(self._order[place * self._batch_size : (place + 1) * self._batch_size], self._step)
        self._step += 1
        return batch

    def example(self) -> Batch:
        return self._batch(torch.arange(self._batch_size), 0)

    def _batch(self, texts: Tensor, step: int) -> Batch:
        bags = self._bags.take(texts)
        weights = bags.weights
        if self._feature_dropout:
            draws = np.random.default_rng((self._seed, 1 << 32, step)).random(len(weights), dtype=np.float32)
            kept = torch.from_numpy(draws) >= self._feature_dropout
            weights = weights * kept / (1 - self._feature_dropout)
        return Batch((bags.rows, weights, bags.offsets, self._classes[texts], self._weights[texts]),
                     n_tokens=len(bags.rows))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        if n == 1:
            return (batch,)
        rows, weights, offsets, classes, importance = batch.inputs
        bags, parts = Bags(rows, weights, offsets), []
        for texts in torch.arange(len(classes)).chunk(n):
            part = bags.take(texts)
            parts.append(Batch((part.rows, part.weights, part.offsets, classes[texts], importance[texts]),
                               n_tokens=len(part.rows)))
        return parts

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        rows, weights, offsets, classes, importance = inputs
        logits_BC = module(rows, weights, offsets[:-1])
        mark(Stage.LOSS)
        losses = class_losses(self._loss, logits_BC, classes, self._label_smoothing)
        return (losses * importance).sum() / importance.sum(), ()

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:
        """Texts are independent."""

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Mean loss and accuracy on the whole validation part (``max_tokens`` is for longer ones)."""
        assert self._validation is not None
        bags, classes = self._validation
        logits = classify_bags(module, bags, device)
        return {"loss": class_losses(self._loss, logits, classes).mean().item(),
                "accuracy": (logits.argmax(1) == classes).float().mean().item()}

    def state(self) -> dict[str, Any]:
        return {"step": self._step, "seed": self._seed, "texts": len(self._bags), "batch_size": self._batch_size}

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        own = self.state()
        for name in ("seed", "texts", "batch_size"):
            if state.get(name) != own[name]:
                raise CheckpointError(f"{name.replace('_', ' ')} was {state.get(name)}, this run has {own[name]}; give "
                                      "the same, or a new --out")
        self._step = int(state["step"])


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
