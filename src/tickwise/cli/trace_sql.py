"""Ask a trace in SQL (DuckDB): one SELECT over its tables ledger and tokens. Nothing else can be read or written."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import tyro

from tickwise.cli.common_flags import CommonArguments


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    trace: tyro.conf.Positional[Path]
    """Folder of a trace."""
    sql: tyro.conf.Positional[str]
    """For example: SELECT stage, sum(duration_ns) FROM ledger GROUP BY stage"""


def run(arguments: Arguments) -> int:
    from tickwise.cli.trace_show import show, table
    from tickwise.profiling.trace_store import open_trace

    columns, rows = open_trace(arguments.trace).query(arguments.sql)
    if arguments.json:
        print(json.dumps({"columns": columns, "rows": [[_json(value) for value in row] for row in rows]}, default=str))
        return 0
    found = table(*columns, right=0)
    for row in rows:
        found.add_row(*("" if value is None else f"{value:,.6g}" if isinstance(value, float) else str(value)
                        for value in row))
    show(f"{len(rows):,} rows", found)
    return 0


def _json(value: Any) -> Any:
    """Numbers that JSON does not have become null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
