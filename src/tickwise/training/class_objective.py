"""The loss of each text's class: what training classifiers of bags and of sequences have in common.

Shape legend: B texts, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.errors import CheckpointError
from tickwise.core.stages import Stage, mark
from tickwise.training.objective import Batch

LossName = Literal["cross-entropy", "hinge"]


def class_losses(name: LossName, logits_BC: Tensor, classes_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(B,) nats of each text's class; or the squared hinge loss, in which every class is told from all others with a
    margin of 1 (what a linear support vector machine minimises; Fan et al. 2008)."""
    if name == "cross-entropy":
        return F.cross_entropy(logits_BC, classes_B, reduction="none", label_smoothing=label_smoothing)
    side_BC = 2 * F.one_hot(classes_B, logits_BC.shape[1]) - 1
    return (1 - side_BC * logits_BC).clamp(min=0).square().sum(1)


class ClassObjective(ABC):
    """Shuffled passes through the training texts; what does not fill a batch at the end of one is left out of it.

    ``example_weights`` (B,) make some texts count for more: the mean loss is weighted by them. Everything random
    follows from ``seed`` and the number of batches so far.
    """

    fixed_shapes = False

    def __init__(self, classes: Tensor, *, batch_size: int, seed: int, label_smoothing: float,
                 example_weights: Tensor | None, loss: LossName = "cross-entropy") -> None:
        self._classes = classes
        self._batch_size = min(batch_size, len(classes))
        self._seed, self._label_smoothing = seed, label_smoothing
        self._weights = torch.ones(len(classes)) if example_weights is None else example_weights
        self._loss: LossName = loss
        self._step = 0
        self._pass = -1
        self._batches: Sequence[NDArray[np.int64]] = ()

    @abstractmethod
    def _shuffled(self, number: int) -> Sequence[NDArray[np.int64]]:
        """The texts of each batch of pass ``number``."""

    @abstractmethod
    def _batch(self, texts: NDArray[np.int64], step: int | None) -> Batch:
        """These texts as inputs, with what is dropped out in batch number ``step``; nothing without a number."""

    def _draws(self, step: int) -> np.random.Generator:
        """For what is dropped out of a batch."""
        return np.random.default_rng((self._seed, 1 << 32, step))

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self._classes) // self._batch_size)

    @property
    def epochs_done(self) -> float:
        return self._step / self.steps_per_epoch

    def next_batch(self) -> Batch:
        number, place = divmod(self._step, self.steps_per_epoch)
        if number != self._pass:
            self._pass, self._batches = number, self._shuffled(number)
        batch = self._batch(self._batches[place], self._step)
        self._step += 1
        return batch

    def example(self) -> Batch:
        return self._batch(self._shuffled(0)[0], None)

    def _mean_loss(self, logits_BC: Tensor, classes_B: Tensor, importance_B: Tensor) -> Tensor:
        mark(Stage.LOSS)
        losses_B = class_losses(self._loss, logits_BC, classes_B, self._label_smoothing)
        return (losses_B * importance_B).sum() / importance_B.sum()

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:  # noqa: B027  nothing is the usual
        """Texts are independent."""

    def state(self) -> dict[str, Any]:
        return {"step": self._step, "seed": self._seed, "texts": len(self._classes), "batch_size": self._batch_size}

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        own = self.state()
        for name in ("seed", "texts", "batch_size"):
            if state.get(name) != own[name]:
                raise CheckpointError(f"{name.replace('_', ' ')} was {state.get(name)}, this run has {own[name]}; give "
                                      "the same, or a new --out")
        self._step = int(state["step"])
