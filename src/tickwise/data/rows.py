"""Rows of the file formats in which data sets are published, as dictionaries.

Each reader takes the files of one split and yields rows; malformed files raise ``DataError`` with file and line.
"""

import csv
import gzip
import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from tickwise.core.errors import DataError

Row = dict[str, Any]


def open_text(path: Path, encoding: str = "utf-8-sig") -> TextIO:
    """The file as text, unpacked when its name ends in .gz; ``DataError`` when it cannot be opened."""
    try:
        if path.suffix == ".gz":
            return cast(TextIO, gzip.open(path, "rt", encoding=encoding, newline=""))
        return path.open(encoding=encoding, newline="")
    except OSError as problem:
        raise DataError(f"{path}: cannot read it: {problem.strerror or problem}") from None


def numbered_lines(files: Sequence[Path], encoding: str = "utf-8-sig") -> Iterator[tuple[Path, int, str]]:
    """(file, number, line) of text files, lines without their ends: line feed, carriage return, or both."""
    for file in files:
        with open_text(file, encoding) as stream:
            try:
                for number, line in enumerate(stream, start=1):
                    yield file, number, line.rstrip("\r\n")
            except UnicodeDecodeError:
                raise DataError(f"{file}: not valid {encoding.removesuffix('-sig')}; fetch the file again") from None
            except (EOFError, gzip.BadGzipFile) as problem:
                raise DataError(f"{file}: not a complete gzip file ({problem}); fetch it again") from None


def plain(files: Sequence[Path]) -> Iterator[Row]:
    """One row per file: ``text``."""
    for file in files:
        with open_text(file) as stream:
            yield {"text": stream.read()}


def lines(files: Sequence[Path]) -> Iterator[Row]:
    """One row per line that is not blank: ``text``."""
    for _, _, line in numbered_lines(files):
        if line.strip():
            yield {"text": line.strip()}


def dialogues(files: Sequence[Path]) -> Iterator[Row]:
    """A dialogue per line, turns separated by ``__eou__``: ``turns``, and ``text`` with a turn per line."""
    for _, _, line in numbered_lines(files):
        turns = [turn.strip() for turn in line.split("\t")[0].split("__eou__") if turn.strip()]
        if turns:
            yield {"turns": turns, "text": "\n".join(turns)}


def tabbed(files: Sequence[Path], *, columns: tuple[str, ...], header: bool = False) -> Iterator[Row]:
    """Tab-separated without quoting; ``columns`` names the first columns, further ones are left out."""
    for file, number, line in numbered_lines(files):
        if not line or (header and number == 1):
            continue
        parts = line.split("\t")
        if len(parts) < len(columns):
            raise DataError(f"{file}, line {number}: {len(parts)} columns, expected {len(columns)}; mend that line")
        yield dict(zip(columns, parts, strict=False))


def table(files: Sequence[Path]) -> Iterator[Row]:
    """Comma-separated with a header."""
    csv.field_size_limit(1 << 24)
    for file in files:
        with open_text(file) as stream:
            yield from csv.DictReader(stream)


def labelled(files: Sequence[Path], *, encoding: str = "utf-8", separator: str = " ") -> Iterator[Row]:
    """``label text``; a label of the form COARSE:fine also gives ``coarse``."""
    for _, _, line in numbered_lines(files, encoding):
        label, _, text = line.partition(separator)
        if text:
            yield {"label": label, "coarse": label.split(":")[0], "text": text.strip()}


def json_lines(files: Sequence[Path]) -> Iterator[Row]:
    """One JSON object per line."""
    for file, number, line in numbered_lines(files):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as problem:
                raise DataError(f"{file}, line {number}: not valid JSON ({problem}); mend that line") from None


def json_array(files: Sequence[Path]) -> Iterator[Row]:
    """A JSON array of objects per file."""
    for file in files:
        yield from _json(file)


def preferences(files: Sequence[Path]) -> Iterator[Row]:
    """ShareGPT-style preference pairs: ``prompt``, ``chosen``, ``rejected``."""
    for row in json_array(files):
        yield {
            "prompt": "\n".join(turn["value"] for turn in row["conversations"]),
            "chosen": row["chosen"]["value"], "rejected": row["rejected"]["value"],
        }


def _json(file: Path) -> Any:
    with open_text(file) as stream:
        try:
            return json.load(stream)
        except ValueError as problem:
            raise DataError(f"{file}: not valid JSON ({problem}); fetch it again") from None


def squad(files: Sequence[Path]) -> Iterator[Row]:
    """SQuAD: a row per question with ``id``, ``context``, ``question``, ``answers`` (``text``, ``answer_start``)."""
    for file in files:
        for article in _json(file)["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield {
                        "id": question["id"], "context": paragraph["context"], "question": question["question"],
                        "answers": question["answers"],
                    }


def tagged(files: Sequence[Path], *, separator: str | None = None, joint: str = " ") -> Iterator[Row]:
    """Token and tag per line (first and last column), blank lines between sentences: ``tokens``, ``tags``, ``text``."""
    tokens: list[str] = []
    tags: list[str] = []

    def sentence() -> Iterator[Row]:
        nonlocal tokens, tags
        if tokens:
            yield {"tokens": tokens, "tags": tags, "text": joint.join(tokens)}
        tokens, tags = [], []

    for _, _, line in numbered_lines(files):
        parts = line.split(separator)
        if not line.strip():
            yield from sentence()
        elif parts[0] != "-DOCSTART-":
            tokens.append(parts[0])
            tags.append(parts[-1].strip())
    yield from sentence()


def parallel(files: Sequence[Path]) -> Iterator[Row]:
    """Files with the same number of lines, one per language (the ending names it): a row per line, by language."""
    names = [file.name.removesuffix(".gz").rsplit(".", 1)[-1] for file in files]
    streams = [numbered_lines([file]) for file in files]
    for entries in zip(*streams, strict=True):
        yield {name: line for name, (_, _, line) in zip(names, entries, strict=True)}


def hub_rows(path: str, split: str, **arguments: Any) -> Iterator[Row]:
    """Rows of a data set of the Hugging Face hub (or, with ``data_files``, of local files) by ``datasets``.

    Raises ``DataError`` when the library is missing or nothing can be downloaded.
    """
    if "data_files" not in arguments and not _hub_answers():
        # Seen when the library is first imported: it then takes what was downloaded before, or fails at once
        # instead of after many attempts.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import datasets
    except ImportError:
        raise DataError(f"{path}: downloading needs the datasets library: pip install 'tickwise[hub]'; or put the "
                        "files where tickwise data ls says and name the folder with --data-dir") from None
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(path, split=split, **arguments)
    except Exception as problem:  # network, authentication and format errors have no common class
        reason = str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__
        raise DataError(f"{path}: cannot be downloaded ({reason}); with no network, put its files where tickwise data "
                        "ls says and name the folder with --data-dir") from None
    yield from rows


def _hub_answers() -> bool:
    """Whether the hub can be reached; taken for granted behind a proxy or with another endpoint."""
    names = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT", "HF_HUB_OFFLINE")
    if any(os.environ.get(name) for name in names):
        return True
    try:
        socket.create_connection(("huggingface.co", 443), timeout=5).close()
    except OSError:
        return False
    return True
