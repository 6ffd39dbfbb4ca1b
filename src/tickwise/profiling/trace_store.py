"""A trace on disk: a directory with the ledger, the tokens and what was run, written whole or not at all.

``ledger.parquet`` has the columns of ``LEDGER_COLUMNS``, ``tokens.parquet`` those of ``TOKEN_COLUMNS``,
``ticks.parquet`` those of ``TICK_COLUMNS`` (older traces have none), ``trace.json`` the rest. Rows are written a group
at a time, so a long run needs no more memory than a short one. Reading is by SQL (DuckDB) on copies in memory, from
where neither files nor the network can be reached.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from tickwise.core.allocator import bounded
from tickwise.core.config import read_json
from tickwise.core.console import format_bytes
from tickwise.core.errors import ConfigError, DataError, OutputError
from tickwise.profiling.ledger import NO_LAYER, STAGES, Rows, Token
from tickwise.profiling.usage import USAGE

if TYPE_CHECKING:
    import duckdb
    import pyarrow
    from pyarrow import parquet

FORMAT = 1
_QUERY_BYTES = 10**9
"""Memory that a query may take besides the trace itself."""
LEDGER_COLUMNS = (
    "run", "tick", "request_ids", "batch", "phase", "layer", "stage", "start_ns", "duration_ns", "flops", "bytes_read",
    "bytes_written", "kv_tokens", "bound", "roofline_share", "energy_j", "energy_source",
)
TOKEN_COLUMNS = ("tick", "request_id", "position", "token_id", "text")
TICK_COLUMNS = ("tick", *USAGE, "start_ns", "wall_ns")
_LATER_COLUMNS = ("core_wait_ns", "major_faults", "start_ns", "wall_ns")
"""Unknown in older traces."""
_SECTIONS = ("roofline", "ceilings", "machine", "energy", "kinds", "versions", "recording", "counts")
_INSTRUCTION = {"stage", "layer", "op", "flops", "bytes_read", "bytes_written"}
_HEADER, _LEDGER, _TOKENS, _TICKS = "trace.json", "ledger.parquet", "tokens.parquet", "ticks.parquet"
_LISTING = "listing.json"


def _schemas() -> tuple["pyarrow.Schema", "pyarrow.Schema", "pyarrow.Schema"]:
    import pyarrow as pa

    word = pa.dictionary(pa.int8(), pa.string())
    ledger = pa.schema([
        ("run", word), ("tick", pa.int64()), ("request_ids", pa.list_(pa.string())), ("batch", pa.int32()),
        ("phase", word), ("layer", pa.int32()), ("stage", word), ("start_ns", pa.int64()), ("duration_ns", pa.int64()),
        ("flops", pa.int64()), ("bytes_read", pa.int64()), ("bytes_written", pa.int64()), ("kv_tokens", pa.int64()),
        ("bound", word), ("roofline_share", pa.float64()), ("energy_j", pa.float64()), ("energy_source", word),
    ])  # fmt: skip
    tokens = pa.schema([("tick", pa.int64()), ("request_id", pa.string()), ("position", pa.int64()),
                        ("token_id", pa.int64()), ("text", pa.string())])
    assert tuple(ledger.names) == LEDGER_COLUMNS
    assert tuple(tokens.names) == TOKEN_COLUMNS
    ticks = pa.schema([(name, pa.int64()) for name in TICK_COLUMNS])
    return ledger, tokens, ticks


def check_trace_output(path: Path, overwrite: bool | None = None) -> None:
    """``OutputError`` when a trace cannot go to ``path``; an earlier trace is replaced only with ``overwrite``, which
    the message names unless it is ``None``: then the user has no such flag."""
    if path.is_dir():
        if not any(path.iterdir()):
            return
        if not (path / _HEADER).is_file():
            raise OutputError(f"{path}: holds something that is no trace; give another folder")
        if not overwrite:
            way = "delete it" if overwrite is None else "replace it with --overwrite"
            raise OutputError(f"{path}: holds a trace already; {way}, or give another folder")
    elif path.exists():
        raise OutputError(f"{path}: is a file; give a folder")


def check_not_of_trace(trace: Path, out: Path) -> None:
    """``OutputError`` when an output at ``out`` would take the place of the trace that is read, or of one of its files,
    by whatever path or link."""
    own = (trace, *(trace / name for name in (_HEADER, _LEDGER, _TOKENS, _TICKS, _LISTING)))
    if out.resolve() in {path.resolve() for path in own}:
        raise OutputError(f"{out}: belongs to the trace that is read; give another --out")


class TraceWriter:
    """A ``RowSink`` that writes Parquet. ``write_trace`` makes one."""

    def __init__(self, folder: Path, run: str) -> None:
        from pyarrow import parquet

        self._run = run
        self._ledger_schema, self._token_schema, self._tick_schema = _schemas()
        self._folder = folder
        self._ledger = self._open(_LEDGER, self._ledger_schema, parquet)
        self._tokens = self._open(_TOKENS, self._token_schema, parquet)
        self._ticks = self._open(_TICKS, self._tick_schema, parquet)
        self.n_ticks = self.n_rows = self.n_tokens = 0

    def _open(self, name: str, schema: "pyarrow.Schema", parquet: Any) -> "parquet.ParquetWriter":
        words = [field.name for field in schema if str(field.type).startswith(("dictionary", "string"))]
        return parquet.ParquetWriter(self._folder / name, schema, compression="zstd", compression_level=1,
                                     use_dictionary=words, write_statistics=False, write_page_checksum=True)

    def add(self, rows: Rows, tokens: Sequence[tuple[int, Sequence[Token]]]) -> None:
        """Append the rows and tokens of some ticks."""
        import pyarrow as pa

        table = pa.Table.from_arrays(self._ledger_arrays(rows), schema=self._ledger_schema)
        self._ledger.write_table(table)
        n = len(rows.works)
        self._ticks.write_table(pa.Table.from_arrays([
            pa.array(numpy.arange(rows.first_tick, rows.first_tick + n)), *(_whole(rows.used[name]) for name in USAGE),
            pa.array(rows.tick_start_ns), pa.array(rows.tick_wall_ns),
        ], schema=self._tick_schema))
        said = [(tick, token) for tick, of_tick in tokens for token in of_tick]
        if said:
            self._tokens.write_table(pa.Table.from_arrays([
                pa.array([tick for tick, _ in said], pa.int64()),
                pa.array([token.request_id for _, token in said], pa.string()),
                pa.array([token.position for _, token in said], pa.int64()),
                pa.array([token.token_id for _, token in said], pa.int64()),
                pa.array([_readable(token.text) for _, token in said], pa.string()),
            ], schema=self._token_schema))
        self.n_ticks += len(rows.works)
        self.n_rows += len(rows.tick)
        self.n_tokens += len(said)

    def _ledger_arrays(self, rows: Rows) -> list["pyarrow.Array"]:
        import pyarrow as pa

        def words(names: Sequence[str | None], codes: Any) -> pa.Array:
            return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(names, pa.string()))

        def number(values: Any) -> pa.Array:
            return pa.array(values, mask=numpy.isnan(values))

        n = len(rows.tick)
        of_tick = pa.array(rows.tick - rows.first_tick)
        works = rows.works
        phases = ("prefill", "decode", "train")
        phase_codes = numpy.array([phases.index(work.phase) for work in works])
        requests = pa.array([[row.request_id for row in work.rows] for work in works], pa.list_(pa.string()))
        bounds = ("compute", "memory", "overhead")
        bound_codes = numpy.select([rows.bound == name for name in bounds], range(3), 0)
        unknown_energy = numpy.isnan(rows.energy_j)
        energy_kind = 0 if rows.energy_measured else 1
        return [
            words([self._run], numpy.zeros(n, dtype=numpy.int8)),
            pa.array(rows.tick),
            requests.take(of_tick),
            pa.array(numpy.array([work.batch for work in works], dtype=numpy.int32)).take(of_tick),
            words(phases, phase_codes[rows.tick - rows.first_tick].astype(numpy.int8)),
            pa.array(rows.layer.astype(numpy.int32), mask=rows.layer == NO_LAYER),
            words([str(stage) for stage in STAGES], rows.stage.astype(numpy.int8)),
            pa.array(rows.start_ns), pa.array(rows.duration_ns),
            _whole(rows.flops), _whole(rows.bytes_read), _whole(rows.bytes_written),
            pa.array(numpy.array([work.kv_tokens for work in works], dtype=numpy.int64)).take(of_tick),
            words(bounds, pa.array(bound_codes.astype(numpy.int8), mask=rows.bound == None)),  # noqa: E711
            number(rows.roofline_share), number(rows.energy_j),
            words(("measured", "modelled", "none"), numpy.where(unknown_energy, 2, energy_kind).astype(numpy.int8)),
        ]

    def close(self, header: Mapping[str, Any], listing: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Write the ends of the files, ``trace.json``, and the instructions of a typical tick, if given."""
        self._ledger.close()
        self._tokens.close()
        self._ticks.close()
        if listing is not None:
            (self._folder / _LISTING).write_text(json.dumps(listing) + "\n", encoding="utf-8")
        header = {**header, "has_listing": listing is not None}
        counts = {"ticks": self.n_ticks, "rows": self.n_rows, "tokens": self.n_tokens,
                  "tick_rows": self.n_ticks}
        text = json.dumps({"format": FORMAT, "run": self._run, **header, "counts": counts}, indent=2)
        (self._folder / _HEADER).write_text(text + "\n", encoding="utf-8")


def _whole(values: Any) -> "pyarrow.Array":
    """Whole numbers; null for NaN."""
    import pyarrow as pa

    unknown = numpy.isnan(values)
    return pa.array(numpy.where(unknown, 0, values).astype(numpy.int64), mask=unknown)


def _readable(text: str) -> str:
    """Half of a surrogate pair cannot be stored as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


class Trace:
    """A trace that was opened; ``header`` is its ``trace.json``."""

    def __init__(self, path: Path, header: dict[str, Any], listing: list[dict[str, Any]] | None,
                 connection: "duckdb.DuckDBPyConnection") -> None:
        self.path, self.header, self._listing, self._connection = path, header, listing, connection

    def select(self, sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Rows of a query of our own, as dictionaries."""
        found = self._connection.execute(sql, list(parameters))
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, values, strict=True)) for values in found.fetchall()]

    def query(self, sql: str, timeout_s: float = 60.0) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of a user's ``SELECT``; ``ConfigError`` in one line for anything else, and for a query
        that takes longer than ``timeout_s`` seconds or much memory. Other threads share its bound meanwhile."""
        import duckdb

        def work() -> tuple[list[str], list[tuple[Any, ...]]]:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise ConfigError("SQL: give one SELECT; a trace is only read. Its tables are ledger, tokens and ticks")
            # DuckDB's own limit does not count the strings that a function makes.
            with bounded(2 * _QUERY_BYTES):
                found = self._connection.execute(statements[0])
                return [column[0] for column in found.description or ()], found.fetchall()

        # DuckDB does not listen to Ctrl-C while it works, so another thread lets it work.
        with ThreadPoolExecutor(1) as other:
            asked = other.submit(work)
            try:
                return asked.result(min(timeout_s, threading.TIMEOUT_MAX))
            except TimeoutError:
                raise ConfigError(f"SQL: the query took more than {timeout_s:g} s and was stopped; ask for less, or "
                                  "give it more time with --timeout") from None
            except (duckdb.OutOfMemoryException, MemoryError):
                raise ConfigError(f"SQL: the query needs more memory than the {format_bytes(_QUERY_BYTES)} that it may "
                                  "take; ask for less") from None
            except duckdb.Error as problem:
                first = next((line for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
                raise ConfigError(f"SQL: {first}") from None
            finally:
                while not asked.done():  # again and again: a query that has not begun yet forgets it
                    self._connection.interrupt()
                    wait([asked], 0.1)

    def rows(self) -> list[dict[str, Any]]:
        """All of the ledger, in order."""
        return self.select("SELECT * FROM ledger ORDER BY rowid")

    def tokens(self) -> list[dict[str, Any]]:
        """All tokens, in the order in which they were written."""
        return self.select("SELECT * FROM tokens ORDER BY rowid")

    def ticks(self) -> list[dict[str, Any]]:
        """When each tick began and how long it took by the clock, and what the system said about it:
        ``TICK_COLUMNS``. Empty for older traces."""
        return self.select("SELECT * FROM ticks ORDER BY rowid")

    def listing(self) -> list[dict[str, Any]] | None:
        """Instructions of a typical tick; ``None`` where the trace has none."""
        return self._listing


def open_trace(path: Path) -> Trace:
    """The trace in directory ``path``; ``DataError`` in one line when it is missing, damaged or of another version."""
    if not path.exists():
        raise DataError(f"{path}: there is no such trace; record one with tickwise trace MODEL --prompt … --out {path}")
    if not path.is_dir() or not (path / _HEADER).is_file():
        raise DataError(f"{path}: is not a trace (a folder with {_HEADER}, {_LEDGER} and {_TOKENS})")
    header = read_json(path / _HEADER, "the trace's description", DataError)
    if header.get("format") != FORMAT or isinstance(header["format"], bool):
        raise DataError(f"{path}: is a trace of format {header.get('format')!r}, and this tickwise reads {FORMAT}; "
                        "record it again, or use the version that wrote it")
    ledger_schema, token_schema, tick_schema = _schemas()
    tables = {"ledger": _read(path / _LEDGER, ledger_schema), "tokens": _read(path / _TOKENS, token_schema)}
    for name in _SECTIONS:
        if not isinstance(header.get(name, {}), dict):
            raise DataError(f"{path / _HEADER}: {name} is damaged; record the trace again")
    counts = header.get("counts")
    if not isinstance(counts, dict) or not isinstance(counts.get("ticks"), int):
        raise DataError(f"{path / _HEADER}: does not say how many ticks there are; record the trace again")
    known = "tick_rows" in counts or (path / _TICKS).exists()
    tables["ticks"] = _read(path / _TICKS, tick_schema) if known else tick_schema.empty_table()
    for name, key in ((_LEDGER, "rows"), (_TOKENS, "tokens"), *([(_TICKS, "tick_rows")] if known else [])):
        if counts.get(key) != tables[name.removesuffix(".parquet")].num_rows:
            raise DataError(f"{path}: {name} and {_HEADER} do not belong together; record the trace again")
    listing = _read_listing(path / _LISTING, expected=bool(header.get("has_listing")))  # older traces do not say
    stages = set(tables["ledger"].column("stage").unique().to_pylist())
    unknown = sorted(map(str, stages - {str(stage) for stage in STAGES}))
    if unknown:
        raise DataError(f"{path / _LEDGER}: has the stage {unknown[0]!r}, which this tickwise does not know; "
                        "use the version that wrote it")
    return Trace(path, header, listing, _connect(tables))


def _read(path: Path, schema: "pyarrow.Schema") -> "pyarrow.Table":
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; record the trace again") from None
    except (OSError, pyarrow.ArrowException) as problem:
        first = (str(problem).splitlines() or [""])[0]
        raise DataError(f"{path}: is damaged or cut off ({first}); record the trace again") from None
    for field in schema:
        if field.name in _LATER_COLUMNS and field.name not in table.column_names:
            table = table.append_column(field, pyarrow.nulls(table.num_rows, field.type))
    if sorted(table.column_names) == sorted(schema.names):
        table = table.select(schema.names)
    if not table.schema.equals(schema):
        raise DataError(f"{path}: its columns are not those of a trace; record it again")
    return table


def _read_listing(path: Path, *, expected: bool) -> list[dict[str, Any]] | None:
    if not path.is_file():
        if expected:
            raise DataError(f"{path}: is missing; record the trace again")
        return None
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(rows, list) and all(isinstance(row, dict) and row.keys() >= _INSTRUCTION for row in rows)
        if not whole:
            raise ValueError
    except (OSError, ValueError, RecursionError):
        raise DataError(f"{path}: is damaged; record the trace again") from None
    return rows


def _connect(tables: Mapping[str, "pyarrow.Table"]) -> "duckdb.DuckDBPyConnection":
    """A database in memory that holds the tables and can reach nothing else."""
    import duckdb

    connection = duckdb.connect(":memory:")
    for name, table in tables.items():
        connection.register("arrow_table", table)
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM arrow_table")
        connection.unregister("arrow_table")
    held = connection.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchone()
    assert held is not None
    for setting in (f"memory_limit = '{int(held[0]) + _QUERY_BYTES}B'",
                    "python_enable_replacements = false", "autoinstall_known_extensions = false",
                    "autoload_known_extensions = false", "temp_directory = ''", "enable_external_access = false",
                    "lock_configuration = true"):
        connection.execute(f"SET {setting}")
    return connection
