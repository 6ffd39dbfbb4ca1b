"""What the training loop needs to know of a job: its batches, its loss, its validation, its place in the data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class BatchWork:
    """What a batch's counted work follows from, where batches differ in shape."""

    n_texts: int
    kind: tuple[bool, ...]
    """Batches of one kind run through the same operations,"""
    sizes: tuple[int, ...]
    """whose FLOPs and bytes are linear in these."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One update's examples."""

    inputs: tuple[Tensor, ...]
    """What ``Objective.loss`` takes after the module, on the CPU; the loop moves it to the device."""
    n_tokens: int
    """What the batch counts for in tokens per second and in ``--max-tokens``."""
    work: BatchWork | None = None
    """``None``: all batches do the same work, or it is not known what it follows from."""
    weight: float = 1.0
    """What its mean loss counts for beside those of the other parts of an update: its tokens, texts, or whatever else
    the loss is a mean over."""


class Objective(Protocol):
    """A job for the loop. The module computes; the objective says on what, towards what, and how well it went."""

    @property
    def n_validation_tokens(self) -> int:
        """Tokens of one whole validation; 0 when there is nothing to validate on."""

    @property
    def epochs_done(self) -> float:
        """How many times the training data has been read, with the fraction of the current pass."""

    @property
    def fixed_shapes(self) -> bool:
        """Every batch has the same shapes: one listing and one compilation hold for all of them."""

    def next_batch(self) -> Batch:
        """The next update's examples; endless."""

    def example(self) -> Batch:
        """A batch of the usual shapes, to count its work; takes nothing from the data's order."""

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """``batch`` in ``n`` micro-batches; where the loss is a mean over more in one than in another, their ``weight``
        says so."""

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The mean loss (nats) of one micro-batch, and what its next one starts from (recurrent state; mostly empty).

        Pure: everything that it depends on is an argument.
        """

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:
        """Keep, detached, what micro-batch number ``micro`` ended with."""

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Figures on the validation part. The best model is the one with the lowest ``"loss"``."""

    def state(self) -> dict[str, Any]:
        """Where the data stands, as JSON: ``restore`` goes on with the very next batch."""

    def state_tensors(self) -> dict[str, Tensor]:
        """What ``carry`` kept, by name."""

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Continue after ``state`` was taken; ``CheckpointError`` for other data or settings."""


@runtime_checkable
class CountedObjective(Protocol):
    """An objective whose batches differ in shape and say what their work follows from (``Batch.work``)."""

    def samples(self, kind: tuple[bool, ...]) -> Sequence[Batch]:
        """Small batches of a kind, of different sizes: more of them than a batch has sizes."""
