"""Ask a trace in SQL (DuckDB): one SELECT over its tables ledger, tokens and ticks. Nothing else is read or written."""

import dataclasses
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    trace: tyro.conf.Positional[Path]
    """Folder of a trace."""
    sql: tyro.conf.Positional[str]
    """For example: SELECT stage, sum(duration_ns) FROM ledger GROUP BY stage"""
    timeout: float = 60.0
    """Seconds after which the query is given up."""


def run(arguments: Arguments) -> int:
    from tickwise.cli.trace_show import plural, show, table
    from tickwise.profiling.trace_store import open_trace

    if not arguments.timeout > 0:
        raise ConfigError(f"--timeout {arguments.timeout:g}: must be more than 0 seconds")
    columns, rows = open_trace(arguments.trace).query(arguments.sql, arguments.timeout)
    if arguments.json:
        print(json.dumps({"columns": columns, "rows": [[_json(value) for value in row] for row in rows]}, default=str))
        return 0
    found = table(*columns, right=0)
    for column, values in zip(found.columns, zip(*rows, strict=True), strict=False):
        column.no_wrap = all(value is None or isinstance(value, int | float | Decimal) for value in values)
        column.justify = "right" if column.no_wrap else "left"
    for row in rows:
        found.add_row(*map(_text, row))
    show(plural(len(rows), "row"), found)
    return 0


def _text(value: Any) -> str:
    """Numbers as people read them; text with signs for what a terminal would obey (line ends, colours)."""
    if value is None:
        return "NULL"
    if isinstance(value, float | Decimal):
        return f"{value:,.0f}" if abs(float(value)) >= 1e6 else f"{value:,.6g}"
    if isinstance(value, str):
        return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in value)
    return str(value)


def _json(value: Any) -> Any:
    """Numbers that JSON does not have become null, decimals plain numbers; also inside of lists and structs."""
    if isinstance(value, dict):
        return {str(key): _json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    if isinstance(value, Decimal):
        value = float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
