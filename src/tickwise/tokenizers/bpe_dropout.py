"""Other segmentations of the same words: BPE-dropout (Provilkov et al. 2020), drawn once, chosen anew for every epoch.

Shape legend: N words of all texts, W different words, K segmentations of each.
"""

import json
import random
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tickwise.core.errors import ConfigError
from tickwise.tokenizers.tokenizer import Tokenizer

_SEGMENTATIONS = 8
_LONGEST_WORD = 24
"""Symbols (bytes) of what is segmented as one word. A clause of a script without spaces is longer, and occurs once:
eight segmentations would be all that a training ever sees of it, drawn in a time that grows with its square."""


class BpeDropout:
    """Random segmentations of the words of a byte-level BPE tokenizer: each possible merge is left out with the
    probability ``rate``, again at every step. Everything depends on ``seed``."""

    def __init__(self, tokenizer: Tokenizer, rate: float, seed: int, texts: Iterable[str]) -> None:
        """Draws the segmentations of all words of ``texts``. ``ConfigError`` for another kind of tokenizer."""
        if not tokenizer.is_byte_level:
            raise ConfigError("BPE-dropout needs a byte-level BPE tokenizer")
        self._backend = tokenizer.backend
        model = json.loads(self._backend.to_str())["model"]
        merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
        self._ranks = {(first, second): rank for rank, (first, second) in enumerate(merges)}
        self._ids: dict[str, int] = model["vocab"]
        self._rate, self._chooser = rate, random.Random(seed)
        self._numbers: dict[str, int] = {}
        words = [self._words(text) for text in texts]
        self._counts, self._words_N = [len(one) for one in words], np.concatenate(words)
        segmented = [self._segment(word) for word in self._numbers for _ in range(_SEGMENTATIONS)]
        self._lengths = np.array([len(ids) for ids in segmented], dtype=np.int64)
        """(W · K,) tokens of each segmentation, whose ids begin at ``starts`` of ``tokens``."""
        self._starts = np.concatenate(([0], np.cumsum(self._lengths)))
        self._tokens = np.array([token for ids in segmented for token in ids], dtype=np.int64)

    def _words(self, text: str) -> npt.NDArray[np.int64]:
        if self._backend.normalizer is not None:
            text = self._backend.normalizer.normalize_str(text)
        found = [part for word, _ in self._backend.pre_tokenizer.pre_tokenize_str(text) for part in self._parts(word)]
        return np.array([self._numbers.setdefault(word, len(self._numbers)) for word in found], dtype=np.int64)

    def _parts(self, word: str) -> list[str]:
        """The word; a long one cut between its usual tokens, so that its parts are segmented each for itself."""
        if len(word) <= _LONGEST_WORD:
            return [word]
        parts = [""]
        for token in self._backend.model.tokenize(word):
            if parts[-1] and len(parts[-1]) + len(token.value) > _LONGEST_WORD:
                parts.append("")
            parts[-1] += token.value
        return parts

    def _segment(self, word: str) -> list[int]:
        """BPE with dropout: of the merges that are possible now and not left out, the earliest learned goes first."""
        pieces = list(word)
        while True:
            best = min(((rank, at) for at in range(len(pieces) - 1)
                        if (rank := self._ranks.get((pieces[at], pieces[at + 1]))) is not None
                        and self._chooser.random() >= self._rate), default=None)
            if best is None:
                return [self._ids[piece] for piece in pieces]
            at = best[1]
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]

    def drawn(self, chooser: np.random.Generator) -> list[list[int]]:
        """The ids of each text, every word of it in a segmentation drawn with ``chooser``."""
        drawn_N = self._words_N * _SEGMENTATIONS + chooser.integers(0, _SEGMENTATIONS, len(self._words_N))
        lengths_N = self._lengths[drawn_N]
        ends_N = np.cumsum(lengths_N)
        places = np.arange(ends_N[-1]) - np.repeat(ends_N - lengths_N, lengths_N)
        tokens = self._tokens[np.repeat(self._starts[drawn_N], lengths_N) + places]
        borders = np.concatenate(([0], ends_N))[np.cumsum(self._counts)]
        return [piece.tolist() for piece in np.split(tokens, borders[:-1])]
