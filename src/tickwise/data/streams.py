"""Parallel streams over one token stream: every batch goes on where the one before it ended, as a carried state needs.

Shape legend: B streams, T tokens of a batch.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tickwise.core.errors import CheckpointError, DataError


class StreamCursor:
    """Endless (inputs, targets) of shape (B, T): row b of a batch is followed by row b of the next one.

    An epoch reads the text as a ring from a place drawn anew, cut into B parts of equal length, so that each epoch
    cuts it elsewhere. The place depends on ``seed`` and the epoch alone: the state is two integers.
    """

    def __init__(self, tokens: np.ndarray, *, batch_size: int, context: int, seed: int, vocab_size: int) -> None:
        if len(tokens) < batch_size * (context + 1):
            raise DataError(
                f"the training text has {len(tokens)} tokens, {batch_size} streams of {context} tokens need "
                f"{batch_size * (context + 1)}; add text or use a smaller --batch-size or --context"
            )
        self.tokens, self.batch_size, self.context, self.seed = tokens, batch_size, context, seed
        self.vocab_size = vocab_size
        self.epoch = self.position = 0
        self._starts = self._epoch_starts()

    @property
    def batches_per_epoch(self) -> int:
        return (len(self.tokens) // self.batch_size - 1) // self.context

    def _epoch_starts(self) -> np.ndarray:
        """Where in the text each stream of the epoch begins."""
        offset = int(np.random.default_rng((self.seed, self.epoch)).integers(len(self.tokens)))
        return offset + np.arange(self.batch_size) * (len(self.tokens) // self.batch_size)

    @property
    def begins_epoch(self) -> bool:
        """Whether the next batch goes on from no other one."""
        return self.position in (0, self.batches_per_epoch)

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, both (B, T) int64; targets are the inputs moved on by one."""
        if self.position == self.batches_per_epoch:
            self.epoch, self.position = self.epoch + 1, 0
            self._starts = self._epoch_starts()
        places = self._starts[:, None] + self.position * self.context + np.arange(self.context + 1)
        ids = np.asarray(self.tokens[places % len(self.tokens)])
        if int(ids.max()) >= self.vocab_size:
            raise DataError(f"the prepared data holds token id {int(ids.max())}, outside the vocabulary of "
                            f"{self.vocab_size} (ids from 0); its files were changed: prepare the data again")
        self.position += 1
        window = torch.from_numpy(ids.astype(np.int64))
        return window[:, :-1], window[:, 1:]

    @property
    def epochs_done(self) -> float:
        """How many times the text has been read, with the fraction of the current pass."""
        return self.epoch + self.position / self.batches_per_epoch

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to go on with the next batch."""
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed, "n_tokens": len(self.tokens),
                "context": self.context, "batch_size": self.batch_size}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue after the last batch before ``state`` was taken; refuses another text or shape of batches."""
        for name, mine in (("seed", self.seed), ("n_tokens", len(self.tokens)), ("context", self.context),
                           ("batch_size", self.batch_size)):
            if state.get(name) != mine:
                raise CheckpointError(f"the checkpoint's data cursor has {name} {state.get(name)}, this run {mine}; "
                                      "resume with the same data and settings or start a new --out")
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._starts = self._epoch_starts()
