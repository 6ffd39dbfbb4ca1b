"""Pairs of texts with what people judged of how alike they are, or of texts that belong together."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tickwise.core.console import say
from tickwise.core.errors import DataError
from tickwise.data.pairs import table_rows
from tickwise.data.rows import numbered_lines

_TEXT_NAMES = (("sentence1", "sentence2"), ("sentence_a", "sentence_b"), ("text1", "text2"), ("text_a", "text_b"),
               ("left", "right"), ("first", "second"), ("source", "target"), ("anchor", "positive"))
_SCORE_NAMES = ("score", "similarity_score", "relatedness_score", "gold_score", "similarity", "gold", "label")
_LAYOUTS = ("two texts, two texts with a number before or behind them, the columns of the STS benchmark (number in the "
            "fifth, texts in the sixth and seventh), or a first row that names sentence1, sentence2 and score")
_STS_COLUMNS = 7


@dataclass(frozen=True)
class JudgedPairs:
    """``left[i]`` and ``right[i]`` belong together as much as ``judged[i]`` says; where that is None, they do."""

    left: list[str]
    right: list[str]
    judged: list[float] | None
    name: str

    def __len__(self) -> int:
        return len(self.left)


def read_judged_pairs(sources: Sequence[str], columns: Sequence[str] = ()) -> JudgedPairs:
    """The pairs of all files: tab-separated (also under the name .csv, as the STS benchmark has it), .csv, .jsonl,
    .json or .parquet.

    ``columns`` names those of the two texts and, if there is one, of the number, for a table with named columns; left
    out, they are found by their usual names, or without a header by how many there are. Pairs with a blank text or no
    number are left out and counted. ``DataError`` for a file that cannot be read, a row that does not fit, what stands
    for a number and is none, and files of which only some have numbers."""
    found: list[tuple[str, str, float | None]] = []
    kinds: dict[bool, str] = {}
    n_blank = 0
    for source in sources:
        path = Path(source)
        if not path.is_file():
            raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}; give a table of pairs")
        rows, has_number = _cells(path, columns)
        kinds.setdefault(has_number, source)
        for number, (left, right, judged) in rows:
            if not left.strip() or not right.strip() or (has_number and not judged.strip()):
                n_blank += 1
                continue
            found.append((left.strip(), right.strip(), _number(path, number, judged) if has_number else None))
    if len(kinds) > 1:
        raise DataError(f"{kinds[True]} has a number with each pair and {kinds[False]} has none; score them apart")
    name = ", ".join(sources)
    if not found:
        raise DataError(f"{name}: no pair of texts in it")
    if n_blank:
        say(f"{name}: left out {n_blank:,} pairs with a blank side or no number")
    judgements = [judged for _, _, judged in found if judged is not None]
    return JudgedPairs([left for left, _, _ in found], [right for _, right, _ in found], judgements or None, name)


def _cells(path: Path, columns: Sequence[str]) -> tuple[list[tuple[int, tuple[str, str, str]]], bool]:
    """(number of the row, its two texts and its number as text) of every row, and whether there are numbers."""
    table = _tabbed(path) if path.suffix.lower() == ".csv" and _has_tabs(path) else table_rows(path)
    if not table:
        problem = "empty" if table is not None else "no table: no line has a tab"
        raise DataError(f"{path}: {problem}; give a pair per row: {_LAYOUTS}")
    first: Any = table[0]
    header = [str(name).strip() for name in first]  # a dictionary's are its keys
    chosen = _by_name(header, columns, path)
    rows: Sequence[Any] = table
    start = 1
    if isinstance(first, dict):
        if chosen is None:
            raise DataError(f"{path}: which columns are the texts? It has {', '.join(header)}; usual names are "
                            "sentence1, sentence2 and score")
        places = [list(first)[place] for place in chosen]
    elif chosen is not None:
        places, rows, start = chosen, table[1:], 2
    else:
        places = _by_number(rows, path)
    found = []
    for number, row in enumerate(rows, start=start):
        try:
            cells = [row[place] for place in places]
        except (IndexError, KeyError):
            raise DataError(f"{path}, row {number:,}: has not the {len(places)} columns of a pair that the first row "
                            "has; mend that row") from None
        left, right, judged = ("" if cell is None else str(cell) for cell in [*cells, ""][:3])
        found.append((number, (left, right, judged)))
    return found, len(places) == 3


def _has_tabs(path: Path) -> bool:
    lines = [line for _, _, line in itertools.islice(numbered_lines([path]), 10)]
    return bool(lines) and all(line.count("\t") >= 1 for line in lines if line)


def _tabbed(path: Path) -> list[list[str]]:
    return [line.split("\t") for _, _, line in numbered_lines([path]) if line.strip()]


def _by_name(header: Sequence[str], columns: Sequence[str], path: Path) -> list[int] | None:
    """The places of the columns that are named, or that have usual names; None where there are none of these."""
    known = [name.lower() for name in header]
    if columns:
        missing = [name for name in columns if name.lower() not in known]
        if missing or len(columns) not in (2, 3):
            what = f"no column '{missing[0]}'" if missing else "name two texts and at most one number"
            raise DataError(f"{path}: {what}; it has {', '.join(header)[:200]}")
        return [known.index(name.lower()) for name in columns]
    texts = next((pair for pair in _TEXT_NAMES if set(pair) <= set(known)), None)
    if texts is None:
        return None
    return [known.index(name) for name in (*texts, *[name for name in _SCORE_NAMES if name in known][:1])]


def _by_number(rows: Sequence[Sequence[str]], path: Path) -> list[int]:
    """The places of the two texts and of the number in rows without a known header: of three or of the STS benchmark's
    columns the number is in that where numbers stand in the most rows, which must be one alone.

    ``DataError`` where that cannot be told, and for a first row that has no number where all others have."""
    width = len(rows[0])
    layouts: dict[int, list[int]] = {}
    if width == 3:
        layouts = {2: [0, 1, 2], 0: [1, 2, 0]}
    elif width >= _STS_COLUMNS:
        layouts = {4: [5, 6, 4]}
    if width == 2:
        _say_that_it_is_data(rows[0], path)
        return [0, 1]
    cells = {place: [row[place].strip() for row in rows if len(row) > place] for place in layouts}
    n_numbers = {place: sum(map(_is_number, column)) for place, column in cells.items()}
    most = max(n_numbers.values(), default=0)
    best = [place for place, n in n_numbers.items() if n == most]
    if not most or len(best) > 1:
        which = f"{width} columns in its first row" if not most else "numbers stand in its first and its last column"
        raise DataError(f"{path}: {which}, and which of them are a pair cannot be told; give {_LAYOUTS}")
    (chosen,) = best
    first, *others = cells[chosen]
    if first and not _is_number(first) and all(map(_is_number, filter(None, others))):
        raise DataError(f"{path}: its first row ({_shown(rows[0])}) has no number where the others have one, and names "
                        "no columns that are known; say with --columns which of them to read, or leave it out")
    if not first:
        _say_that_it_is_data(rows[0], path)
    return layouts[chosen]


def _say_that_it_is_data(row: Sequence[str], path: Path) -> None:
    say(f"{path}: the first row ({_shown(row)}) names no columns that are known and was taken for a pair")


def _shown(row: Sequence[str]) -> str:
    text = ", ".join(cell.strip() for cell in row)
    return text if len(text) <= 60 else f"{text[:60]} …"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(path: Path, number: int, text: str) -> float:
    if not _is_number(text):
        raise DataError(f"{path}, row {number:,}: '{text[:40]}' is not a number; mend that row")
    return float(text)
