"""What the training loop asks of whoever computes a step: one process alone, or one rank of several.

``Alone`` is the answer of one process. ``training/distributed`` has those of many: they compute one share each of the
same global batch, so that a run's losses do not depend on the number of ranks (beyond the last bits of sums).
"""

import contextlib
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from tickwise.training.config import LoopConfig
from tickwise.training.objective import Batch, Objective
from tickwise.training.optimizers import total_norm

if TYPE_CHECKING:
    from tickwise.training.loop import Training

Plain = TypeVar("Plain", float, bool)


class MicroBatch(NamedTuple):
    """A part of a global batch."""

    number: int
    """Its place among all parts of the batch."""
    batch: Batch
    divisor: float
    """What its mean loss is divided by, so that the sum over this rank's parts, averaged over ranks, is the whole
    batch's mean."""


def divisors(parts: Sequence[Batch]) -> list[float]:
    """What the mean loss of each part is divided by, so that their sum is the mean of all."""
    whole = sum(part.weight for part in parts)
    return [whole / part.weight if part.weight else math.inf for part in parts]


def seed_micro_batch(training: "Training", part: MicroBatch) -> None:
    """Let what is random in a micro-batch follow from the run's seed, the step and its place in the batch alone."""
    key = f"{training.config.seed} {training.counters.step} {part.number}".encode()
    torch.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1)


class Alone:
    """One process: it computes, decides and writes by itself."""

    rank = 0
    n_ranks = 1
    shards = False
    """Weights and optimizer state are spread over the ranks."""

    @property
    def leads(self) -> bool:
        """This process shows and writes what the run has to say."""
        return self.rank == 0

    def parts(self, objective: Objective, batch: Batch, accumulate: int) -> list[MicroBatch]:
        """This process's micro-batches of a global batch."""
        micro_batches = [batch] if accumulate == 1 else objective.split(batch, accumulate)
        parts = zip(micro_batches, divisors(micro_batches), strict=True)
        return [MicroBatch(index, micro, divisor) for index, (micro, divisor) in enumerate(parts)]

    @contextlib.contextmanager
    def computing(self, training: "Training", part: MicroBatch, last: bool) -> Iterator[None]:
        """Around a micro-batch's forward and backward pass; ranks exchange gradients in the ``last`` one's. Several
        micro-batches draw what as many ranks would."""
        if training.config.accumulate > 1:
            seed_micro_batch(training, part)
        yield

    def loss(self, objective: Objective, module: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A micro-batch's loss, and what its next one starts from."""
        return objective.loss(module, *inputs)

    def carry(self, objective: Objective, state: tuple[Tensor, ...], part: MicroBatch) -> None:
        """Give the objective what this part (and what other ranks compute beside it) ended with."""
        objective.carry(state, part.number)

    def norm(self, tensors: Iterable[Tensor]) -> Tensor:
        """The 2-norm of all gradients (or weights) as one vector."""
        return total_norm(tensors)

    def mean(self, value: float) -> float:
        """Over the ranks."""
        return value

    def agree(self, value: Plain) -> Plain:
        """The first rank's value: clocks and signals differ from rank to rank, decisions must not."""
        return value

    def tell(self, text: str) -> str:
        """Like ``agree``, for words."""
        return text

    def after_restart(self, config: LoopConfig) -> LoopConfig:
        """``config``; where its launch has begun to write the run already, it goes on whatever the flags said at
        first."""
        return config

    @contextlib.contextmanager
    def leader_writes(self) -> Iterator[None]:
        """Inside, the leading process writes files; the others wait for it at the end."""
        yield

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Inside, the module can be used as if this process held all of it."""
        yield

    @contextlib.contextmanager
    def faults_named(self, training: "Training") -> Iterator[None]:
        """Inside, a rank that hangs or dies ends in one line that names it."""
        yield

    def leave(self) -> None:
        """The run is over."""
