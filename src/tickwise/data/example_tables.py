"""Labelled texts in tables: which column is the text, which the label, and whether the first row is a header."""

import csv
import io
import re
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from tickwise.core.console import say
from tickwise.core.errors import DataError

TEXT_COLUMNS = ("text", "sentence", "review", "content", "question", "title", "message", "sms", "body", "description")
LABEL_COLUMNS = ("label", "class", "category", "target", "sentiment", "topic", "tag", "cat", "y", "labels")
_SURE_LABEL_COLUMNS = {"label", "labels", "category", "sentiment", "target"}  # hardly ever a label themselves
SNIFFED_ROWS = 2000
_FEWEST_OF_A_LABEL = 4
_NAME = re.compile(r"[^\W\d]\w*([ .-]\w+){0,2}")


class Row(NamedTuple):
    """One row of a table. ``line`` is where it begins in its file, from 1."""

    line: int
    cells: list[str]


def csv_rows(content: str, source: str) -> list[Row]:
    """The rows of a CSV file that are not blank; ``DataError`` when it is none."""
    csv.field_size_limit(1 << 27)
    reader, rows, line = csv.reader(io.StringIO(content)), [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(Row(line, cells))
            line = reader.line_num + 1
    except csv.Error as problem:
        raise DataError(f"{source}: not valid CSV ({problem})") from None
    return rows


def tab_rows(lines: Sequence[str]) -> list[Row] | None:
    """The lines that are not blank, cut at their tabs; None where most of them have none."""
    rows = [Row(number, line.rstrip("\r").split("\t")) for number, line in enumerate(lines, start=1) if line.strip()]
    sniffed = rows[:SNIFFED_ROWS]
    return rows if sum(len(row.cells) > 1 for row in sniffed) > 0.5 * len(sniffed) else None


def column(keys: list[str], wanted: str | None, known: Sequence[str], what: str, source: str) -> int:
    """The column of that name or number, else the first with a usual name."""
    if wanted is not None:
        if wanted in keys:
            return keys.index(wanted)
        if wanted.isdecimal() and int(wanted) < len(keys):
            return int(wanted)
        raise DataError(f"{source}: no column '{wanted}'; it has {', '.join(keys)}")
    lowered = [key.strip().lower() for key in keys]
    for name in known:
        if name in lowered:
            return lowered.index(name)
    raise DataError(f"{source}: which column is the {what}? It has {', '.join(keys)}; say --{what}-column")


def labelled_rows(rows: Sequence[Row], source: str, *, text_column: str | None, label_column: str | None,
                  separator: str) -> list[tuple[str, str]]:
    """(text, label) of each row of a table with or without a header; cells were cut apart at ``separator``.

    A header has usual names, or the names that were given, or is told by what stands below it, and then said. Without
    usual names, the label's column is the one with the fewest different values among those that most rows fill. Of a
    row with more cells than there are columns, the rest belongs to the text where that is the last column, and is said;
    else ``DataError``.
    """
    if not rows:
        raise DataError(f"{source}: empty; give a file with labelled texts")
    first = [cell.strip().lower().lstrip("\ufeff") for cell in rows[0].cells]
    named = {name for name in (text_column, label_column) if name is not None and not name.isdecimal()}
    usual = bool(set(first) & _SURE_LABEL_COLUMNS) or bool(
        set(first) & set(LABEL_COLUMNS) and set(first) & set(TEXT_COLUMNS))
    twice = sorted({name for name in first if first.count(name) > 1 and name in (*LABEL_COLUMNS, *TEXT_COLUMNS)})
    if usual and twice:
        raise DataError(f"{source}: its header has more than one column '{twice[0]}'; rename all but one")
    given = [name for name in first if name]
    is_header = bool(named & set(rows[0].cells)) or (usual and len(set(given)) == len(given))
    width = len(rows[0].cells)
    if width < 2:
        raise DataError(f"{source}: has one column only; a row needs a text and a label")
    if is_header:
        names, rows = [cell.strip().lstrip("\ufeff") for cell in rows[0].cells], rows[1:]
        text, label = (column(names, wanted, known, flag, source) for wanted, known, flag in
                       ((text_column, TEXT_COLUMNS, "text"), (label_column, LABEL_COLUMNS, "label")))
    else:
        columns = [[row.cells[i].strip() for row in rows[:SNIFFED_ROWS] if i < len(row.cells)] for i in range(width)]
        length = [sum(map(len, cells)) for cells in columns]
        is_sparse = [2 * sum(map(bool, cells)) <= len(rows[:SNIFFED_ROWS]) for cells in columns]
        order = sorted(range(width), key=lambda i: (is_sparse[i], len(set(columns[i])), length[i]))
        keys = [str(i) for i in range(width)]
        label = order[0] if label_column is None else column(keys, label_column, (), "label", source)
        longest = max((i for i in range(width) if i != label), key=lambda i: length[i])
        text = longest if text_column is None else column(keys, text_column, (), "text", source)
        if is_header := _is_unusual_header(rows, text, label):
            names, rows = rows[0].cells, rows[1:]
            say(f"{source}: took its first line for a header: the text is '{names[text]}', the label '{names[label]}'; "
                "if that line is a text with its label, move it down")
    if is_header and _have_numbers(rows, len(names)):
        say(f"{source}: every row has a number of its own before the columns that the header names; left out")
        rows = [Row(row.line, row.cells[1:]) for row in rows]
    if is_header:  # what has no name behind the last name is no column
        width = max(i for i, name in enumerate(names) if name.strip() or i in (text, label)) + 1
    return _pairs(rows, source, text, label, width, separator)


def _have_numbers(rows: Sequence[Row], width: int) -> bool:
    """Whether all rows have one cell more than the header, the first, which numbers them (as R writes tables)."""
    numbers = {row.cells[0].strip() for row in rows if len(row.cells) == width + 1}
    return 1 < len(numbers) == len(rows) and all(map(str.isdecimal, numbers))


def _is_unusual_header(rows: Sequence[Row], text: int, label: int) -> bool:
    """Whether the first row names columns, though not as usual: its label stands nowhere else, while each other one
    stands in several rows on average, and instead of a text it has a name, far shorter than the texts."""
    names, below = rows[0].cells, [row.cells for row in rows[1:] if len(row.cells) > max(text, label)]
    labels = [cells[label].strip().casefold() for cells in below]
    if not below or _FEWEST_OF_A_LABEL * len(set(labels)) > len(labels) or not names[label].strip():
        return False
    typical = statistics.median(len(cells[text].strip()) for cells in below)
    return (names[label].strip().casefold() not in labels
            and _NAME.fullmatch(names[text].strip()) is not None and 2 * len(names[text].strip()) <= typical)


def _pairs(rows: Sequence[Row], source: str, text: int, label: int, width: int,
           separator: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    longer: list[int] = []
    for row in rows:
        cells = row.cells
        if len(cells) <= max(text, label):
            what = "text" if text > label else "label"
            raise DataError(f"{source}, line {row.line}: {len(cells)} columns, but the {what} is "
                            f"in column {max(text, label) + 1}; mend that row")
        own = cells[text]
        if any(cell.strip() for cell in cells[width:]):
            if text != width - 1:
                cure = 'put a text with commas between quotation marks: "one, two"' if separator == "," else \
                    "a text cannot have a tab in it"
                raise DataError(f"{source}, line {row.line}: {len(cells)} columns, but the first row has {width}; "
                                f"{cure}")
            own = separator.join(cells[text:]).rstrip(separator)
            longer.append(row.line)
        pairs.append((own, cells[label]))
    if longer:
        say(f"{source}: {len(longer):,} rows have more columns than the first one, line {longer[0]} for one; the text "
            "is the last column, so the rest was read as part of it")
    return pairs
