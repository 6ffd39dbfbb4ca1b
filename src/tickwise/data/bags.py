"""Texts as bags of known features: the numbers of the features that each has, with their weights."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from tickwise.core.errors import CheckpointError, DataError
from tickwise.text.ngrams import KEY_BITS, Family, Ngrams, NgramSettings, ngrams

FILE = "features.safetensors"
_CHARACTERS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Bags:
    """N features of B texts. rows: (N,) int64 numbers of the features; weights: (N,) float32; offsets: (B + 1,) int64,
    where each text's features begin and the last one's end."""

    rows: Tensor
    weights: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, texts: Tensor) -> "Bags":
        """The bags of these texts, (n,) int64, in their order."""
        lengths = self.offsets[texts + 1] - self.offsets[texts]
        offsets = torch.zeros(len(texts) + 1, dtype=torch.long)
        torch.cumsum(lengths, 0, out=offsets[1:])
        places = torch.arange(int(offsets[-1])) + torch.repeat_interleave(self.offsets[texts] - offsets[:-1], lengths)
        return Bags(self.rows[places], self.weights[places], offsets)


@dataclass(frozen=True)
class Occurrences:
    """Where a text's known features stand: rows (n,), start and end (n,) in characters."""

    rows: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]


@dataclass(frozen=True)
class FeatureIndex:
    """The features that a model knows, and how a text's bag is weighted.

    keys: (K,) uint32, rising. weights: (K,) float32, each one's inverse document frequency. A feature that occurs n
    times in a text weighs (1 + ln n) times that; the features of units and those of characters are then scaled to
    length 1 each (Salton & Buckley 1988), and ``character_share`` multiplies the latter.
    """

    settings: NgramSettings
    character_share: float
    keys: npt.NDArray[np.uint32]
    weights: npt.NDArray[np.float32]
    compact: bool = False
    """The weights are stored as one byte each; they have been rounded to that."""

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def fit(cls, texts: Sequence[str], settings: NgramSettings, *, character_share: float = 1.0, min_texts: int = 2,
            most: int | None = None, idf_power: float = 1.0, sources: Sequence[int] | None = None) -> "FeatureIndex":
        """The features that at least ``min_texts`` of ``texts`` have, at most the ``most`` commonest.

        Of a training set that has none so common, all features. ``sources``: for each text the number of the one that
        it is or is an altered copy of; a text and its copies count as one. ``DataError`` for texts without any feature.
        """
        known, counts = np.unique(_features_of_texts(texts, settings, sources), return_counts=True)
        if not len(known):
            raise DataError("none of the training texts has a letter, digit or sign to learn from")
        if (counts >= min_texts).any():
            known, counts = known[counts >= min_texts], counts[counts >= min_texts]
        if most is not None and len(known) > most:
            kept = np.sort(np.argsort(-counts, kind="stable")[:most])
            known, counts = known[kept], counts[kept]
        n_texts = len(texts) if sources is None else len(set(sources))
        idf = np.log((1 + n_texts) / (1 + counts)) + 1
        return cls(settings, character_share, known, (idf**idf_power).astype(np.float32))

    def pruned(self, kept: npt.NDArray[np.int64]) -> "FeatureIndex":
        """With these features only (rising numbers)."""
        return dataclasses.replace(self, keys=self.keys[kept], weights=self.weights[kept])

    def quantised(self) -> "FeatureIndex":
        """With weights of one byte each: 256 steps from the smallest to the largest."""
        low, high = float(self.weights.min()), float(self.weights.max())
        step = (high - low) / 255 or 1.0
        rounded = low + np.rint((self.weights - low) / step) * step
        return dataclasses.replace(self, weights=rounded.astype(np.float32), compact=True)

    def encode(self, texts: Sequence[str]) -> Bags:
        """The bags of ``texts``; a text without a known feature has an empty one."""
        parts, lengths = [], [np.empty(0, dtype=np.int64)]
        for n_texts, found in _in_parts(texts, self.settings):
            text, key, count = _distinct(found)
            rows, known = self._rows(key)
            text, rows, count = text[known], rows[known], count[known]
            weights = (1 + np.log(count)) * self.weights[rows]
            group = 2 * text + (self.keys[rows] >> KEY_BITS == Family.CHARACTERS)
            squares = np.bincount(group, weights * weights, minlength=2 * n_texts)
            weights = weights / np.sqrt(squares)[group]
            weights[group % 2 == 1] *= self.character_share
            parts.append((rows, weights.astype(np.float32)))
            lengths.append(np.bincount(text, minlength=n_texts))
        rows = np.concatenate([np.empty(0, dtype=np.int64), *(part[0] for part in parts)])
        weights = np.concatenate([np.empty(0, dtype=np.float32), *(part[1] for part in parts)])
        offsets = np.concatenate(([0], np.cumsum(np.concatenate(lengths))))
        return Bags(torch.from_numpy(rows), torch.from_numpy(weights), torch.from_numpy(offsets))

    def occurrences(self, text: str) -> Occurrences:
        """Where the known features stand in ``text``, repetitions included."""
        found = ngrams([text], self.settings)
        rows, known = self._rows(found.key)
        return Occurrences(rows[known], found.start[known], found.end[known])

    def word_rows(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,) the row of each word's own feature; -1 for what the index does not know or is not one word."""
        found = ngrams(list(words), NgramSettings(1, 0, 0, self.settings.segment))
        own = found.key >> KEY_BITS == Family.WORD
        text = found.text[own]
        rows, known = self._rows(found.key[own])
        result = np.full(len(words), -1, dtype=np.int64)
        result[text] = np.where(known, rows, -1)
        result[np.bincount(text, minlength=len(words)) != 1] = -1
        return result

    def _rows(self, keys: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The number of each key, and whether it is known at all."""
        rows = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return rows, self.keys[rows] == keys

    def save(self, folder: Path) -> None:
        """``features.safetensors``: keys, weights, and the settings as text beside them."""
        said = dataclasses.asdict(self.settings) | {"character_share": self.character_share}
        weights: npt.NDArray[np.generic] = self.weights
        if self.compact:
            low, high = float(self.weights.min()), float(self.weights.max())
            said |= {"low": low, "high": high}
            weights = np.rint((self.weights - low) * 255 / ((high - low) or 255)).astype(np.uint8)
        save_file({"keys": self.keys, "weights": weights}, folder / FILE,
                  metadata={name: str(value) for name, value in said.items()})

    @classmethod
    def load(cls, folder: Path) -> "FeatureIndex":
        """Undo ``save``; ``CheckpointError`` for a file that is missing or damaged."""
        path = folder / FILE
        try:
            with safe_open(path, framework="np") as file:
                said = file.metadata() or {}
                keys, weights = file.get_tensor("keys"), file.get_tensor("weights")
            settings = NgramSettings(
                word_ngrams=int(said["word_ngrams"]), min_characters=int(said["min_characters"]),
                max_characters=int(said["max_characters"]), segment=said["segment"] == "True",
            )
            compact = weights.dtype == np.uint8
            if compact:
                low, high = float(said["low"]), float(said["high"])
                weights = low + weights * ((high - low) / 255)
            return cls(settings, float(said["character_share"]), keys, weights.astype(np.float32), compact)
        except FileNotFoundError:
            raise CheckpointError(f"{path}: file is missing") from None
        except (SafetensorError, KeyError, ValueError) as problem:
            raise CheckpointError(f"{path}: damaged or cut off ({problem}); copy it again") from None


def _features_of_texts(texts: Sequence[str], settings: NgramSettings,
                       sources: Sequence[int] | None) -> npt.NDArray[np.uint32]:
    """The keys of all features, one for each text that has it, or for each source."""
    if sources is None:
        return np.concatenate([np.empty(0, dtype=np.uint32), *(
            _distinct(found)[1] for _, found in _in_parts(texts, settings))])
    pairs, n_done = [np.empty(0, dtype=np.uint64)], 0
    for n_texts, found in _in_parts(texts, settings):
        text, key, _ = _distinct(found)
        source = np.asarray(sources[n_done : n_done + n_texts], dtype=np.uint64)[text]
        pairs.append(source << np.uint64(32) | key)
        n_done += n_texts
    return np.unique(np.concatenate(pairs)).astype(np.uint32)


def _in_parts(texts: Sequence[str], settings: NgramSettings) -> Iterator[tuple[int, Ngrams]]:
    """(how many texts, their features), about a megabyte of text at a time, so that memory stays bounded."""
    part: list[str] = []
    size = 0
    for text in texts:
        part.append(text)
        size += len(text)
        if size >= _CHARACTERS_AT_ONCE:
            yield len(part), ngrams(part, settings)
            part, size = [], 0
    if part:
        yield len(part), ngrams(part, settings)


def _distinct(found: Ngrams) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """(text, key, how often) of the different features of each text, by text and key."""
    packed = found.text.astype(np.uint64) << np.uint64(32) | found.key
    distinct, counts = np.unique(packed, return_counts=True)
    return (distinct >> np.uint64(32)).astype(np.int64), distinct.astype(np.uint32), counts
