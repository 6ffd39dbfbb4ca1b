"""Word vectors on disk: a folder of tickwise's, and the text format of word2vec and GloVe.

The folder has ``config.json``, ``model.safetensors`` and ``words.json`` (the words in the order of the rows). The text
format has a line ``<words> <numbers per word>`` (GloVe leaves it out), then one line per word: the word and its
numbers, separated by spaces.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray

from tickwise.core.config import from_dict, read_json, to_dict
from tickwise.core.console import say
from tickwise.core.errors import CheckpointError, DataError, OutputError
from tickwise.core.paths import atomic_directory, atomic_file, write_text_atomic
from tickwise.interop.directory import CONFIG, WEIGHTS, read_tensors, write_tensors
from tickwise.models.word_vectors import NamedVectors, WordVectors, WordVectorsConfig

MODEL_TYPE, WORDS = "tickwise-word-vectors", "words.json"


def save_word_vectors(path: Path, vectors: NamedVectors, run: dict[str, Any] | None = None) -> None:
    """Write the folder, whole or not at all; ``run`` becomes its ``run.json``."""
    with atomic_directory(path) as folder:
        config = {"model_type": MODEL_TYPE, "architectures": ["WordVectors"], **to_dict(vectors.module.config)}
        write_text_atomic(folder / CONFIG, json.dumps(config, indent=2) + "\n")
        write_tensors(folder / WEIGHTS, vectors.module.state_dict())
        write_text_atomic(folder / WORDS, json.dumps({"words": vectors.words}, ensure_ascii=False) + "\n")
        if run is not None:
            write_text_atomic(folder / "run.json", json.dumps(run, indent=2) + "\n")


def check_vectors_output(path: Path, overwrite: bool) -> None:
    """``OutputError`` unless ``path`` is free, or holds word vectors that are to be replaced."""
    if not path.exists():
        return
    try:
        is_ours = read_json(path / CONFIG, "", CheckpointError).get("model_type") == MODEL_TYPE
    except CheckpointError:
        is_ours = False
    if not is_ours and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path}: holds something else than word vectors; give another --out")
    if is_ours and not overwrite:
        raise OutputError(f"{path}: holds word vectors already; replace them with --overwrite, or give another --out")


def load_word_vectors(path: Path) -> NamedVectors:
    """Word vectors from a folder, or from a file in the text format.

    Raises ``CheckpointError`` for a folder that is missing or damaged, ``DataError`` for text that cannot be read.
    """
    if path.is_file():
        return read_vectors_text(path)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such folder or file of word vectors")
    values = read_json(path / CONFIG, "the word vectors' config", CheckpointError)
    if values.get("model_type") != MODEL_TYPE:
        raise CheckpointError(f"{path}: a model of type {values.get('model_type')!r}, not word vectors; make them "
                              "with: tickwise vectors train")
    fields = {name: value for name, value in values.items() if name not in ("model_type", "architectures")}
    module = WordVectors(from_dict(WordVectorsConfig, fields, where=str(path / CONFIG)))
    words = read_json(path / WORDS, "the list of words", CheckpointError).get("words")
    weight = read_tensors(path / WEIGHTS).get("weight")
    shape = (module.config.vocab_size, module.config.width)
    if weight is None or tuple(weight.shape) != shape:
        raise CheckpointError(f"{path / WEIGHTS}: no matrix of {shape[0]} × {shape[1]}, as {CONFIG} says; copy it "
                              "again")
    if not isinstance(words, list) or len(words) != shape[0] or not all(isinstance(word, str) for word in words):
        raise CheckpointError(f"{path / WORDS}: not the {shape[0]} words of the vectors; copy it again")
    module.weight.data = weight.float()
    return NamedVectors(words, module.eval())


def write_vectors_text(path: Path, vectors: NamedVectors) -> None:
    """The text format of word2vec, with as many digits as make the same numbers again.

    ``DataError`` for a word with white space, which the format cannot hold.
    """
    for word in vectors.words:
        if word.split() != [word]:
            raise DataError(f"the word {word!r} has white space in it (or nothing else), which word2vec's text format "
                            "cannot hold")
    weight = vectors.module.weight.detach().numpy()
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{weight.shape[0]} {weight.shape[1]}\n")
        for word, row in zip(vectors.words, weight.tolist(), strict=True):
            file.write(f"{word} {' '.join(map('{:.9g}'.format, row))}\n")


def read_vectors_text(path: Path) -> NamedVectors:
    """Word vectors from the text format of word2vec or GloVe. Of a word that comes twice the first vector counts.

    Raises ``DataError`` with the line number.
    """
    words: dict[str, int] = {}
    rows: list[NDArray[numpy.float32]] = []
    width = n_expected = None
    repeated = 0
    for number, line in _lines(path):
        pieces = line.rstrip("\n").rstrip().split(" ")
        if number == 1 and len(pieces) == 2 and all(piece.isdigit() for piece in pieces):
            n_expected, width = int(pieces[0]), int(pieces[1])
            if width < 1:
                raise DataError(f"{path}, line 1: {width} numbers per word; at least 1 is needed")
            continue
        if not line.strip():
            continue
        width = len(pieces) - 1 if width is None else width
        # A word may have spaces in it, numbers have none.
        word = " ".join(pieces[: len(pieces) - width])
        if width < 1 or not word:
            raise DataError(f"{path}, line {number}: {len(pieces) - 1} numbers instead of {width}; is this word2vec's "
                            "text format?")
        row = _numbers(pieces[-width:], f"{path}, line {number}")
        if word in words:
            repeated += 1
            continue
        words[word] = len(words)
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: no word vectors in it")
    if n_expected is not None and len(rows) + repeated != n_expected:
        raise DataError(f"{path}: {len(rows) + repeated} words, but its first line says {n_expected} (cut off?)")
    if repeated:
        say(f"{path}: {repeated} words come again; their first vectors count")
    module = WordVectors(WordVectorsConfig(vocab_size=len(rows), width=len(rows[0])))
    module.weight.data = torch.from_numpy(numpy.stack(rows))
    return NamedVectors(list(words), module.eval())


def _numbers(pieces: list[str], where: str) -> NDArray[numpy.float32]:
    try:
        values = [float(piece) for piece in pieces]
    except ValueError:
        wrong = next(piece for piece in pieces if not _is_number(piece))
        raise DataError(f"{where}: {wrong!r} is not a number; every word needs {len(pieces)} of them") from None
    if not all(map(math.isfinite, values)):
        raise DataError(f"{where}: a number that is not finite")
    return numpy.array(values, dtype=numpy.float32)


def _is_number(piece: str) -> bool:
    try:
        float(piece)
    except ValueError:
        return False
    return True


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, counted from 1. Only line feeds end lines: words may hold other separators."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield number, line.decode("utf-8")
                except UnicodeDecodeError:
                    raise DataError(f"{path}, line {number}: not UTF-8; convert it first (word2vec's binary format "
                                    "cannot be read)") from None
    except OSError as problem:
        raise DataError(f"{path}: cannot read: {problem.strerror}") from None
