"""Texts as sequences of words for recurrent classifiers: ids of each word's features and characters."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tickwise.data.tag_features import UNKNOWN, EncodedSentence, TagFeatures, plain_word
from tickwise.text.segment import has_chinese
from tickwise.text.words import Place, split_characters, split_words

_LONGEST_TEXT = 1000
"""Words that a classifier reads: of a longer text the first and last half of them."""


class WordSequences:
    """How texts become ids: their words, or their characters where the training texts were mostly Chinese."""

    longest = _LONGEST_TEXT

    def __init__(self, features: TagFeatures) -> None:
        self.features = features
        self.n_cut = 0
        """Texts so far that lost their middle."""

    @classmethod
    def fit(cls, texts: Sequence[str], *, min_count: int = 2,
            sources: Sequence[int] | None = None) -> "WordSequences":
        """Tables of what occurs at least ``min_count`` times in ``texts``; ``sources`` as in ``TagFeatures.build``."""
        chinese = sum(map(has_chinese, texts)) > len(texts) / 2
        split = split_characters if chinese else split_words
        tokens = [[text[p.start : p.end] for p in _shortened(split(text))] for text in texts]
        return cls(TagFeatures.build(tokens, min_count=min_count, unit="character" if chinese else "word",
                                     sources=sources))

    def places(self, text: str) -> list[Place]:
        """Where the words stand that a classifier reads; none in a text without any."""
        return _shortened(self._split(text))

    def _split(self, text: str) -> list[Place]:
        return (split_characters if self.features.unit == "character" else split_words)(text)

    def cuts(self, text: str) -> bool:
        """Whether the text has more words than a classifier reads."""
        return len(text) > _LONGEST_TEXT and len(self._split(text)) > _LONGEST_TEXT

    def encode(self, texts: Sequence[str]) -> list[EncodedSentence]:
        """The ids of each text; a text without words is one unknown word."""
        return [self._encoded(text) for text in texts]

    def _encoded(self, text: str) -> EncodedSentence:
        places = self._split(text)
        self.n_cut += len(places) > _LONGEST_TEXT
        tokens = [text[p.start : p.end] for p in _shortened(places)]
        if tokens:
            return self.features.encode(tokens)
        n_features = len(self.features.tables)
        return EncodedSentence(np.full((1, n_features), UNKNOWN, dtype=np.int64), np.zeros((1, 1), dtype=np.int64))

    def rows(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,) the row of each word in the words' table, ``UNKNOWN`` for those without one."""
        table = self.features.tables["word"]
        row = {word: i for i, word in enumerate(table, start=self.features.sizes["word"] - len(table))}
        return np.array([row.get(plain_word(word), UNKNOWN) for word in words], dtype=np.int64)

    def save(self, folder: Path) -> None:
        self.features.save(folder)

    @classmethod
    def load(cls, folder: Path) -> "WordSequences":
        """``CheckpointError`` when the file is missing or damaged."""
        return cls(TagFeatures.load(folder))


def _shortened(places: list[Place]) -> list[Place]:
    half = _LONGEST_TEXT // 2
    return places if len(places) <= _LONGEST_TEXT else places[:half] + places[-half:]
