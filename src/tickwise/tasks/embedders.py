"""Texts as vectors, for finding passages by meaning: whatever can embed texts serves an index."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy
from numpy.typing import NDArray

from tickwise.core.config import read_json
from tickwise.core.errors import CheckpointError
from tickwise.models.word_vectors import NamedVectors
from tickwise.text.search_terms import words

WordWeight = Callable[[str], float]


class Embedder(Protocol):
    """What makes one vector of a text."""

    @property
    def width(self) -> int:
        """Numbers of a vector."""

    def embed(self, texts: Sequence[str]) -> NDArray[numpy.float32]:
        """(N, C): a vector of length 1 for each text, or zeros where the text has nothing that it knows."""


class WeightedWords:
    """The mean of a text's word vectors, each of length 1 and weighed: rare words say more (Arora, Liang & Ma 2017
    weigh by a smooth inverse frequency; here ``weight`` does, which is the index's inverse document frequency)."""

    def __init__(self, vectors: NamedVectors, weight: WordWeight) -> None:
        rows = vectors.module.weight.detach().numpy().astype(numpy.float32)
        self._rows = unit_rows(rows)
        self._number = {word: number for number, word in reversed(list(enumerate(vectors.words)))}
        self._weight = weight

    @property
    def width(self) -> int:
        return self._rows.shape[1]

    def embed(self, texts: Sequence[str]) -> NDArray[numpy.float32]:
        """(N, C). A word that has a vector only in lower case is found there."""
        means = numpy.zeros((len(texts), self.width), dtype=numpy.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                number = self._number.get(word, self._number.get(word.lower()))
                if number is not None:
                    means[row] += self._weight(word) * self._rows[number]
        return unit_rows(means)


def unit_rows(rows: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
    """``rows`` (N, C) with length 1; zeros stay zeros."""
    lengths = numpy.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / numpy.where(lengths > 0, lengths, 1)).astype(numpy.float32)


def load_embedder(path: Path, weight: WordWeight) -> Embedder:
    """Of a folder of word vectors or a file in word2vec's text format.

    Raises ``CheckpointError`` for a model that does not embed texts.
    """
    from tickwise.interop.word_vectors import MODEL_TYPE, load_word_vectors

    if path.is_dir():
        model_type = read_json(path / "config.json", "the embedder's config", CheckpointError).get("model_type")
        if model_type != MODEL_TYPE:
            raise CheckpointError(f"{path}: a model of type {model_type!r} does not embed texts; give word vectors "
                                  "(tickwise vectors train)")
    return WeightedWords(load_word_vectors(path), weight)
