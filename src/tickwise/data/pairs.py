"""Pairs of texts, a source and its target: a sentence and its translation, a dialogue and its summary."""

import csv
import dataclasses
import io
import itertools
import json
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import xxhash

from tickwise.core.console import say
from tickwise.core.errors import ConfigError, DataError
from tickwise.data import catalogue, rows
from tickwise.data.prepared import SPLIT_NAMES
from tickwise.text.clean import clean
from tickwise.text.encodings import guess_encoding

_TABLES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".parquet")
_USUAL_NAMES = (("source", "target"), ("src", "tgt"), ("input", "output"), ("text", "summary"))
_SNIFFED_LINES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadPairs:
    """Which of the texts that belong together is the source and which the target."""

    source: str | None = None
    """Language of the source: the column or key of that name (or number, from 0), or the file's ending. Left out: the
    first of two."""
    target: str | None = None
    """The same of the target; left out: the second of two."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Sources and, at the same places, their targets."""

    sources: list[str]
    targets: list[str]
    name: str
    rows: Sequence[int] | None = None
    """Which rows of what was read these are, from 0; left out, all."""
    n_rows: int | None = None
    """Rows of what was read, those with a blank side too; left out, as many as there are pairs."""

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, indices: Sequence[int]) -> "Pairs":
        rows = range(len(self)) if self.rows is None else self.rows
        return Pairs([self.sources[i] for i in indices], [self.targets[i] for i in indices], self.name,
                     [rows[i] for i in indices], len(self) if self.n_rows is None else self.n_rows)

    def by_row(self, texts: Sequence[str]) -> list[str]:
        """A text of each of these pairs at the place of its row, and a blank one for every other row."""
        found = [""] * (len(self) if self.n_rows is None else self.n_rows)
        for row, text in zip(range(len(self)) if self.rows is None else self.rows, texts, strict=True):
            found[row] = text
        return found

    def fingerprint(self) -> str:
        """xxh3-128 of all sources and targets, in hexadecimal."""
        digest = xxhash.xxh3_128()
        for source, target in zip(self.sources, self.targets, strict=True):
            digest.update(json.dumps([source, target]).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def read_pairs(sources: Sequence[str], read: ReadPairs, *, split: str = "train") -> Pairs:
    """The pairs of all ``sources``, each of which is

    - two parallel text files, one after the other, with a text per line: ``x.en``, ``x.de``;
    - what two such files begin with, ``x``, where ``read`` says how they end;
    - a table with a pair per row: .tsv (or any file of tab-separated lines), .csv, .jsonl, .json, .parquet;
    - a known data set, ``split`` of it or the split that stands behind a slash: ``multi30k/test``.

    Text files may end in .gz. Pairs with a blank side are left out and counted. Raises ``DataError`` for a file that
    cannot be read, parallel files of different lengths, and rows without one of the columns.
    """
    found: list[tuple[str, str]] = []
    rest = list(sources)
    while rest:
        name = rest.pop(0)
        path = Path(name)
        if not path.exists():
            found += _endings(name, read) or _of_data_set(name, read, split)
        elif not path.is_file():
            raise DataError(f"{path}: not a file; give two parallel files, or a table with a pair per row")
        elif (table := table_rows(path)) is not None:
            found += _columns(table, read, name)
        else:
            if not rest:
                raise DataError(f"{path}: one of two parallel files; name the other one after it (x.en, then x.de), or "
                                "give a file with tab-separated pairs")
            found += _parallel(path, Path(rest.pop(0)))
    name = ", ".join(sources)
    pairs = [(clean(source).text.strip(), clean(target).text.strip()) for source, target in found]
    whole = [row for row, (source, target) in enumerate(pairs) if source and target]
    if not whole:
        raise DataError(f"{name}: no pair in it with a text on both sides")
    if len(whole) < len(pairs):
        say(f"{name}: left out {len(pairs) - len(whole):,} pairs with a blank side")
    return Pairs([source for source, _ in pairs], [target for _, target in pairs], name).take(whole)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, without their ends; ``DataError`` when it cannot be read. A carriage return inside a
    line ends nothing: the other one of two parallel files need not have it."""
    try:
        with rows.open_text(path) as stream:
            cast(io.TextIOWrapper, stream).reconfigure(newline="\n")
            for line in stream:
                yield line.rstrip("\r\n")
    except (OSError, EOFError) as problem:
        raise DataError(f"{path}: cannot read it: {getattr(problem, 'strerror', None) or problem}") from None
    except UnicodeDecodeError as problem:
        guess = guess_encoding(problem.object, problem.start)
        likely = f"; it looks like {guess.name}" if guess else ""
        raise DataError(f"{path}: not UTF-8{likely}; convert it first (iconv -t UTF-8)") from None


def _parallel(first: Path, second: Path) -> list[tuple[str, str]]:
    sides = [list(_lines(path)) for path in (first, second)]
    shorter, longer = sorted(sides, key=len)
    while len(longer) > len(shorter) and not longer[-1].strip():  # blank lines at the end belong to no text
        longer.pop()
    n, m = map(len, sides)
    if n != m:
        raise DataError(f"{first} has {n:,} lines and {second} {m:,}: line {min(n, m) + 1:,} is the first that only "
                        "one of them has; parallel files need the same number of lines")
    return list(zip(*sides, strict=True))


def _endings(stem: str, read: ReadPairs) -> list[tuple[str, str]] | None:
    """The parallel files ``stem.SOURCE`` and ``stem.TARGET``, if they are there."""
    if read.source is None or read.target is None:
        return None
    found = [next((path for path in (Path(f"{stem}.{end}"), Path(f"{stem}.{end}.gz")) if path.is_file()), None)
             for end in (read.source, read.target)]
    first, second = found
    if first is None and second is None:
        return None
    if first is None or second is None:
        missing = read.source if first is None else read.target
        raise DataError(f"{stem}.{missing}: no such file, and {first or second} needs it beside it")
    return _parallel(first, second)


def _of_data_set(name: str, read: ReadPairs, split: str) -> list[tuple[str, str]]:
    base, _, given = name.partition("/")
    entry = catalogue.find(base)
    if entry is None:
        raise DataError(f"{name}: no such file, and no data set of that name (see tickwise data ls)")
    split = given or split
    if split not in SPLIT_NAMES:
        raise DataError(f"{name}: a split is one of {', '.join(SPLIT_NAMES)}")
    source, target = _wanted(read, entry.fields)
    return _columns(list(entry.rows(split)), ReadPairs(source=source, target=target), name)


def _wanted(read: ReadPairs, names: Sequence[str]) -> tuple[str | None, str | None]:
    """The names to look for: those that were said, the others from two ``names``, source first."""
    source, target = read.source, read.target
    if len(names) == 2:
        source = source or (names[1] if target == names[0] else names[0])
        target = target or (names[0] if source == names[1] else names[1])
    return source, target


def table_rows(path: Path) -> list[dict[str, Any]] | list[list[str]] | None:
    """The rows of a table, as dictionaries or as cells; ``None`` for a text file without tabs."""
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if ending == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            table: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        except (OSError, pyarrow.ArrowException) as problem:
            raise DataError(f"{path}: not a readable parquet file ({problem})") from None
        return table
    if ending in (".jsonl", ".ndjson", ".json"):
        read = rows.json_array if ending == ".json" else rows.json_lines
        objects = list(read([path]))
        for number, row in enumerate(objects, start=1):
            if not isinstance(row, dict):
                raise DataError(f"{path}, row {number:,}: each row must be an object with keys for source and target")
        return objects
    if ending == ".csv":
        csv.field_size_limit(1 << 27)
        try:
            return [row for row in csv.reader(f"{line}\n" for line in _lines(path)) if row]
        except csv.Error as problem:
            raise DataError(f"{path}: not valid CSV ({problem})") from None
    if ending != ".tsv":
        first = [line for line in itertools.islice(_lines(path), _SNIFFED_LINES) if line.strip()]
        if 2 * sum("\t" in line for line in first) <= len(first):
            return None
    return [line.split("\t") for line in _lines(path) if line.strip()]


def named_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table by the names of their columns, which a .csv or .tsv file has in its first row.

    ``DataError`` for a file that is no table or cannot be read."""
    table = table_rows(path)
    if table is None:
        raise DataError(f"{path}: no table; give .jsonl, .json, .csv, .tsv or .parquet, with a name for each column")
    objects = [row for row in table if isinstance(row, dict)]
    if objects or not table:
        return objects
    names = [str(name).strip() for name in table[0]]
    return [dict(zip(names, row, strict=False)) for row in table[1:]]


def _columns(table: Sequence[dict[str, Any] | list[str]], read: ReadPairs, name: str) -> list[tuple[str, str]]:
    if not table:
        raise DataError(f"{name}: empty; give a file with a pair per row")
    objects = [row for row in table if isinstance(row, dict)]
    return _of_mappings(objects, read, name) if objects else _of_cells(table, read, name)  # type: ignore[arg-type]


def _usual_names(columns: Sequence[str]) -> list[str]:
    """The columns of source and target, where they have usual names."""
    return next((list(pair) for pair in _USUAL_NAMES if set(pair) <= set(columns)), [])


def _of_mappings(table: list[dict[str, Any]], read: ReadPairs, name: str) -> list[tuple[str, str]]:
    if isinstance(table[0].get("translation"), dict):  # as the Hugging Face hub keeps translations
        table = [row.get("translation") or {} for row in table]
    keys = list(table[0])
    chosen = []
    for key, side in zip(_wanted(read, _usual_names(keys) or keys), ("source", "target"), strict=True):
        if key is None:
            raise DataError(f"{name}: which column is the {side}? It has {', '.join(keys)}; say --{side}")
        if key not in keys:
            raise DataError(f"{name}: no column '{key}'; it has {', '.join(keys)}")
        chosen.append(key)
    for number, row in enumerate(table, start=1):
        if missing := [key for key in chosen if key not in row]:
            raise DataError(f"{name}, row {number:,}: no key '{missing[0]}'; it has {', '.join(row) or 'none'}")
    return [(_plain(row[chosen[0]]), _plain(row[chosen[1]])) for row in table]


def _plain(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _of_cells(table: list[list[str]], read: ReadPairs, name: str) -> list[tuple[str, str]]:
    """Rows of cells, with a header when the columns are named or when it has usual names."""
    header = [cell.strip().lower() for cell in table[0]]
    usual = _usual_names(header)
    wanted = [str(key).lower() for key in _wanted(read, usual or ("0", "1"))]
    number = 1
    if usual or not all(map(str.isdecimal, wanted)):
        table, number = table[1:], 2
    places = []
    for key, side in zip(wanted, ("source", "target"), strict=True):
        if not key.isdecimal() and key not in header:
            raise DataError(f"{name}: no column '{key}' in its first row ({', '.join(header[:6])}); give the number of "
                            f"the column, from 0, with --{side}")
        places.append(int(key) if key.isdecimal() else header.index(key))
    for line, row in enumerate(table, start=number):
        if len(row) <= max(places):
            raise DataError(f"{name}, row {line}: {len(row)} columns, but a pair is in columns {places[0] + 1} and "
                            f"{places[1] + 1}; mend that row")
    return [(row[places[0]], row[places[1]]) for row in table]


def identity(text: str) -> str:
    """What two texts that differ in case, spaces, punctuation or width of characters only have in common."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, folded)) or folded


def hold_out(pairs: Pairs, n: int, salt: str, *, targets_repeat: bool = False) -> tuple[Pairs, Pairs]:
    """(rest, part): ``n`` pairs with different sources and different targets, and the pairs of which neither side (its
    ``identity``) occurs in any of the ``n``. With ``targets_repeat``, as labels and short answers do, that is asked of
    sources alone. How many pairs are in neither is said.

    Which pairs are held out depends on their texts and ``salt`` alone, not on their order, and is the same for both
    directions of translation. ``ConfigError`` when nothing would be left.
    """
    sides = [(identity(source), identity(target)) for source, target in zip(pairs.sources, pairs.targets, strict=True)]

    def drawn(index: int) -> int:
        key = "\0".join((salt, *sorted(sides[index])))
        return xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"))

    def compared(index: int) -> tuple[tuple[str, int], ...]:
        """The texts that may not be in both parts, and which side each is."""
        source, target = sides[index]
        return ((source, 0),) if targets_repeat else ((source, 0), (target, 1))

    taken: set[tuple[str, int]] = set()
    part: list[int] = []
    for index in sorted(range(len(pairs)), key=drawn):
        if len(part) == n:
            break
        if taken.isdisjoint(compared(index)):
            part.append(index)
            taken.update(compared(index))
    rest = [index for index in range(len(pairs)) if taken.isdisjoint(compared(index))]
    if len(part) < n or not rest:
        raise ConfigError(f"{pairs.name}: cannot hold out {n:,} of its {len(pairs):,} pairs and have some left to "
                          "train on; hold out fewer")
    if n_neither := len(pairs) - len(rest) - len(part):
        say(f"{pairs.name}: left out {n_neither:,} pairs whose {'source' if targets_repeat else 'source or target'} is "
            f"that of one of the {n:,} held out")
    return pairs.take(rest), pairs.take(sorted(part))


def sides_in(pairs: Pairs, other: Pairs) -> list[tuple[bool, bool]]:
    """Of each pair, whether its source stands among the sources of ``other``, and its target among its targets, by
    their ``identity``."""
    taken = [set(map(identity, side)) for side in (other.sources, other.targets)]
    return [(identity(source) in taken[0], identity(target) in taken[1])
            for source, target in zip(pairs.sources, pairs.targets, strict=True)]


def without_sides_of(pairs: Pairs, other: Pairs) -> Pairs:
    """The pairs of which neither side is a side of the same kind in ``other``; perhaps none."""
    return pairs.take([number for number, sides in enumerate(sides_in(pairs, other)) if not any(sides)])
