"""The loss of each text's class: what training classifiers of bags and of sequences have in common.

Shape legend: B texts, C classes.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tickwise.core.stages import Stage, mark
from tickwise.training.shuffled_passes import ShuffledPasses

LossName = Literal["cross-entropy", "hinge"]
_TEMPERATURES = np.geomspace(0.5, 8, 25)


def class_losses(name: LossName, logits_BC: Tensor, classes_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(B,) nats of each text's class; or the squared hinge loss, in which every class is told from all others with a
    margin of 1 (what a linear support vector machine minimises; Fan et al. 2008)."""
    if name == "cross-entropy":
        return F.cross_entropy(logits_BC, classes_B, reduction="none", label_smoothing=label_smoothing)
    side_BC = 2 * F.one_hot(classes_B, logits_BC.shape[1]) - 1
    return (1 - side_BC * logits_BC).clamp(min=0).square().sum(1)


def calibrated_figures(logits_BC: Tensor, classes_B: Tensor) -> dict[str, float]:
    """Accuracy, and the cross-entropy at the best temperature: the model will be calibrated, and one that reads whole
    texts grows sure of itself long before it stops improving."""
    return {"loss": min(F.cross_entropy(logits_BC / t, classes_B).item() for t in _TEMPERATURES),
            "accuracy": (logits_BC.argmax(1) == classes_B).float().mean().item()}


class ClassObjective(ShuffledPasses):
    """Shuffled passes through the training texts. ``example_weights`` (B,) make some texts count for more: the mean
    loss is weighted by them."""

    def __init__(self, classes: Tensor, *, batch_size: int, seed: int, label_smoothing: float,
                 example_weights: Tensor | None, loss: LossName = "cross-entropy",
                 lengths: Sequence[int] | None = None) -> None:
        super().__init__(len(classes), batch_size=batch_size, seed=seed, lengths=lengths)
        self._classes, self._label_smoothing = classes, label_smoothing
        self._weights = torch.ones(len(classes)) if example_weights is None else example_weights
        self._loss: LossName = loss

    def _mean_loss(self, logits_BC: Tensor, classes_B: Tensor, importance_B: Tensor) -> Tensor:
        mark(Stage.LOSS)
        losses_B = class_losses(self._loss, logits_BC, classes_B, self._label_smoothing)
        return (losses_B * importance_B).sum() / importance_B.sum()
