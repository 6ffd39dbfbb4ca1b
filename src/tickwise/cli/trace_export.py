"""A trace for other programs: perfetto (ui.perfetto.dev), csv, or html (one page that needs no network)."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import say
from tickwise.core.errors import OutputError

if TYPE_CHECKING:
    from tickwise.profiling.trace_store import Trace

_NAMES = {"perfetto": "perfetto.json", "csv": "ledger.csv", "html": "timeline.html"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    trace: tyro.conf.Positional[Path]
    """Folder of a trace."""
    to: Literal["perfetto", "csv", "html"]
    """Format."""
    out: Path | None = None
    """File to write; one inside the trace's folder if left out."""
    overwrite: bool = False
    """Replace ``--out`` if it is there."""


def run(arguments: Arguments) -> int:
    from tickwise.core.paths import check_file_output
    from tickwise.profiling.export import export_csv, export_perfetto
    from tickwise.profiling.trace_store import check_not_of_trace, open_trace

    trace = open_trace(arguments.trace)
    out = arguments.out or arguments.trace / _NAMES[arguments.to]
    check_not_of_trace(arguments.trace, out)
    check_file_output(out)
    if arguments.out is not None and arguments.out.is_file() and not arguments.overwrite:
        raise OutputError(f"{arguments.out}: is there already; give another --out, or --overwrite")
    {"perfetto": export_perfetto, "csv": export_csv, "html": _export_html}[arguments.to](trace, out)
    if arguments.json:
        print(json.dumps({"path": str(out), "bytes": out.stat().st_size}))
    else:
        hint = "; open it at ui.perfetto.dev" if arguments.to == "perfetto" else ""
        say(f"wrote {out}{hint}")
    return 0


def _export_html(trace: "Trace", path: Path) -> None:
    from tickwise.core.paths import write_text_atomic
    from tickwise.report.timeline import timeline_page

    write_text_atomic(path, timeline_page(ledger=trace.rows(), tokens=trace.tokens(), listing=trace.listing(),
                                          meta=trace.header, usage=trace.ticks()))
