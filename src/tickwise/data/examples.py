"""Labelled texts: a text and its class per row, from the formats in which people keep them."""

import collections
import dataclasses
import gzip
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from tickwise.core.console import say
from tickwise.core.errors import ConfigError, DataError
from tickwise.data import catalogue
from tickwise.data.example_tables import (
    LABEL_COLUMNS,
    SNIFFED_ROWS,
    TEXT_COLUMNS,
    Row,
    column,
    csv_rows,
    labelled_rows,
    tab_rows,
)
from tickwise.data.prepared import SPLIT_NAMES
from tickwise.text.clean import clean
from tickwise.text.encodings import UTF16_MARKS, guess_encoding

_FASTTEXT_MARK = "__label__"


@dataclasses.dataclass(frozen=True)
class ReadExamples:
    """How rows become examples. What is left out is found out from the file and said."""

    text_column: str | None = None
    """Name of the text's column or key, or its number from 0."""
    label_column: str | None = None
    label_until: str | None = None
    """Keep a label's part before this: with ``:`` the label COARSE:fine is COARSE."""
    encoding: str = "utf-8"


@dataclasses.dataclass(frozen=True)
class Examples:
    """Texts and, at the same places, their labels."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int], name: str | None = None) -> "Examples":
        return Examples(tuple(self.texts[i] for i in indices), tuple(self.labels[i] for i in indices),
                        name or self.name)

    def fingerprint(self) -> str:
        """xxh3-128 of all texts and labels, in hexadecimal."""
        digest = xxhash.xxh3_128()
        for text, label in zip(self.texts, self.labels, strict=True):
            digest.update(json.dumps([text, label]).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def read_examples(sources: Sequence[str], read: ReadExamples, *, split: str = "train",
                  labels: Path | None = None) -> Examples:
    """The examples of files (.tsv, .csv, .jsonl, .json, .parquet, ``label text`` lines, each also as .gz or alone in
    a .zip) or of the ``split`` of known data sets; with ``labels``, of a text per line and a label per line.

    Rows without a text or without a label are left out and counted. Raises ``DataError`` when a file cannot be read,
    has no column that could be the label, or is not as long as its ``labels``.
    """
    pairs: list[tuple[str, str]] = []
    if labels is not None:
        if len(sources) != 1:
            raise ConfigError("labels in a file of their own: give one file of texts beside it")
        pairs = _beside(sources[0], labels, read)
    else:
        for source in sources:
            pairs += _pairs(source, read, split)
    kept = [(clean(text).text.strip(), _label(label, read)) for text, label in pairs]
    complete = [(text, label) for text, label in kept if text and label]
    name = ", ".join(sources)
    if len(complete) < len(kept):
        no_text = sum(not text for text, _ in kept)
        say(f"{name}: left out {no_text:,} rows without text, {len(kept) - len(complete) - no_text:,} without a label")
    if not complete:
        raise DataError(f"{name}: no row with a text and a label")
    return Examples(tuple(text for text, _ in complete), tuple(label for _, label in complete), name)


def _label(label: str, read: ReadExamples) -> str:
    label = " ".join(clean(label).text.split())
    return label.split(read.label_until)[0].strip() if read.label_until else label


def _beside(texts: str, labels: Path, read: ReadExamples) -> list[tuple[str, str]]:
    first, second = (_decoded(Path(path), read.encoding).removesuffix("\n").split("\n") for path in (texts, labels))
    if len(first) != len(second):
        raise DataError(f"{labels}: {len(second):,} labels for the {len(first):,} lines of {texts}; line "
                        f"{min(len(first), len(second)) + 1} is the first that only one of them has")
    return list(zip(first, second, strict=True))


def _pairs(source: str, read: ReadExamples, split: str) -> list[tuple[str, str]]:
    path = Path(source)
    if not path.exists():
        entry = catalogue.find(source.partition("/")[0])
        if entry is None:
            raise DataError(f"{source}: no such file, and no data set of that name (see tickwise data ls)")
        split = source.partition("/")[2] or split
        if split not in SPLIT_NAMES:
            raise DataError(f"{source}: a split is one of {', '.join(SPLIT_NAMES)}")
        return _of_mappings(list(entry.rows(split)), source, read)
    if not path.is_file():
        raise DataError(f"{source}: not a file; give a file of labelled texts")
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        return _of_mappings(_parquet(path), source, read)
    if name.endswith(".zip"):
        name = _only_member(path).lower()
    content = _decoded(path, read.encoding)
    if name.endswith((".jsonl", ".ndjson")):
        return _of_mappings(list(_json_lines(content, source)), source, read)
    if name.endswith(".json"):
        return _of_mappings(_json_array(content, source), source, read)
    if name.endswith(".csv"):
        return _of_table(csv_rows(content, source), source, read, ",")
    lines = content.split("\n")
    rows = tab_rows(lines)
    if rows is not None:
        return _of_table(rows, source, read, "\t")
    return _label_first([line for line in lines if line.strip()], source, read)


def _only_member(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
    except (OSError, zipfile.BadZipFile) as problem:
        raise DataError(f"{path}: not a readable zip file ({problem}); fetch it again") from None
    if len(names) != 1:
        raise DataError(f"{path}: holds {len(names)} files; unpack it and name the one to read")
    return names[0]


def _decoded(path: Path, encoding: str) -> str:
    """The whole file as text with line feeds, unpacked if need be."""
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                data = archive.read(_only_member(path))
        elif path.suffix.lower() == ".gz":
            data = gzip.decompress(path.read_bytes())
        else:
            data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, zipfile.BadZipFile) as problem:
        raise DataError(f"{path}: cannot read it: {getattr(problem, 'strerror', None) or problem}") from None
    try:
        marked = "utf-16" if data[:2] in UTF16_MARKS else "utf-8-sig"
        text = data.decode(marked if encoding == "utf-8" else encoding)
    except LookupError:
        raise ConfigError(f"--encoding {encoding}: no such encoding; utf-8, gb18030, iso-8859-1 are some") from None
    except UnicodeDecodeError as problem:
        guess = guess_encoding(data, problem.start)
        hint = f"; it looks like {guess.name}: --encoding {guess.iconv.lower()}" if guess else "; say --encoding"
        line = data.count(b"\n", 0, problem.start) + 1
        raise DataError(f"{path}, line {line}: not {encoding}{hint}") from None
    return text.replace("\r\n", "\n")


def _json_lines(content: str, source: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise DataError(f"{source}, line {number}: not valid JSON ({problem}); mend or remove that line") from None
        if not isinstance(row, dict):
            raise DataError(f"{source}, line {number}: not a JSON object with keys for text and label")
        yield row


def _json_array(content: str, source: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{source}: not valid JSON ({problem})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{source}: not a JSON list of objects with keys for text and label")
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as problem:
        raise DataError(f"{path}: not a readable parquet file ({problem})") from None
    return rows


def _of_mappings(rows: list[dict[str, Any]], source: str, read: ReadExamples) -> list[tuple[str, str]]:
    if not rows:
        raise DataError(f"{source}: no rows")
    keys = list(rows[0])
    text, label = (column(keys, wanted, known, flag, source) for wanted, known, flag in
                   ((read.text_column, TEXT_COLUMNS, "text"), (read.label_column, LABEL_COLUMNS, "label")))
    return [(_plain(row.get(keys[text])), _plain(row.get(keys[label]))) for row in rows]


def _plain(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _of_table(rows: Sequence[Row], source: str, read: ReadExamples, separator: str) -> list[tuple[str, str]]:
    return labelled_rows(rows, source, text_column=read.text_column, label_column=read.label_column,
                         separator=separator)


def _label_first(lines: list[str], source: str, read: ReadExamples) -> list[tuple[str, str]]:
    """``label text`` per line, or fastText's ``__label__x text``."""
    if not lines:
        raise DataError(f"{source}: empty; give a file with labelled texts")
    pairs = []
    marked = sum(line.startswith(_FASTTEXT_MARK) for line in lines[:SNIFFED_ROWS]) > 0
    for line in lines:
        label, _, text = line.strip().partition(" ")
        pairs.append((text, label.removeprefix(_FASTTEXT_MARK) if marked else label))
    if not marked and len({_label(label, read) for _, label in pairs}) > max(2, len(pairs) // 2):
        raise DataError(f"{source}: no labels found; a line is 'text<tab>label', 'label<tab>text' or 'label text'")
    return pairs


def unify_labels(parts: Sequence[Examples]) -> list[Examples]:
    """The same parts with labels that differ in case only spelt alike, as the most frequent one is; says so."""
    counts = collections.Counter(label for part in parts for label in part.labels)
    best: dict[str, str] = {}
    for label, count in counts.items():
        folded = label.casefold()
        if folded not in best or count > counts[best[folded]]:
            best[folded] = label
    changed = sorted(label for label in counts if best[label.casefold()] != label)
    if changed:
        say("labels that differ in case only are one class: " + ", ".join(
            f"'{label}' is '{best[label.casefold()]}'" for label in changed[:5]) + (" …" if len(changed) > 5 else ""))
    return [dataclasses.replace(part, labels=tuple(best[label.casefold()] for label in part.labels)) for part in parts]


def without_texts(examples: Examples, others: Sequence[Examples]) -> Examples:
    """``examples`` less those whose text is in ``others``, white space and case aside; says how many those were.
    ``DataError`` where that would be all."""
    known = {_identity(text) for other in others for text in other.texts}
    kept = [i for i, text in enumerate(examples.texts) if _identity(text) not in known]
    if examples.texts and not kept:
        raise DataError(f"{examples.name}: every text in it is also in the parts to be evaluated on; give others to "
                        "train on")
    if len(kept) < len(examples):
        say(f"{examples.name}: left out {len(examples) - len(kept):,} texts that are also in the parts to be "
            "evaluated on")
    return examples.take(kept)


def distinct_texts(examples: Examples) -> Examples:
    """The first of each group of equal texts, white space and case aside; says how many were left out, and how many of
    them had another label than the one that stays."""
    first: dict[str, int] = {}
    n_others = 0
    for i, text in enumerate(examples.texts):
        stays = first.setdefault(_identity(text), i)
        n_others += examples.labels[stays] != examples.labels[i]
    if len(first) < len(examples):
        contradict = f", {n_others:,} of them with another label than the first, which stays" if n_others else ""
        say(f"{examples.name}: left out {len(examples) - len(first):,} repeated texts{contradict}")
    return examples.take(list(first.values()))


def _identity(text: str) -> str:
    return " ".join(text.casefold().split())


def split_examples(examples: Examples, share: float, salt: str) -> tuple[Examples, Examples]:
    """(rest, part): each text goes by its own hash, so that neither order nor other rows matter and equal texts stay
    together; of every class at least one stays in the rest.

    share: of the part, in (0, 1). salt: another one draws another part.
    """
    taken = [xxhash.xxh3_64_intdigest(f"{salt}\0{_identity(text)}".encode("utf-8", "surrogatepass")) / 2**64 < share
             for text in examples.texts]
    left = {label for label, is_taken in zip(examples.labels, taken, strict=True) if not is_taken}
    for i, label in enumerate(examples.labels):
        if label not in left:
            taken[i] = False
            left.add(label)
    part, rest = ([i for i, is_taken in enumerate(taken) if is_taken is wanted] for wanted in (True, False))
    return examples.take(rest), examples.take(part)


def joined(first: Examples, second: Examples) -> Examples:
    """The texts of both."""
    return Examples(first.texts + second.texts, first.labels + second.labels, first.name)


def stratified_folds(examples: Examples, n_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """(N,) a fold's number for each text: of every class the folds have the same number of texts, within one."""
    chooser = np.random.default_rng(seed)
    folds = np.empty(len(examples), dtype=np.int64)
    labels = np.array(examples.labels, dtype=object)
    for start, label in enumerate(sorted(set(examples.labels))):
        own = chooser.permutation(np.flatnonzero(labels == label))
        folds[own] = (np.arange(len(own)) + start) % n_folds
    return folds
