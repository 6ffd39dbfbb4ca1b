"""Sentences of a token stream, and batches of them of like length: each sentence ends with the end-of-text token.

Shape legend: B sentences, T tokens of the longest one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.errors import CheckpointError, DataError

_POOL_BATCHES = 50


@dataclass(frozen=True)
class Sentences:
    """Where sentences begin in a token stream and how long they are, their end token not counted."""

    tokens: NDArray[Any]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    eos_id: int

    def __len__(self) -> int:
        return len(self.starts)

    def ids(self, index: int) -> list[int]:
        """The tokens of one sentence, without its end."""
        start = int(self.starts[index])
        ids: list[int] = self.tokens[start : start + int(self.lengths[index])].tolist()
        return ids

    def padded(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """(B, T) ids, each sentence with its end token and padded with it, and (B,) lengths, the end counted."""
        lengths = self.lengths[indices] + 1
        places = self.starts[indices, None] + np.arange(int(lengths.max()))
        ids = np.asarray(self.tokens)[np.minimum(places, len(self.tokens) - 1)].astype(np.int64)
        ids[np.arange(ids.shape[1]) >= lengths[:, None] - 1] = self.eos_id
        return torch.from_numpy(ids), torch.from_numpy(lengths)


def split_sentences(tokens: NDArray[Any], eos_id: int | None, longest: int, name: str = "the text") -> Sentences:
    """The runs of tokens between end tokens, of 1 to ``longest - 1`` tokens; ``DataError`` when there is none.

    A single line counts as a sentence: prepare text with ``--documents line``, or tokenized text with ``--word-style
    spaces``.
    """
    if eos_id is None:
        raise DataError(f"{name}: its tokenizer has no end-of-text token, so sentences have no end; prepare the text "
                        "again with --documents line")
    ends = np.flatnonzero(np.asarray(tokens) == eos_id)
    if not len(ends) or ends[-1] != len(tokens) - 1:
        ends = np.append(ends, len(tokens))
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts
    kept = (lengths > 0) & (lengths < longest)
    if not kept.any():
        most = f"the shortest one has {lengths[lengths > 0].min():,} tokens" if (lengths > 0).any() else "it is empty"
        raise DataError(f"{name}: no sentence of 1 to {longest - 1:,} tokens ({most}); prepare it with --documents "
                        "line, or raise --longest")
    return Sentences(tokens, starts[kept].astype(np.int64), lengths[kept].astype(np.int64), eos_id)


def sentences_from_ids(sentences: list[list[int]], eos_id: int) -> Sentences:
    """Sentences that were tokenized one by one."""
    joined = [np.asarray([*ids, eos_id], dtype=np.int64) for ids in sentences]
    lengths = np.array([len(ids) for ids in sentences], dtype=np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths + 1)[:-1]))
    return Sentences(np.concatenate(joined), starts.astype(np.int64), lengths, eos_id)


class SentenceBatches:
    """Endless batches of sentences (their numbers), alike in length, in an order drawn anew for every epoch.

    The order depends on ``seed`` and the epoch alone: the state is two integers. What does not fill a batch at the end
    of an epoch is left out of it: other sentences, of any length, in every epoch.
    """

    def __init__(self, sentences: Sentences, *, batch_size: int, seed: int) -> None:
        self.sentences, self.seed = sentences, seed
        self.batch_size = min(batch_size, len(sentences))
        self.epoch = self.position = 0
        self._order = self._epoch_order()

    @property
    def batches_per_epoch(self) -> int:
        return len(self.sentences) // self.batch_size

    def _epoch_order(self) -> NDArray[np.int64]:
        """(batches, B) numbers of sentences: shuffled, sorted by length within pools of batches, batches shuffled."""
        chooser = np.random.default_rng((self.seed, self.epoch))
        order = chooser.permutation(len(self.sentences))[: self.batches_per_epoch * self.batch_size]
        pool = _POOL_BATCHES * self.batch_size
        order = np.concatenate([part[np.argsort(self.sentences.lengths[part], kind="stable")]
                                for part in np.split(order, range(pool, len(order), pool))])
        order = order.reshape(-1, self.batch_size)
        shuffled: NDArray[np.int64] = order[chooser.permutation(len(order))].astype(np.int64)
        return shuffled

    def next_batch(self) -> NDArray[np.int64]:
        """(B,) numbers of sentences."""
        if self.position == self.batches_per_epoch:
            self.epoch, self.position = self.epoch + 1, 0
            self._order = self._epoch_order()
        self.position += 1
        batch: NDArray[np.int64] = self._order[self.position - 1]
        return batch

    @property
    def epochs_done(self) -> float:
        return self.epoch + self.position / self.batches_per_epoch

    @property
    def steps_done(self) -> int:
        """Batches so far."""
        return self.epoch * self.batches_per_epoch + self.position

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to go on with the next batch."""
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed, "n_sentences": len(self.sentences),
                "batch_size": self.batch_size}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue after the last batch before ``state`` was taken; refuses other data or another batch size."""
        mine = self.state()
        for name in ("seed", "n_sentences", "batch_size"):
            if state.get(name) != mine[name]:
                raise CheckpointError(f"the checkpoint's sentences have {name} {state.get(name)}, this run {mine[name]}"
                                      "; resume with the same data and settings or start a new --out")
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._order = self._epoch_order()
