"""Counts of n-grams, and modified Kneser–Ney probabilities from them (Chen & Goodman 1998, equations 26 to 28).

Everything is a sort of integer keys, so that a million tokens take a second or two.
"""

import itertools
from typing import Any

import numpy
import torch
from numpy.typing import NDArray

from tickwise.core.console import say
from tickwise.core.errors import ConfigError, DataError
from tickwise.models.ngram import Ngram, NgramConfig

# Where a text is too small to estimate discounts from its counts of counts, as KenLM's --discount_fallback.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
_MOST_WORDS = 1 << 31


def count_ngrams(
    ids: NDArray[Any], vocab_size: int, *, order: int = 5, boundary: int | None = None, context_length: int = 4096,
) -> Ngram:
    """The modified Kneser–Ney model of the tokens ``ids`` (n,).

    ``boundary`` ends texts or lines: n-grams hold it as their first or last word only, and those that begin with it
    keep their own counts in lower orders, since nothing can stand before them. Raises ``DataError`` for fewer than two
    tokens and ``ConfigError`` for an impossible order.
    """
    if not 1 <= order <= 16:
        raise ConfigError(f"--order {order}: must be from 1 to 16")
    if len(ids) < 2:
        raise DataError(f"{len(ids)} tokens are too few to count n-grams")
    assert vocab_size < _MOST_WORDS
    levels = _levels(numpy.asarray(ids, dtype=numpy.int64), vocab_size, order, boundary)
    for lower, higher in itertools.pairwise(levels):
        lower.use_continuations(higher, vocab_size, boundary)
    config = NgramConfig(
        vocab_size=vocab_size, order=order, boundary=boundary, context_length=context_length,
        n_contexts=tuple(len(level.context_keys) for level in levels[1:]),
        n_ngrams=tuple(len(level.keys) for level in levels[1:]),
    )
    _say_fallbacks(levels)
    module = Ngram(config)
    probabilities, backoff = levels[0].discounted(vocab_size)
    unigram = numpy.full(vocab_size, backoff[0] / vocab_size)
    unigram[levels[0].keys] += probabilities
    module.unigram.data = torch.from_numpy(unigram).float()
    for level, table in zip(levels[1:], module.tables, strict=True):
        probabilities, backoff = level.discounted(vocab_size)
        table.context_keys, table.keys = torch.from_numpy(level.context_keys), torch.from_numpy(level.keys)
        table.probabilities.data = torch.from_numpy(probabilities).float()
        table.backoff.data = torch.from_numpy(backoff).float()
    return module.eval()


def discounts_of(counts: NDArray[numpy.int64]) -> tuple[float, float, float]:
    """What is taken from n-grams that were counted once, twice, and more often (Chen & Goodman 1998, equation 26);
    ``FALLBACK_DISCOUNTS`` where the counts do not give them."""
    n1, n2, n3, n4 = (int((counts == number).sum()) for number in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return FALLBACK_DISCOUNTS
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    is_sound = all(0 <= discount <= count for count, discount in enumerate(found, start=1))
    return found if is_sound else FALLBACK_DISCOUNTS


def _say_fallbacks(levels: list["_Level"]) -> None:
    orders = [str(order) for order, level in enumerate(levels, start=1)
              if len(level.counts) and discounts_of(level.counts) == FALLBACK_DISCOUNTS]
    if orders:
        say(f"n-grams of order {', '.join(orders)}: too few, or counted in too unusual proportions, to estimate "
            f"Kneser–Ney discounts from; they have {', '.join(map(str, FALLBACK_DISCOUNTS))} instead")


class _Level:
    """The n-grams of one order: keys = (row of the context) · V + word, sorted."""

    def __init__(self, context_keys: NDArray[numpy.int64] | None, grams: NDArray[numpy.int64]) -> None:
        """The first order has no contexts, that is one, without a word."""
        self.context_keys = numpy.empty(0, dtype=numpy.int64) if context_keys is None else context_keys
        self.n_contexts = 1 if context_keys is None else len(context_keys)
        self.keys, self.counts = numpy.unique(grams, return_counts=True)

    def use_continuations(self, higher: "_Level", vocab_size: int, boundary: int | None) -> None:
        """Count in how many words' company each n-gram was seen instead of how often."""
        context, word = numpy.divmod(higher.keys, vocab_size)
        shorter = higher.context_keys[context] // vocab_size
        keys, continuations = numpy.unique(shorter * vocab_size + word, return_counts=True)
        counts = numpy.zeros_like(self.counts)
        counts[numpy.searchsorted(self.keys, keys)] = continuations
        if boundary is not None and len(self.context_keys):
            begins_text = self.context_keys[self.keys // vocab_size] % vocab_size == boundary
            counts[begins_text] = self.counts[begins_text]
        self.keys, self.counts = self.keys[counts > 0], counts[counts > 0]

    def discounted(self, vocab_size: int) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]]:
        """Discounted relative frequencies of the n-grams, and of each context the share that was taken."""
        taken = numpy.array((0.0, *discounts_of(self.counts)))[numpy.minimum(self.counts, 3)]
        context = self.keys // vocab_size
        total = numpy.bincount(context, weights=self.counts, minlength=self.n_contexts)
        shared = numpy.bincount(context, weights=taken, minlength=self.n_contexts)
        backoff = numpy.divide(shared, total, out=numpy.ones(self.n_contexts), where=total > 0)
        return (self.counts - taken) / total[context], backoff


def _levels(ids: NDArray[numpy.int64], vocab_size: int, order: int, boundary: int | None) -> list[_Level]:
    """Orders 1, 2 … ``order``, with how often each n-gram was seen."""
    is_target = numpy.ones(len(ids), dtype=bool)
    if boundary is not None and ids[0] != boundary:
        ids = numpy.concatenate([[boundary], ids])
        is_target = numpy.concatenate([[False], is_target])
    levels = [_Level(None, ids[is_target])]
    row = numpy.zeros(len(ids), dtype=numpy.int64)
    for back in range(1, order):
        is_target[:back] = False
        if boundary is not None and back > 1:
            is_target[back:] &= ids[1 : len(ids) - back + 1] != boundary
        at = numpy.flatnonzero(is_target)
        context_keys, rows = numpy.unique(row[at] * vocab_size + ids[at - back], return_inverse=True)
        row[at] = rows
        levels.append(_Level(context_keys, row[at] * vocab_size + ids[at]))
    return levels
