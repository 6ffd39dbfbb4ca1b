"""The text that a model is evaluated on: its tokens, and how many words and bytes they stand for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

from tickwise.core.errors import ConfigError, DataError
from tickwise.data.prepared import PreparedData
from tickwise.interop.directory import read_run
from tickwise.text import codepoints
from tickwise.text.clean import clean
from tickwise.tokenizers.tokenizer import Tokenizer

WordRule = Literal["whitespace", "wikitext"]


@dataclass(frozen=True)
class Corpus:
    """tokens: (n,) ids; ``n_words`` and ``n_bytes`` are those of the whole text; ``title`` is what people read;
    ``path`` the file or prepared directory."""

    name: str
    title: str
    tokens: NDArray[Any]
    n_words: int
    n_bytes: int
    path: Path


def count_words(text: str, rule: WordRule) -> int:
    """``whitespace``: words between white space, and each Han character, as prepared data counts them.
    ``wikitext``: words between white space, and one end mark per line, as in the published perplexities per
    word of WikiText and Penn Treebank (Merity et al. 2016)."""
    if rule == "whitespace":
        return codepoints.count_words(text)[0]
    return len(text.split()) + text.count("\n") + (not text.endswith("\n") and text != "")


def open_corpus(
    path: Path, tokenizer: Tokenizer, split: str | None = None, rule: WordRule = "whitespace", *, cleaned: bool = False
) -> Corpus:
    """A split of a prepared directory, or a UTF-8 text file encoded with ``tokenizer``.

    ``split`` ``None`` is ``test``, else ``validation``; a text file has no splits and is read whole, as it is or
    ``cleaned`` like training text. Raises ``ConfigError`` for a split of a text file and ``DataError`` for data that
    is missing, empty, not UTF-8, or prepared with another tokenizer.
    """
    if path.is_dir():
        if cleaned:
            raise ConfigError(f"--clean is for text files; {path} was cleaned, or not, when it was prepared")
        return _prepared(PreparedData.open(path), tokenizer, split, rule)
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or prepared data directory") from None
    except OSError as problem:
        raise DataError(f"{path}: cannot read: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: not UTF-8 at byte {problem.start}; convert it first") from None
    if split is not None:
        raise ConfigError(f"{path}: a text file has no splits; leave --split out, or give the prepared directory")
    if cleaned:
        text = clean(text).text
    if not text.strip():
        raise DataError(f"{path}: no text in it")
    _check_characters(path, text, tokenizer, cleaned)
    return Corpus(
        name=f"{path.resolve().parent.name}/{path.stem}",
        title=str(path),
        tokens=numpy.asarray(tokenizer.encode(text), dtype=numpy.int32),
        n_words=count_words(text, rule),
        n_bytes=len(text.encode()),
        path=path,
    )


def open_training_data(model_path: Path, tokenizer: Tokenizer, split: str | None, rule: WordRule) -> Corpus:
    """A split of the data that the model in ``model_path`` was trained on, as its ``run.json`` says.

    Raises ``DataError`` when that is not known, gone, or other data by now.
    """
    # A checkpoint keeps its record in the run directory.
    folder = model_path.parents[1] if model_path.parent.name == "checkpoints" else model_path
    record = read_run(folder).get("data")
    prepared = record.get("prepared") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(prepared, str):
        raise DataError(f"{model_path}: does not say what it was trained on; give --data")
    if not Path(prepared).is_dir():
        raise DataError(f"{prepared}: the data that {model_path} was trained on is gone; give --data")
    data = PreparedData.open(prepared)
    if record.get("fingerprint") not in (None, data.fingerprint):
        raise DataError(f"{prepared}: prepared again since {model_path} was trained on it; give --data to use it as it "
                        "is now")
    # Raw text was prepared in the cache, under a name that says nothing to people.
    return _prepared(data, tokenizer, split, rule, Path(str(record.get("source") or prepared)))


def _check_characters(path: Path, text: str, tokenizer: Tokenizer, cleaned: bool) -> None:
    """``DataError`` for the first character that a tokenizer of characters does not know."""
    at = tokenizer.first_unknown_character(text)
    if at is None:
        return
    remedy = "take it out of the text, or evaluate a model with a bpe tokenizer"
    if not cleaned and tokenizer.first_unknown_character(clean(text).text) is None:
        remedy = "--clean makes the text like training text"
    raise DataError(
        f"{path}: character {text[at]!r} (U+{ord(text[at]):04X}) at byte {len(text[:at].encode())}, line "
        f"{text.count(chr(10), 0, at) + 1} is not in the model's vocabulary of characters; {remedy}"
    )


def _prepared(
    data: PreparedData, tokenizer: Tokenizer, split: str | None, rule: WordRule, source: Path | None = None
) -> Corpus:
    """``source`` is what the data is called; by default where it lies."""
    path = data.path
    source = source or path
    if data.tokenizer.fingerprint != tokenizer.fingerprint:
        raise DataError(
            f"{path}: prepared with another tokenizer than the model's; "
            "give the text file itself, or prepare the data with the model's tokenizer"
        )
    if rule == "wikitext":
        raise ConfigError(f"--words wikitext counts lines of text, which {path} no longer has; give the text file")
    if split is None:
        split = next((name for name in ("test", "validation") if name in data.splits), None)
    if split is None:
        raise DataError(f"{path}: neither a test nor a validation split; say --split train, or give other --data")
    chosen = data.split(split)
    return Corpus(
        name=f"{source.resolve().stem}/{split}", title=f"the {split} split of {source}", tokens=chosen.tokens,
        n_words=chosen.n_words, n_bytes=chosen.n_bytes, path=path,
    )


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
