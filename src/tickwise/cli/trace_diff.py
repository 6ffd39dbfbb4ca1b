"""What changed between two traces, token by token, and which stage pays for it."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import format_difference, format_duration

if TYPE_CHECKING:
    from tickwise.profiling.scatter import Ratio
    from tickwise.profiling.trace_difference import Guesses, PhaseDifference


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    a: tyro.conf.Positional[Path]
    """Folder of a trace."""
    b: tyro.conf.Positional[Path]
    """Folder of the trace to compare with it."""


def run(arguments: Arguments) -> int:
    from tickwise.profiling.trace_difference import difference
    from tickwise.profiling.trace_store import open_trace

    found = difference(open_trace(arguments.a), open_trace(arguments.b))
    if arguments.json:
        print(json.dumps(dataclasses.asdict(found)))
        return 0
    for name, (in_a, in_b) in found.settings.items():
        print(f"{name}: {_plain(in_a)} → {_plain(in_b)}")
    if any(found.guesses):
        print(f"guesses accepted: {_guesses(found.guesses[0])} in A, {_guesses(found.guesses[1])} in B")
    for phase in found.phases:
        print()
        _print_phase(phase)
    return 0


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _guesses(guesses: "Guesses | None") -> str:
    return "none made" if guesses is None else f"{guesses.accepted:,} of {guesses.made:,}"


def _print_phase(phase: "PhaseDifference") -> None:
    from tickwise.cli.trace_show import plural, show, shown_time, table

    extra = "".join(f", {n:,} only in {name}" for name, n in (("A", phase.only_a), ("B", phase.only_b)) if n)
    title = f"{phase.phase}: {plural(phase.matched, phase.unit)} in both{extra}"
    if not phase.matched:
        print(f"{title}: nothing to compare")
        return
    title += f"; figures of a typical one of {phase.compared:,}" if phase.compared > 1 else ""
    found = table("stage", "A", "B", "B − A", "B ÷ A", "95 %", "FLOPs", "bytes", right=7)
    for stage in phase.stages:
        found.add_row(stage.stage, *_times(stage.a_ns, stage.b_ns), _interval(stage.ratio),
                      _ratio(stage.a_flops, stage.b_flops), _ratio(stage.a_bytes, stage.b_bytes))
    found.add_row("all", *_times(phase.a_ns, phase.b_ns), _interval(phase.ratio), "", "")
    show(title, found)
    for line in (phase.unmatched, phase.warning, phase.sentence):
        if line:
            print(line)
    if phase.matched > 1:
        left_out = ""
        if phase.compared < phase.matched:
            left_out = (f"; {shown_time(phase.a_left_out_ns)} and {shown_time(phase.b_left_out_ns)} of that in the "
                        f"{phase.matched - phase.compared:,} that were interrupted in one of them and are not in the "
                        "figures above")
        print(f"all {plural(phase.matched, phase.unit)} together: {shown_time(phase.a_all_ns)} in A, "
              f"{shown_time(phase.b_all_ns)} in B{left_out}")


def _times(a_ns: float, b_ns: float) -> tuple[str, str, str, str]:
    """A, B, B − A and B ÷ A."""
    return (format_duration(a_ns * 1e-9), format_duration(b_ns * 1e-9), format_difference((b_ns - a_ns) * 1e-9),
            _ratio(a_ns, b_ns))


def _interval(ratio: "Ratio | None") -> str:
    return "n/a" if ratio is None else f"{ratio.low:.2f}–{ratio.high:.2f}"


def _ratio(a: float | None, b: float | None) -> str:
    """``×1.00``: B's work over A's."""
    return f"×{b / a:.2f}" if a and b is not None else "n/a"
