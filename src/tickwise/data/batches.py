"""Batches of windows over one token stream, with a cursor that resumes exactly.

Shape legend: B sequences, T tokens of context, N windows.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tickwise.core.errors import CheckpointError, DataError


class BatchCursor:
    """Endless (inputs, targets) of shape (B, T), each epoch a fresh permutation of the stream's windows.

    An epoch cuts the stream into windows of T + 1 tokens that overlap by one, from an offset drawn anew
    for the epoch, so that window borders move. Order and offset depend on ``seed`` and the epoch alone:
    the state is two integers, and resuming means setting them. With ``vocab_size``, ``next_batch`` raises
    ``DataError`` for an id that a model of that vocabulary does not have.
    """

    def __init__(
        self, tokens: np.ndarray, *, batch_size: int, context: int, seed: int, vocab_size: int | None = None
    ) -> None:
        if len(tokens) < context + 1:
            raise DataError(
                f"the training text has {len(tokens)} tokens, one context needs {context + 1}; "
                f"add text or use --context of at most {max(len(tokens) - 1, 1)}"
            )
        self.tokens, self.batch_size, self.context, self.seed = tokens, batch_size, context, seed
        self.vocab_size = vocab_size
        self.epoch = 0
        self.position = 0
        self._order = self._permutation(0)

    def _permutation(self, epoch: int) -> np.ndarray:
        """Start offsets of the epoch's windows in the order they are used."""
        generator = np.random.default_rng((self.seed, epoch))
        slack = min(self.context, len(self.tokens) - self.context)
        offset = int(generator.integers(slack))
        starts = np.arange(offset, len(self.tokens) - self.context, self.context, dtype=np.int64)
        return generator.permutation(starts)

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, both (B, T) int64; targets are the inputs moved on by one."""
        starts: list[int] = []
        while len(starts) < self.batch_size:
            if self.position == len(self._order):
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._permutation(self.epoch)
            take = min(self.batch_size - len(starts), len(self._order) - self.position)
            starts.extend(self._order[self.position : self.position + take])
            self.position += take
        index = np.asarray(starts)[:, None] + np.arange(self.context + 1)
        window = _window(self.tokens[index], self.vocab_size)
        return window[:, :-1], window[:, 1:]

    @property
    def epochs_done(self) -> float:
        """How many times the stream has been read, with the fraction of the current pass."""
        return self.epoch + self.position / len(self._order)

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to go on with the next batch."""
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed, "n_tokens": len(self.tokens),
                "context": self.context}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue after the last batch before ``state`` was taken; refuses another stream or window size."""
        for name, mine in (("seed", self.seed), ("n_tokens", len(self.tokens)), ("context", self.context)):
            if state.get(name) != mine:
                raise CheckpointError(f"the checkpoint's data cursor has {name} {state.get(name)}, this run {mine}; "
                                      "resume with the same data and settings or start a new --out")
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._order = self._permutation(self.epoch)


def evaluation_windows(
    tokens: np.ndarray, context: int, max_tokens: int | None = None, *, vocab_size: int | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Non-overlapping windows in order, every target once: full ones stacked as (N, T), then the rest as (1, R).

    ``max_tokens`` bounds the targets; the windows are then spread over the stream at equal distances. Raises
    ``DataError`` for an id that is not below ``vocab_size``.
    """
    n_targets = len(tokens) - 1
    n_full = n_targets // context
    starts = np.arange(n_full, dtype=np.int64) * context
    rest = n_targets - n_full * context
    if max_tokens is not None and n_full * context > max_tokens:
        starts = starts[np.linspace(0, n_full - 1, max(1, max_tokens // context)).round().astype(np.int64)]
        rest = 0
    out = []
    if n_full:
        window = _window(tokens[starts[:, None] + np.arange(context + 1)], vocab_size)
        out.append((window[:, :-1], window[:, 1:]))
    if rest:
        window = _window(np.asarray(tokens[-rest - 1 :])[None], vocab_size)
        out.append((window[:, :-1], window[:, 1:]))
    return out


def _window(ids: np.ndarray, vocab_size: int | None) -> Tensor:
    """``ids`` as int64; ``DataError`` for one outside the vocabulary, which a changed token file can hold."""
    if vocab_size is not None and int(ids.max()) >= vocab_size:
        raise DataError(f"the prepared data holds token id {int(ids.max())}, outside the vocabulary of {vocab_size} "
                        "(ids from 0); its files were changed or damaged: prepare the data again")
    return torch.from_numpy(ids.astype(np.int64))
