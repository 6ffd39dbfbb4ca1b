"""How good and how varied written sentences are: BLEU against a corpus, and self-BLEU against each other.

Sources: Papineni et al. 2002 (BLEU: clipped n-gram precision, brevity penalty); Zhu et al. 2018 (Texygen: the mean over
sentences of BLEU-n with all test sentences as references; self-BLEU: each sentence against all the others). Sentences
in which some n-gram length has no match are smoothed by counting 0.1 matches (Chen & Cherry 2014, method 1), as there.
"""

import bisect
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tickwise.core.errors import ConfigError, DataError

_SMOOTHED = 0.1
Words = Sequence[str] | Sequence[int]


@dataclass
class References:
    """The n-grams of a corpus: of each the largest counts in one sentence, and the lengths of the sentences.

    ``counts`` has for each n-gram (largest count, the sentence that has it, largest count in the other sentences), so
    that one sentence can be left out.
    """

    largest_n: int
    counts: dict[tuple[object, ...], tuple[int, int, int]] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, sentences: Iterable[Words], largest_n: int) -> "References":
        references = cls(largest_n)
        for number, words in enumerate(sentences):
            references.lengths.append(len(words))
            for n in range(1, largest_n + 1):
                for gram, count in _grams(words, n).items():
                    most, whose, second = references.counts.get(gram, (0, -1, 0))
                    if count > most:
                        references.counts[gram] = (count, number, most)
                    elif count > second:
                        references.counts[gram] = (most, whose, count)
        references.lengths.sort()
        return references

    def most(self, gram: tuple[object, ...], without: int | None) -> int:
        """The largest count of ``gram`` in one sentence, of the sentences other than number ``without``."""
        most, whose, second = self.counts.get(gram, (0, -1, 0))
        return second if whose == without else most

    def closest_length(self, length: int, without_one: bool) -> int:
        """The reference length nearest to ``length``, the shorter of two; leaving out one of just that length."""
        lengths = self.lengths
        low, high = bisect.bisect_left(lengths, length), bisect.bisect_right(lengths, length)
        if high - low > (1 if without_one else 0):
            return length
        near = [*lengths[max(0, low - 1) : low], *lengths[high : high + 1]]
        return min(near, key=lambda other: (abs(other - length), other))


def _grams(words: Words, n: int) -> Counter[tuple[object, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def sentence_bleu(words: Words, references: References, n: int, own: int | None = None) -> float:
    """BLEU-n of one sentence, all n-gram lengths weighing the same; 0 without a single matching word.

    ``own`` is the sentence's number where it is one of the references, and leaves it out.
    """
    if n < 1 or n > references.largest_n:
        raise ConfigError(f"BLEU-{n}: the references have n-grams up to {references.largest_n}")
    if not words:
        return 0.0
    logs = 0.0
    for size in range(1, n + 1):
        grams = _grams(words, size)
        matches = sum(min(count, references.most(gram, own)) for gram, count in grams.items())
        if size == 1 and matches == 0:
            return 0.0
        logs += math.log((matches or _SMOOTHED) / max(1, grams.total()))
    closest = references.closest_length(len(words), own is not None)
    penalty = min(0.0, 1 - closest / len(words))
    return math.exp(penalty + logs / n)


def bleu(sentences: Sequence[Words], references: References, n: int) -> float:
    """Mean BLEU-n of ``sentences`` against all references: how much they read like the corpus."""
    if not sentences:
        raise DataError("BLEU: there are no sentences to judge")
    return sum(sentence_bleu(words, references, n) for words in sentences) / len(sentences)


def self_bleu(sentences: Sequence[Words], n: int) -> float:
    """Mean BLEU-n of each sentence against all the others: how alike they are. Lower is more varied."""
    if len(sentences) < 2:
        raise DataError("self-BLEU: needs at least two sentences")
    references = References.of(sentences, n)
    return sum(sentence_bleu(words, references, n, own) for own, words in enumerate(sentences)) / len(sentences)


def distinct(sentences: Sequence[Words], n: int) -> float:
    """Share of different ones among all n-grams (Li et al. 2016)."""
    grams = Counter[tuple[object, ...]]()
    for words in sentences:
        grams.update(_grams(words, n))
    return len(grams) / grams.total() if grams else 0.0
