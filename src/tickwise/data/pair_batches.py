"""Tokenized pairs, and batches of pairs that are alike in length.

Shape legend: B pairs, S source tokens, T target tokens, P target tokens of all pairs, without padding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.errors import CheckpointError, DataError
from tickwise.data.pairs import Pairs
from tickwise.data.sentences import Sentences, sentences_from_ids
from tickwise.tokenizers.bpe_dropout import BpeDropout
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import train_tokenizer

_POOL_BATCHES = 32
"""Pairs are sorted by length within this many batches: little padding, and other batches in each epoch."""


def train_pair_tokenizer(pairs: Pairs, *, vocab_size: int, lowercase: bool) -> Tokenizer:
    """A byte-level BPE tokenizer of both sides together."""
    return train_tokenizer("bpe", iter([*pairs.sources, *pairs.targets]), vocab_size=vocab_size, lowercase=lowercase,
                           prefix_space=True)


@dataclass(frozen=True)
class EncodedPairs:
    """Sources and, at the same places, their targets; each ends with the end mark, which also pads."""

    sources: Sentences
    targets: Sentences
    numbers: NDArray[np.int64]
    """Which of the pairs these are: those with a side of too many tokens are not here."""
    start_id: int | None = None
    """What a target starts with; left out, the end mark."""

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def n_target_tokens(self) -> int:
        """Tokens to predict in one epoch."""
        return int(self.targets.lengths.sum()) + len(self)

    def collate(self, indices: NDArray[np.int64]) -> "PairTensors":
        source_BS, source_lengths_B = self.sources.padded(indices)
        labels_BT, lengths_B = self.targets.padded(indices)
        start_id = self.targets.eos_id if self.start_id is None else self.start_id
        target_BT = torch.cat([torch.full((len(indices), 1), start_id), labels_BT[:, :-1]], dim=1)
        is_token_BT = torch.arange(labels_BT.shape[1]) < lengths_B[:, None]
        return PairTensors(source_BS, source_lengths_B, target_BT, lengths_B, labels_BT[is_token_BT])


class PairTensors(NamedTuple):
    """A batch: sources and targets, padded on the right, and what is to be predicted."""

    source: Tensor
    """(B, S)"""
    source_lengths: Tensor
    """(B,)"""
    target: Tensor
    """(B, T) from the start token up to the last token before the end."""
    target_lengths: Tensor
    """(B,)"""
    labels: Tensor
    """(P,) the next token at every target token, text by text."""


def encode_pairs(pairs: Pairs, tokenizer: Tokenizer, longest: int, longest_target: int | None = None,
                 start_id: int | None = None) -> EncodedPairs:
    """Pairs as ids, for a model whose targets start with ``start_id`` (the end mark where it is left out). Those with a
    source of more than ``longest`` tokens, its end counted, or a target of more than ``longest_target`` (as many where
    it is left out), are left out; ``DataError`` when no pair remains."""
    assert tokenizer.eos_id is not None
    sources, targets = (tokenizer.encode_sources(side) for side in (pairs.sources, pairs.targets))
    limits = longest, longest if longest_target is None else longest_target
    encoded = pairs_from_ids(sources, targets, limits, tokenizer.eos_id, start_id)
    if encoded is None:
        lengths = [max(len(source), len(target)) + 1 for source, target in zip(sources, targets, strict=True)]
        raise DataError(f"{pairs.name}: no pair has at most {min(limits):,} tokens on each side (the shortest one has "
                        f"{min(lengths, default=0):,}); split them, or let a new model read more with "
                        "--options.longest")
    return encoded


def pairs_from_ids(sources: list[list[int]], targets: list[list[int]], longest: tuple[int, int],
                   eos_id: int, start_id: int | None = None) -> EncodedPairs | None:
    """Pairs of ids without end marks, of which those are left out that have more tokens on a side, the end counted,
    than ``longest`` says of it; ``None`` when no pair remains."""
    kept = [number for number, sides in enumerate(zip(sources, targets, strict=True))
            if all(len(side) < most for side, most in zip(sides, longest, strict=True))]
    if not kept:
        return None
    return EncodedPairs(sentences_from_ids([sources[i] for i in kept], eos_id),
                        sentences_from_ids([targets[i] for i in kept], eos_id), np.array(kept), start_id)


class ResegmentedPairs:
    """Pairs whose words have other tokens in every epoch (``BpeDropout``). One that would have a side of more than
    ``longest`` tokens (source, target) so keeps its usual ones."""

    def __init__(self, pairs: Pairs, usual: EncodedPairs, tokenizer: Tokenizer, longest: tuple[int, int], *,
                 rate: float, seed: int) -> None:
        """``usual`` are those of ``pairs`` that are short enough, as ``tokenizer`` encodes them."""
        self._usual = usual
        kept = pairs.take(usual.numbers.tolist())
        self._dropout = BpeDropout(tokenizer, rate, seed, [text.strip() for text in (*kept.sources, *kept.targets)])
        self._longest, self._seed, self._tokenizer = longest, seed, tokenizer

    def __call__(self, epoch: int) -> EncodedPairs:
        usual, chooser = self._usual, np.random.default_rng((self._seed, epoch, 1))
        drawn = [self._tokenizer.between_marks(ids) for ids in self._dropout.drawn(chooser)]
        sides = drawn[: len(usual)], drawn[len(usual) :]
        for number, (source, target) in enumerate(zip(*sides, strict=True)):
            if len(source) >= self._longest[0] or len(target) >= self._longest[1]:
                sides[0][number], sides[1][number] = usual.sources.ids(number), usual.targets.ids(number)
        sources, targets = (sentences_from_ids(side, usual.sources.eos_id) for side in sides)
        return EncodedPairs(sources, targets, usual.numbers, usual.start_id)


def batches_by_length(sources: NDArray[np.int64], targets: NDArray[np.int64], batch_tokens: int) -> list[list[int]]:
    """Indices in batches of like lengths; rows times the longest side stays within ``batch_tokens`` (or is one row)."""
    longer, shorter = np.maximum(sources, targets), np.minimum(sources, targets)
    batches: list[list[int]] = []
    for index in np.lexsort((shorter, longer)).tolist():
        if not batches or (len(batches[-1]) + 1) * int(longer[index]) > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


class PairBatches:
    """Endless batches of like lengths, each epoch in a new composition and order.

    Both depend on ``seed`` and the epoch alone: the state is two integers. ``pairs`` may be others in each epoch, as
    many of them.
    """

    def __init__(self, pairs: EncodedPairs | Callable[[int], EncodedPairs], *, batch_tokens: int, seed: int) -> None:
        self._pairs_of = pairs if callable(pairs) else lambda epoch: pairs
        self.batch_tokens, self.seed = batch_tokens, seed
        self._begin(0)
        self._n_target_tokens = self.pairs.n_target_tokens

    def _begin(self, epoch: int) -> None:
        self.epoch, self.position, self.pairs = epoch, 0, self._pairs_of(epoch)
        self._order = self._batches()

    @property
    def n_batches(self) -> int:
        """Of this epoch; another one may have one more or less."""
        return len(self._order)

    def _batches(self) -> list[NDArray[np.int64]]:
        """The epoch's batches: every pair once."""
        epoch = self.epoch
        chooser = np.random.default_rng((self.seed, epoch))
        order = chooser.permutation(len(self.pairs))
        # The end tokens count: they are read and predicted like any other.
        sources, targets = (side.lengths + 1 for side in (self.pairs.sources, self.pairs.targets))
        mean = float(np.maximum(sources, targets).mean())
        pool = max(1, round(_POOL_BATCHES * self.batch_tokens / mean))
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), pool):
            # What did not fill a batch goes on into the next pool: an update from very few pairs would be mostly noise.
            part = np.concatenate([*batches[-1:], order[start : start + pool]])
            found = batches_by_length(sources[part], targets[part], self.batch_tokens)
            batches = batches[:-1] + [part[batch] for batch in found]
        return [batches[i] for i in chooser.permutation(len(batches))]

    def next_batch(self) -> NDArray[np.int64]:
        """(B,) which pairs."""
        if self.position == len(self._order):
            self._begin(self.epoch + 1)
        self.position += 1
        return self._order[self.position - 1]

    @property
    def epochs_done(self) -> float:
        return self.epoch + self.position / len(self._order)

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to go on with the next batch."""
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed, "batch_tokens": self.batch_tokens,
                "n_pairs": len(self.pairs), "n_target_tokens": self._n_target_tokens}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue after the last batch before ``state`` was taken; refuses other data or settings."""
        mine = self.state()
        for name in ("seed", "batch_tokens", "n_pairs", "n_target_tokens"):
            if state.get(name) != mine[name]:
                raise CheckpointError(f"the checkpoint's pairs have {name} {state.get(name)}, this run {mine[name]}; "
                                      "resume with the same data and settings or start a new --out")
        self._begin(int(state["epoch"]))
        self.position = int(state["position"])
