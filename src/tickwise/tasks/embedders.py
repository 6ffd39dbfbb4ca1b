"""Texts as vectors, for finding passages by meaning: whatever can embed texts serves an index."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy
import xxhash
from numpy.typing import NDArray

from tickwise.core.config import read_json
from tickwise.core.errors import CheckpointError
from tickwise.data.prepared import file_hash
from tickwise.text.search_terms import words

if TYPE_CHECKING:
    from tickwise.models.word_vectors import NamedVectors

WordWeight = Callable[[str], float]


class EmbedsTexts(Protocol):
    """What makes one vector of a text."""

    @property
    def width(self) -> int:
        """Numbers of a vector."""

    def embed(self, texts: Sequence[str]) -> NDArray[numpy.float32]:
        """(N, C): a vector of length 1 for each text, or zeros where the text has nothing that it knows."""


class WeightedWords:
    """The mean of a text's word vectors, each of length 1 and weighed: rare words say more (Arora, Liang & Ma 2017
    weigh by a smooth inverse frequency; here ``weight`` does, which is the index's inverse document frequency)."""

    def __init__(self, vectors: "NamedVectors", weight: WordWeight) -> None:
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


def load_embedder(path: Path, weight: WordWeight, device: str = "auto") -> EmbedsTexts:
    """Of word vectors (their folder, or a file in word2vec's text format), which are weighed by ``weight``, or of the
    model directory of an encoder, best one that was fine-tuned for it (tickwise adapt --task embed), which computes on
    ``device``.

    Raises ``CheckpointError`` for a model that does not embed texts.
    """
    from tickwise.interop.word_vectors import MODEL_TYPE, load_word_vectors

    if not path.exists():
        raise CheckpointError(f"{path}: no such model directory or file of word vectors")
    config = path / "config.json"
    values = read_json(config, "the embedder's config", CheckpointError) if config.is_file() else {}
    if path.is_file() or values.get("model_type") == MODEL_TYPE:
        return WeightedWords(load_word_vectors(path), weight)
    from tickwise.tasks.embed import Embedder

    return Embedder.load(path, device)


def embedder_fingerprint(path: Path) -> str:
    """xxh3-128 of the files that make an embedder's vectors: of a file of vectors, or of what a model directory holds
    beside its description. ``CheckpointError`` when it is missing."""
    from tickwise.interop.directory import resolve_model_path

    if path.is_file():
        return file_hash(path)
    folder = path if (path / "config.json").is_file() else resolve_model_path(path)
    digest = xxhash.xxh3_128()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".safetensors") and file.name != "run.json":
            digest.update(f"{file.name} {file_hash(file)}\n".encode())
    return digest.hexdigest()
