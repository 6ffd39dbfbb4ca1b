"""The text that a model is evaluated on: its tokens, and how many words and bytes they stand for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

from tickwise.core.errors import ConfigError, DataError
from tickwise.data.prepared import PreparedData
from tickwise.text import codepoints
from tickwise.tokenizers.tokenizer import Tokenizer

WordRule = Literal["whitespace", "wikitext"]


@dataclass(frozen=True)
class Corpus:
    """tokens: (n,) ids; ``n_words`` and ``n_bytes`` are those of the whole text."""

    name: str
    tokens: NDArray[Any]
    n_words: int
    n_bytes: int


def count_words(text: str, rule: WordRule) -> int:
    """``whitespace``: words between white space, and each Han character, as prepared data counts them.
    ``wikitext``: words between white space, and one end mark per line, as in the published perplexities per
    word of WikiText and Penn Treebank (Merity et al. 2016)."""
    if rule == "whitespace":
        return codepoints.count_words(text)[0]
    return len(text.split()) + text.count("\n") + (not text.endswith("\n") and text != "")


def open_corpus(path: Path, tokenizer: Tokenizer, split: str, rule: WordRule) -> Corpus:
    """A split of a prepared directory, or a UTF-8 text file encoded with ``tokenizer``.

    Raises ``DataError`` for data that is missing, empty, not UTF-8, or prepared with another tokenizer.
    """
    if path.is_dir():
        return _prepared(path, tokenizer, split, rule)
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or prepared data directory") from None
    except OSError as problem:
        raise DataError(f"{path}: cannot read: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: not UTF-8 at byte {problem.start}; convert it first") from None
    if not text.strip():
        raise DataError(f"{path}: no text in it")
    return Corpus(
        name=f"{path.resolve().parent.name}/{path.stem}",
        tokens=numpy.asarray(tokenizer.encode(text), dtype=numpy.int32),
        n_words=count_words(text, rule),
        n_bytes=len(content),
    )


def _prepared(path: Path, tokenizer: Tokenizer, split: str, rule: WordRule) -> Corpus:
    data = PreparedData.open(path)
    if data.tokenizer.fingerprint != tokenizer.fingerprint:
        raise DataError(
            f"{path}: prepared with another tokenizer than the model's; "
            "give the text file itself, or prepare the data with the model's tokenizer"
        )
    if rule == "wikitext":
        raise ConfigError(f"--words wikitext counts lines of text, which {path} no longer has; give the text file")
    chosen = data.split(split)
    return Corpus(f"{path.resolve().name}/{split}", chosen.tokens, chosen.n_words, chosen.n_bytes)


def words_and_bytes_per_block(
    corpus: Corpus, tokenizer: Tokenizer, boundaries: NDArray[numpy.int64], rule: WordRule
) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]]:
    """Words and bytes of ``tokens[boundaries[i]:boundaries[i + 1]]``, scaled to sum to the corpus totals.

    A word belongs to the block it starts in. Counting decoded blocks is exact but for characters cut at a
    boundary and for text that the tokenizer does not give back; the scaling spreads that difference.
    """
    n_blocks = len(boundaries) - 1
    words, n_bytes = numpy.zeros(n_blocks), numpy.zeros(n_blocks)
    last = ""
    for block in range(n_blocks):
        text = tokenizer.decode(corpus.tokens[boundaries[block] : boundaries[block + 1]].tolist())
        n_bytes[block] = len(text.encode("utf-8"))
        words[block] = count_words(last + text, rule) - count_words(last, rule)
        last = text[-1:] or last
    return _scaled(words, corpus.n_words), _scaled(n_bytes, corpus.n_bytes)


def _scaled(values: NDArray[numpy.float64], total: int) -> NDArray[numpy.float64]:
    counted = values.sum()
    return values * (total / counted) if counted else numpy.full(len(values), total / len(values))
