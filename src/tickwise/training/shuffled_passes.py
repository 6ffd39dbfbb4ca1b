"""Shuffled passes through training examples: what most objectives of tasks have in common.

Shape legend: B examples of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.core.errors import CheckpointError
from tickwise.training.objective import Batch

_POOL_BATCHES = 16
"""Examples are sorted by length within this many batches: little padding, and other batches in each epoch."""
_PREDICTED_TOKENS = 8192


class ShuffledPasses(ABC):
    """Base of objectives whose batches come from shuffled passes through ``n`` examples; what does not fill a batch at
    the end of a pass is left out of it. With ``lengths`` batches are of examples of like length.

    Everything random follows from ``seed`` and the number of batches so far.
    """

    fixed_shapes = False
    unit = "texts"
    """What the examples are, as checkpoints call them."""

    def __init__(self, n: int, *, batch_size: int, seed: int, lengths: Sequence[int] | None = None) -> None:
        self._n, self._batch_size, self._seed = n, min(batch_size, n), seed
        self._lengths = None if lengths is None else np.array(lengths)
        self._step, self._pass = 0, -1
        self._batches: Sequence[NDArray[np.int64]] = ()

    @abstractmethod
    def _batch(self, chosen: NDArray[np.int64], step: int | None) -> Batch:
        """These examples as inputs, with what is dropped out in batch number ``step``; nothing without a number."""

    def _draws(self, step: int) -> np.random.Generator:
        """For what is dropped out of a batch."""
        return np.random.default_rng((self._seed, 1 << 32, step))

    def _shuffled(self, number: int) -> Sequence[NDArray[np.int64]]:
        """The examples of each batch of pass ``number``."""
        chooser = np.random.default_rng((self._seed, number))
        order = chooser.permutation(self._n)[: self.steps_per_epoch * self._batch_size]
        if self._lengths is None:
            return list(order.reshape(-1, self._batch_size))
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), _POOL_BATCHES * self._batch_size):
            pool = order[start : start + _POOL_BATCHES * self._batch_size]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            batches += np.split(pool, len(pool) // self._batch_size)
        return [batches[i] for i in chooser.permutation(len(batches))]

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self._n // self._batch_size)

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

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:  # noqa: B027  nothing is the usual
        """Examples are independent."""

    def state(self) -> dict[str, Any]:
        return {"step": self._step, "seed": self._seed, self.unit: self._n, "batch_size": self._batch_size}

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        own = self.state()
        for name in ("seed", self.unit, "batch_size"):
            if state.get(name) != own[name]:
                raise CheckpointError(f"{name.replace('_', ' ')} was {state.get(name)}, this run has {own[name]}; give "
                                      "the same, or a new --out")
        self._step = int(state["step"])


def batches_by_length(lengths: Sequence[int], batch_tokens: int = _PREDICTED_TOKENS) -> list[list[int]]:
    """Indices in batches of like length; rows times the longest row stays within ``batch_tokens`` (or is one row)."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


@torch.no_grad()
def outputs_by_length(module: nn.Module, lengths: Sequence[int], collate: Callable[[list[int]], Sequence[Tensor]],
                      device: torch.device) -> Tensor:
    """The module's output for each example, float32 on the CPU and in their order, those of like length together.
    ``collate`` makes inputs of the examples of these numbers."""
    if not lengths:
        return torch.empty(0, 0)
    was_training = module.training
    module.eval()
    order: list[int] = []
    parts = []
    for batch in batches_by_length(lengths):
        parts.append(module(*(x.to(device) for x in collate(batch))).float().cpu())
        order += batch
    module.train(was_training)
    out = torch.cat(parts)
    return torch.empty_like(out).index_copy_(0, torch.tensor(order), out)
