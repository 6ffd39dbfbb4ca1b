"""Tables of any of the common formats as rows of named cells."""

import csv
import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tickwise.core.config import closest
from tickwise.core.errors import DataError

Row = dict[str, Any]


def read_table(path: Path) -> list[Row]:
    """The rows of a CSV (or tab-separated), JSON-lines or Parquet file, told apart by the ending.

    ``DataError`` for a file that is missing, empty, without rows, or not of its format, for two columns of one name,
    and for a row with more cells than there are columns.
    """
    if path.is_dir():
        raise DataError(f"{path}: a folder; give a table (.csv, .tsv, .jsonl or .parquet)")
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a table (.csv, .tsv, .jsonl or .parquet)")
    ending = path.suffix.lower()
    if ending == ".parquet":
        rows = _parquet(path)
    elif ending in (".jsonl", ".ndjson"):
        rows = _json_lines(path)
    elif ending in (".csv", ".tsv"):
        rows = _separated(path, "\t" if ending == ".tsv" else ",")
    else:
        raise DataError(f"{path}: a table ends in .csv, .tsv, .jsonl or .parquet")
    if not rows:
        raise DataError(f"{path}: the table has no rows")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: not UTF-8 at byte {problem.start}; convert it first") from None
    except OSError as problem:
        raise DataError(f"{path}: cannot read: {problem.strerror}") from None


def _separated(path: Path, separator: str) -> list[Row]:
    csv.field_size_limit(1 << 27)
    lines = _text(path).splitlines(keepends=True)
    try:
        names, *rows = [row for row in csv.reader(lines, delimiter=separator) if row] or [[]]
    except csv.Error as problem:
        raise DataError(f"{path}: not valid CSV ({problem})") from None
    _check_separator(names, separator, path)
    for name in names:
        if name and names.count(name) > 1:
            raise DataError(f"{path}: {names.count(name)} columns are named '{name}'; rename all but one")
    for number, row in enumerate(rows, start=1):
        if any(row[len(names) :]):
            raise DataError(f"{path}, row {number}: {len(row)} cells under {len(names)} headings; put quotation marks "
                            "around a cell that holds the separator")
    return [dict(itertools.zip_longest(names, row[: len(names)])) for row in rows]


def _check_separator(names: list[str], separator: str, path: Path) -> None:
    """``DataError`` where a single heading holds another separator."""
    if len(names) != 1:
        return
    for other, what, mend in ((";", "semicolons", "convert it"), ("\t", "tabs", "name it .tsv"),
                              (",", "commas", "name it .csv"), ("|", "bars", "convert it")):
        if other != separator and other in names[0]:
            raise DataError(f"{path}: its columns are separated by {what}; those of a .csv are by commas and those of "
                            f"a .tsv by tabs: {mend}")


def _json_lines(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise DataError(f"{path}, line {number}: not valid JSON ({problem})") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not a JSON object")
        rows.append(row)
    return rows


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as problem:
        raise DataError(f"{path}: not a readable Parquet file ({problem})") from None
    return rows


def plain_name(column: str) -> str:
    """``Training compute (FLOP)`` as ``training_compute_flop``."""
    return re.sub(r"[^0-9a-z]+", "_", column.lower()).strip("_")


def find_column(columns: Sequence[str], known: Sequence[str], asked: str | None, flag: str, path: Path) -> str | None:
    """The column that ``flag`` names, else the one whose plain name is the first of ``known`` that there is; ``None``
    without one.

    ``DataError`` when the flag names a column that is not there, or two columns have that plain name.
    """
    if asked is not None:
        if asked not in columns:
            raise DataError(f"{path}: {flag}: no column '{asked}'{closest(asked, columns)}; it has: "
                            f"{', '.join(columns)}")
        return asked
    plain: dict[str, list[str]] = {}
    for column in columns:
        plain.setdefault(plain_name(column), []).append(column)
    found = next((plain[name] for name in known if name in plain), [])
    if len(found) > 1:
        mend = f"name one with {flag}" if flag else "rename all but one"
        raise DataError(f"{path}: {len(found)} columns could be meant: {', '.join(map(repr, found))}; {mend}")
    return found[0] if found else None


def number(cell: Any) -> float | None:
    """A cell as a number: ``None`` when empty, NaN when it is said not to be one. ``$1,200.00`` is 1200.

    ``ValueError`` for words.
    """
    if cell is None or isinstance(cell, bool):
        return None
    if isinstance(cell, int | float):
        return float(cell)
    text = str(cell).strip().replace(",", "").removeprefix("$")
    if not text or text.lower() in ("n/a", "none", "null", "-"):
        return None
    return float(text)


def is_usable(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
