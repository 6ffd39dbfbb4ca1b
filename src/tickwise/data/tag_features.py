"""What a tagger sees of each token: ids of its word, its shape, its affixes, its characters, its neighbours' pairs.

Shape legend: T tokens, F features of a token, L characters of a word.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tickwise.core.config import read_json
from tickwise.core.errors import CheckpointError
from tickwise.core.paths import write_text_atomic

FILE = "tag_features.json"
PADDING, UNKNOWN, BORDER = 0, 1, 2
"""Ids that every table has: beyond the text, not in the table, the border between two sentences."""
_RESERVED = 3
_LONGEST_WORD = 24
"""Characters of a word that the tagger reads: of a longer one the first and last half of them."""
Unit = Literal["word", "character"]


def plain_word(token: str) -> str:
    """The word in lower case with every digit as 0, so that numbers and headlines share entries."""
    return "".join("0" if c.isdigit() else c for c in token.lower())


def word_shape(token: str) -> str:
    """Upper case as X, lower case as x, digits as d, runs of more than two shortened: ``McDonald`` is ``XxXxx``."""
    shape = ""
    for c in token:
        kind = "X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else "o" if c.isalpha() else c
        if shape[-2:] != kind * 2:
            shape += kind
    return shape


def _each(of: Callable[[str], str]) -> Callable[[Sequence[str]], list[str]]:
    return lambda tokens: [of(token) for token in tokens]


def _pairs_before(tokens: Sequence[str]) -> list[str]:
    return [f"{tokens[i - 1] if i else ''}\t{token}" for i, token in enumerate(tokens)]


def _pairs_after(tokens: Sequence[str]) -> list[str]:
    last = len(tokens) - 1
    return [f"{token}\t{tokens[i + 1] if i < last else ''}" for i, token in enumerate(tokens)]


_FEATURES: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "word": _each(plain_word),
    "shape": _each(word_shape),
    "prefix": _each(lambda token: plain_word(token)[:3]),
    "suffix": _each(lambda token: plain_word(token)[-3:]),
    "pair_before": _pairs_before,
    "pair_after": _pairs_after,
}
UNIT_FEATURES: dict[Unit, tuple[str, ...]] = {
    "word": ("word", "shape", "prefix", "suffix"),
    "character": ("word", "pair_before", "pair_after"),
}


@dataclass(frozen=True)
class EncodedSentence:
    """``features`` is (T, F) of int64, ``characters`` (T, L) of int64 with 0 behind each word's end (L is 0 for units
    of one character)."""

    features: NDArray[np.int64]
    characters: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.features)


def unit_of(sentences: Sequence[Sequence[str]]) -> Unit:
    """What tokens are: characters where nearly all of them have just one, as in Chinese; else words."""
    lengths = [len(token) for tokens in sentences for token in tokens]
    return "character" if sum(lengths) < 1.2 * len(lengths) else "word"


class TagFeatures:
    """The tables from token features to ids, and the characters' ids. Saved as ``tag_features.json``."""

    def __init__(self, unit: Unit, tables: dict[str, list[str]], characters: list[str],
                 counts: dict[str, list[int]] | None = None) -> None:
        self.unit: Unit = unit
        self.tables = tables
        self.characters = characters
        self.counts = counts or {}
        """How often each entry of a table was seen in training, for word dropout; empty once loaded."""
        self._ids = {name: {entry: i + _RESERVED for i, entry in enumerate(table)} for name, table in tables.items()}
        self._character_ids = {c: i + _RESERVED for i, c in enumerate(characters)}

    @classmethod
    def build(cls, sentences: Sequence[Sequence[str]], *, min_count: int = 2, unit: Unit | None = None,
              names: Sequence[str] | None = None, sources: Sequence[int] | None = None) -> "TagFeatures":
        """Tables of everything that occurs at least ``min_count`` times in ``sentences`` (their tokens).

        Without ``unit`` tokens are what ``unit_of`` says. ``sources``: for each sentence the number of the one that it
        is or is an altered copy of; of a copy counts what its source does not have.
        """
        unit = unit or unit_of(sentences)
        tables: dict[str, list[str]] = {}
        counts: dict[str, list[int]] = {}
        for name in names or UNIT_FEATURES[unit]:
            counter = _counted(sentences, _FEATURES[name], sources)
            kept = sorted((entry for entry, n in counter.items() if n >= min_count), key=lambda e: (-counter[e], e))
            tables[name], counts[name] = kept, [counter[entry] for entry in kept]
        characters: list[str] = []
        if unit == "word":
            seen = _counted(sentences, "".join, sources)
            characters = sorted(c for c, n in seen.items() if n >= min_count)
        return cls(unit, tables, characters, counts)

    @property
    def sizes(self) -> dict[str, int]:
        """Ids of each table, the reserved ones included."""
        return {name: len(table) + _RESERVED for name, table in self.tables.items()}

    @property
    def n_characters(self) -> int:
        """Character ids, the reserved ones included; 0 when words are not spelt out."""
        return len(self.characters) + _RESERVED if self.unit == "word" else 0

    def encode(self, tokens: Sequence[str]) -> EncodedSentence:
        """The ids of one sentence."""
        columns = [[self._ids[name].get(entry, UNKNOWN) for entry in _FEATURES[name](tokens)] for name in self.tables]
        features = np.array(columns, dtype=np.int64).reshape(len(columns), len(tokens)).T
        if self.unit != "word":
            return EncodedSentence(features, np.zeros((len(tokens), 0), dtype=np.int64))
        spelt = [_shortened(token) for token in tokens]
        characters = np.zeros((len(tokens), max(map(len, spelt), default=0)), dtype=np.int64)
        for row, word in zip(characters, spelt, strict=True):
            row[: len(word)] = [self._character_ids.get(c, UNKNOWN) for c in word]
        return EncodedSentence(features, characters)

    def drop_rates(self, alpha: float) -> list[NDArray[np.float32]]:
        """For each table the chance that training reads an entry as unknown, α / (α + its count), so that the unknown
        entry learns from rare ones (Kiperwasser & Goldberg 2016)."""
        rates = []
        for name in self.tables:
            counts = np.array([np.inf] * _RESERVED + self.counts[name], dtype=np.float32)
            rates.append((alpha / (alpha + counts)).astype(np.float32))
        return rates

    def save(self, folder: Path) -> None:
        content = {"unit": self.unit, "tables": self.tables, "characters": self.characters}
        write_text_atomic(Path(folder) / FILE, json.dumps(content, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "TagFeatures":
        """``CheckpointError`` when the file is missing or damaged."""
        path = Path(folder) / FILE
        content = read_json(path, "the tagger's feature table", CheckpointError)
        try:
            unit, tables, characters = content["unit"], content["tables"], content["characters"]
            if unit not in UNIT_FEATURES or not set(tables) <= set(_FEATURES):
                raise KeyError(unit)
            return cls(unit, {str(k): list(map(str, v)) for k, v in tables.items()}, list(map(str, characters)))
        except (KeyError, TypeError, AttributeError):
            raise CheckpointError(f"{path}: not a tagger's feature table; copy it again") from None


def _counted(sentences: Sequence[Sequence[str]], entries: Callable[[Sequence[str]], Iterable[str]],
             sources: Sequence[int] | None) -> Counter[str]:
    """How often each entry occurs; of an altered copy, what its source does not have."""
    counter: Counter[str] = Counter()
    for number, tokens in enumerate(sentences):
        if sources is None or sources[number] == number:
            counter.update(entries(tokens))
        else:
            counter.update(Counter(entries(tokens)) - Counter(entries(sentences[sources[number]])))
    return counter


def _shortened(token: str) -> str:
    half = _LONGEST_WORD // 2
    return token if len(token) <= _LONGEST_WORD else token[:half] + token[-half:]


def border(n_features: int) -> EncodedSentence:
    """One token that stands between two sentences read together."""
    return EncodedSentence(np.full((1, n_features), BORDER, dtype=np.int64), np.full((1, 1), BORDER, dtype=np.int64))
