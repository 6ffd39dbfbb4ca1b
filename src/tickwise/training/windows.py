"""What objectives on windows of one token stream share: the cursor, what is drawn for a batch, validation, resuming.

Shape legend: B windows, T tokens of a window.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.data.batches import BatchCursor, evaluation_windows
from tickwise.training.objective import Batch

_VALIDATED_TOKENS = 8192


class WindowObjective(ABC):
    """An ``Objective`` on shuffled windows of one token stream, in each of which something is hidden, drawn anew for
    every batch. Everything random follows from the cursor's seed and the number of batches so far."""

    validates_the_rest: ClassVar[bool] = True
    """Whether validation has the last window, which is shorter than the others."""

    def __init__(self, cursor: BatchCursor, validation: NDArray[Any] | None) -> None:
        self._cursor, self._validation = cursor, validation
        self._step = 0

    @abstractmethod
    def batch(self, windows_BT: NDArray[np.int64], draws: np.random.Generator) -> Batch:
        """The windows with something hidden, as ``loss`` reads them: rows, or as much of every row, one after the
        other."""

    @abstractmethod
    def figures(self, module: nn.Module, inputs: Sequence[Tensor]) -> tuple[dict[str, float], int]:
        """Means of a batch for validation, and over how many tokens each is one."""

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else len(self._validation) - 1

    @property
    def epochs_done(self) -> float:
        return self._cursor.epochs_done

    def next_batch(self) -> Batch:
        draws = np.random.default_rng((self._cursor.seed, 1 << 32, self._step))
        self._step += 1
        return self.batch(self._cursor.next_batch()[0].numpy(), draws)

    def example(self) -> Batch:
        zeros_BT = np.zeros((self._cursor.batch_size, self._cursor.context), dtype=np.int64)
        return self.batch(zeros_BT, np.random.default_rng(0))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """Windows in ``n`` parts; each weighs as many as it has, for in all of them as many tokens are hidden."""
        rows = len(batch.inputs[0])
        pieces = zip(*(_in_parts(x, rows, n) for x in batch.inputs), strict=True)
        return [Batch(inputs, batch.n_tokens * len(inputs[0]) // rows, weight=len(inputs[0])) for inputs in pieces]

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:  # noqa: B027
        """Windows are independent."""

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """The means of ``figures``; the same is hidden every time."""
        totals: dict[str, float] = {}
        count = 0
        for batch in self._validation_batches(max_tokens):
            found, n = self.figures(module, [x.to(device) for x in batch.inputs])
            totals = {name: totals.get(name, 0.0) + n * value for name, value in found.items()}
            count += n
        return {name: total / count for name, total in totals.items()}

    def _validation_batches(self, max_tokens: int | None) -> Iterator[Batch]:
        assert self._validation is not None
        context = self._cursor.context
        draws = np.random.default_rng((self._cursor.seed, 1 << 33))
        rows = max(1, _VALIDATED_TOKENS // context)
        for windows_NT, _ in evaluation_windows(self._validation, context, max_tokens,
                                                vocab_size=self._cursor.vocab_size):
            if self.validates_the_rest or windows_NT.shape[1] == context:
                yield from (self.batch(part.numpy(), draws) for part in windows_NT.split(rows))

    def state(self) -> dict[str, Any]:
        return self._cursor.state() | {"step": self._step}

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self._cursor.restore({name: value for name, value in state.items() if name != "step"})
        self._step = int(state["step"])


def _in_parts(x: Tensor, rows: int, n: int) -> list[Tensor]:
    """``x`` by its rows in ``n`` parts, also where the rows stand one after the other in one dimension."""
    if len(x) == rows:
        return list(x.chunk(n))
    return [part.flatten(0, 1) for part in x.unflatten(0, (rows, -1)).chunk(n)]
