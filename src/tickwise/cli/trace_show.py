"""A recorded trace as a table of stages: time, work, what bounds each, and what would make it faster."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import format_bytes, format_count, format_difference, format_duration, format_energy
from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from tickwise.profiling.trace_phases import PhaseSummary, StageSummary
    from tickwise.profiling.trace_store import Trace
    from tickwise.profiling.trace_ticks import TickReport

_ADVISED = 3
_WIDTH_OF_A_FILE = 120
_WIDEST = 10_000
_FAR_FROM_TYPICAL = 0.1
"""Share of a phase's time beyond typical ticks from which on it is said where it went."""
_WORTH_A_WORD = 0.02
"""Share of the time from which a stage gets a sentence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    trace: tyro.conf.Positional[Path]
    """Folder of a trace."""
    token: int | None = None
    """Show the tick that wrote this token, counted from 0 in the order of writing."""
    request: int | None = None
    """With --token: count the tokens of this request alone. Requests are counted from 0 as they began to write."""
    tick: int | None = None
    """Show this tick, or training step, counted from 0."""
    slowest: int | None = None
    """Show this many ticks that took longest, against the typical tick of their phase."""


def run(arguments: Arguments) -> int:
    from tickwise.profiling.trace_phases import check_has_ticks, phase_summaries
    from tickwise.profiling.trace_store import open_trace
    from tickwise.profiling.trace_ticks import slowest_ticks, tick_of_number, tick_reports, ticks_as_json, written_token

    asked = [f"--{name}" for name in ("token", "tick", "slowest") if getattr(arguments, name) is not None]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)}: give only one of them")
    if arguments.request is not None and arguments.token is None:
        raise ConfigError("--request: give --token too; it says of whose tokens")
    if arguments.slowest is not None and arguments.slowest < 1:
        raise ConfigError(f"--slowest {arguments.slowest}: must be at least 1")
    trace = open_trace(arguments.trace)
    check_has_ticks(trace)
    chosen: list[int] | None = None
    asked_for: int | None = None
    if arguments.token is not None:
        token = written_token(trace, arguments.token, arguments.request)
        chosen, asked_for = [token.tick], token.request
    elif arguments.tick is not None:
        chosen = [tick_of_number(trace, arguments.tick)]
    elif arguments.slowest is not None:
        chosen = slowest_ticks(trace, arguments.slowest)
    if arguments.json:
        print(json.dumps(trace_as_json(trace) if chosen is None else {"ticks": ticks_as_json(trace, chosen)}))
    elif chosen is None:
        print_summaries(trace, phase_summaries(trace))
    elif arguments.slowest is not None:
        _print_slowest(tick_reports(trace, chosen))
    else:
        for report in tick_reports(trace, chosen):
            _print_tick(report, str(trace.header.get("dtype")), asked_for, trace.header.get("threads"))
    return 0


def trace_as_json(trace: "Trace") -> dict[str, object]:
    """All ticks, and the stages of every phase."""
    from tickwise.profiling.trace_phases import phase_summaries
    from tickwise.profiling.trace_ticks import ticks_as_json

    return {
        "model": trace.header.get("model"), "dtype": trace.header.get("dtype"), "energy": trace.header.get("energy"),
        "phases": [dataclasses.asdict(phase) for phase in phase_summaries(trace)], "ticks": ticks_as_json(trace),
    }  # fmt: skip


def table(*columns: str, right: int) -> "Table":
    """A plain table whose columns 1 to ``right`` hold numbers; the last column may fold."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        number = 1 <= index <= right
        made.add_column(column, justify="right" if number else "left", no_wrap=index <= right, overflow="fold")
    return made


def show(title: str, body: "Table") -> None:
    """Print a table under its title, and everything in it as it is: where it is too wide, text folds and no number
    does."""
    from rich.console import Console
    from rich.measure import Measurement

    print(title)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH_OF_A_FILE)  # what a file holds is not cut off
    needed = Measurement.get(console, console.options.update(width=_WIDEST), body).minimum
    console.width = max(console.width, needed + 2 * len(body.columns))  # it leaves out some of the space between them
    console.print(body)


def shown_time(nanoseconds: float) -> str:
    """``712 µs``; ``1.3 ms`` and ``2.41 s`` for longer times."""
    return format_duration(nanoseconds * 1e-9)


def print_summaries(trace: "Trace", phases: "list[PhaseSummary]") -> None:
    """The tables of all phases, what they mean, and what would make the slowest stages faster."""
    from tickwise.profiling.trace_phases import between_ticks

    header = trace.header
    roof = header.get("roofline", {})
    busy = " on a busy machine, so they may be too low" if roof.get("disturbed") else ""
    print(f"{header.get('model')}, {header.get('dtype')} on {header.get('device')}; ceilings (measured{busy}): "
          f"{_rate(roof.get('flops_per_s'), 'FLOP/s')}, {_rate(roof.get('bytes_per_s'), 'B/s')}")
    if header.get("device") not in (None, "cpu"):
        print(header.get("timing"))
    pauses = header.get("recording", {}).get("pauses", 0)
    if pauses:
        print(f"recording paused the run between ticks, {_times(pauses)}, for "
              f"{shown_time(header['recording']['pause_ns'])} in all")
    between = between_ticks(trace)
    if between is not None:
        print(f"between ticks (in no row): {shown_time(between.median_ns)} (median), "
              f"{100 * between.total_ns / max(1, between.span_ns):.1f} % of the {shown_time(between.span_ns)} "
              "from the first tick to the last")
    if not phases:
        print("the trace has no ticks")
    for phase in phases:
        print()
        _print_phase(trace, phase, str(header.get("dtype")))


def _rate(value: float | None, unit: str) -> str:
    return "n/a" if value is None else f"{value / 1e9:,.1f} G{unit}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def plural(count: int, word: str) -> str:
    """``1 token``, ``2 tokens``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _print_phase(trace: "Trace", phase: "PhaseSummary", number_format: str) -> None:
    from tickwise.profiling.trace_ticks import slowest_ticks, tick_reports

    typical, threads = phase.typical, trace.header.get("threads")
    tick_ns = typical.wall_ns / typical.ticks
    title = f"{phase.phase}: {plural(phase.ticks, 'tick')}"
    title += f" of {shown_time(tick_ns)}" if phase.ticks == 1 else f" in {shown_time(phase.wall_ns)}"
    if phase.tokens:
        title += f", wrote {plural(phase.tokens, 'token')}"
    if phase.phase == "decode" and phase.tokens:  # how many tokens of prompts a tick reads is not known here
        title += f", {phase.tokens / (phase.wall_ns * 1e-9):,.0f} tokens/s in ticks"
    print(f"{title}{_energy(phase)}")
    if phase.disturbance:
        print(phase.disturbance)
    found = table("stage", "time", "share", "FLOPs", "bytes", "GFLOP/s", "GB/s", "ceiling", "bound", right=8)
    for stage in typical.stages:
        moved, duration = _moved(stage), max(1, stage.duration_ns)
        found.add_row(
            stage.stage, shown_time(stage.duration_ns / typical.ticks), f"{100 * stage.time_share:.1f} %",
            "n/a" if stage.flops is None else format_count(stage.flops / typical.ticks),
            "n/a" if moved is None else format_bytes(moved / typical.ticks),
            "n/a" if stage.flops is None else _billions(stage.flops / duration),
            "n/a" if moved is None else _billions(moved / duration), _ceiling(stage), stage.bound or "n/a",
        )  # fmt: skip
    found.add_row("all", shown_time(tick_ns), "100.0 %", *[""] * 6)
    show("figures of the tick" if phase.ticks == 1 else f"the typical tick, {shown_time(tick_ns)}: {_choice(phase)}",
         found)
    beyond = _beyond(phase)
    if beyond:
        print(beyond)
    said: set[str] = set()
    for stage in sorted(typical.stages, key=lambda one: -one.duration_ns):
        if stage.time_share < _WORTH_A_WORD:
            break
        print(f"{stage.stage} ({100 * stage.time_share:.0f} %): {stage.sentence}")
        advice = _advice(phase, stage, number_format, threads)
        if advice not in said and len(said) < _ADVISED:
            said.add(advice)
            print(f"    faster: {advice}")
    (slowest,) = tick_reports(trace, slowest_ticks(trace, 1, phase.phase))
    if phase.ticks > 1 or slowest.slow.unusual:
        _print_slowest_of(slowest, number_format, threads)


def _choice(phase: "PhaseSummary") -> str:
    """Of which ticks the typical one is the mean."""
    typical = phase.typical
    of = plural(typical.chosen_from, "uninterrupted tick" if typical.uninterrupted else "tick")
    return f"the mean of the {of if typical.ticks == typical.chosen_from else f'middle {typical.ticks:,} of {of}'}"


def _beyond(phase: "PhaseSummary") -> str:
    """What all ticks took more than as many typical ones, and in which stages; empty where that is little.

    A stage that the typical tick lacks, such as validation, is named however short it was.
    """
    typical = phase.typical
    usual = {stage.stage: stage.duration_ns / typical.ticks for stage in typical.stages}
    more_ns = phase.wall_ns - phase.ticks * typical.wall_ns / typical.ticks
    apart = {stage.stage for stage in phase.stages} - set(usual)
    if more_ns < _FAR_FROM_TYPICAL * phase.wall_ns:
        total_ns = {stage.stage: stage.duration_ns for stage in phase.stages}
        listed = ", ".join(f"{name} {shown_time(total_ns[name])}" for name in sorted(apart))
        return f"not in the typical tick, in all {phase.ticks:,} together: {listed}" if apart else ""
    more = sorted(((stage.duration_ns - phase.ticks * usual.get(stage.stage, 0.0), stage.stage)
                   for stage in phase.stages), reverse=True)
    named = ", ".join(f"{name} {shown_time(ns)}" for place, (ns, name) in enumerate(more)
                      if name in apart or (place < 3 and ns > 0.05 * more_ns))
    mean = shown_time(phase.wall_ns / phase.ticks)
    return (f"the {phase.ticks:,} ticks took {shown_time(phase.wall_ns)} ({mean} on average), "
            f"{shown_time(more_ns)} more than as many typical ones, most of it in {named}")


def _print_slowest_of(report: "TickReport", number_format: str, threads: int | None) -> None:
    """Which tick was slowest, in which stage, why, and what would help."""
    if len(report.written) == 1:
        slowest = f"slowest token {_wrote(report)} (tick {report.tick})"
    else:
        wrote = f", which wrote {_wrote(report)}" if report.written else ""
        slowest = f"slowest {'step' if report.phase == 'train' else 'tick'} (number {report.tick}{wrote})"
    print(f"{slowest}: {shown_time(report.slow.wall_ns)}{_against(report)}")
    _print_verdict(report, number_format, threads)


def _print_verdict(report: "TickReport", number_format: str, threads: int | None) -> None:
    from tickwise.report.timeline_advice import advice, machine_advice

    stage, blamed = report.slow.slowest_stage, report.blamed
    print(f"    slowest stage: {stage.stage} ({100 * stage.duration_ns / report.slow.wall_ns:.0f} %)")
    print(f"    why: {report.why or report.summaries[stage.stage].sentence}")
    helps = advice(report.phase, blamed.stage, blamed.bound or "unknown", number_format)
    if report.slow.remedy:
        helps = report.slow.remedy if report.slow.unusual else f"{report.slow.remedy}. {helps}"
    elif report.slow.on_a_busy_machine and blamed.bound == "overhead":
        usual = report.slow.phase.typical
        helps = machine_advice(threads, usual.wall_ns, usual.cpu_ns)
    print(f"    faster: {helps}")


def _against(report: "TickReport") -> str:
    """How the tick compares with the typical one of its phase, where there is one."""
    slow = report.slow
    if slow.phase.has_typical:
        return f", {slow.wall_ns / max(1.0, slow.usual_wall_ns):.2f}× the typical one"
    if slow.phase.ticks == 1:
        return f", the only {report.phase} tick: there is no typical one to compare it with"
    return f", one of {slow.phase.ticks} {report.phase} ticks: too few for a typical one"


def _processor(report: "TickReport") -> str:
    """What the system says about the tick; empty where it says nothing."""
    from tickwise.core.slow_tick_words import times

    slow = report.slow
    if slow.interruptions is None or slow.cpu_ns is None:
        return ""
    calm = "no other program interrupted it"
    who = f"other programs interrupted it {times(slow.interruptions)}" if slow.interruptions else calm
    threads = "; several threads add up" if slow.cpu_ns > slow.wall_ns else ""
    return (f"{who}; {shown_time(slow.cpu_ns)} of processor time in {shown_time(slow.wall_ns)} (measured, since "
            f"the tick before ended{threads})")


def _ceiling(stage: "StageSummary") -> str:
    """The share of the roofline; above 1, the reason is in the stage's sentence."""
    if stage.roofline_share is None:
        return "n/a"
    return "< 1 %" if 0 < stage.roofline_share < 0.01 else f"{100 * stage.roofline_share:.0f} %"


def _billions(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _moved(stage: "StageSummary") -> int | None:
    if stage.bytes_read is None or stage.bytes_written is None:
        return None
    return stage.bytes_read + stage.bytes_written


def _advice(phase: "PhaseSummary", stage: "StageSummary", number_format: str, threads: int | None) -> str:
    from tickwise.report.timeline_advice import advice, machine_advice

    if phase.blames_the_machine and stage.bound == "overhead":
        typical = phase.typical
        return machine_advice(threads, typical.wall_ns / typical.ticks, typical.cpu_ns)
    return advice(phase.phase, stage.stage, stage.bound or "unknown", number_format)


def _energy(phase: "PhaseSummary") -> str:
    known = [stage for stage in phase.stages if stage.energy_j is not None]
    if not known:
        return ", energy n/a"
    joules = sum(stage.energy_j or 0.0 for stage in known)
    unknown = [stage.stage for stage in phase.stages if stage.energy_j is None]
    without = f", without {' and '.join(unknown)}" if unknown else ""
    return f", {format_energy(joules / phase.ticks)} a tick ({known[0].energy_source}{without})"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_SHOWN_TEXTS = 4


def _wrote(report: "TickReport", request: int | None = None) -> str:
    """What a tick wrote: for ``request``, or for each of several, whose texts have nothing to do with each other."""
    texts = report.written
    if request is None or len(texts) == 1:
        shown = " ".join(_text(text) for text in list(texts.values())[:_SHOWN_TEXTS])
        if len(texts) == 1:
            return shown
        return f"{shown}{' …' if len(texts) > _SHOWN_TEXTS else ''} for {len(texts)} requests"
    return f"{_text(texts[request])} for request {request} (and for {plural(len(texts) - 1, 'other request')})"


def _print_tick(report: "TickReport", number_format: str, request: int | None, threads: int | None) -> None:
    slow = report.slow
    compared = slow.phase.has_typical
    columns = ("typical", "more") if compared else ()
    found = table("stage", "time", "share", *columns, "what it means", right=2 + len(columns))
    for stage in slow.stages:
        more = [shown_time(stage.usual_ns), _more(stage.excess_ns)] if compared else []
        here = report.summaries.get(stage.stage)
        if here is None and not compared:
            continue
        found.add_row(stage.stage, shown_time(stage.duration_ns), f"{100 * stage.duration_ns / slow.wall_ns:.1f} %",
                      *more, "did not run in this tick" if here is None else here.sentence)
    more = [shown_time(slow.usual_wall_ns), _more(slow.wall_ns - slow.usual_wall_ns)] if compared else []
    found.add_row("all", shown_time(slow.wall_ns), "100.0 %", *more, "")
    wrote = f", wrote {_wrote(report, request)}" if report.written else ""
    print(f"tick {report.tick} ({report.phase}){wrote}: {shown_time(slow.wall_ns)}{_against(report)}; batch "
          f"{report.batch}, {report.kv_tokens:,} tokens in view")
    used = _processor(report)
    if used:
        print(used)
    _print_verdict(report, number_format, threads)
    show("\nits stages:", found)


def _more(nanoseconds: float) -> str:
    return format_difference(nanoseconds * 1e-9)


def _print_slowest(reports: "list[TickReport]") -> None:
    found = table("tick", "time", "× typical", "phase", "wrote", "processor", "where it went", right=2)
    for report in reports:
        slow, part = report.slow, report.slow.slowest_part
        ratio = f"{slow.wall_ns / max(1.0, slow.usual_wall_ns):.2f}" if slow.phase.has_typical else "n/a"
        off = "n/a" if slow.cpu_ns is None else shown_time(slow.cpu_ns)
        wrote = _wrote(report) if report.written else "n/a"
        where = report.why or (f"{part.stage} {_more(part.excess_ns)} against the typical tick"
                               if slow.phase.has_typical else f"mostly {slow.slowest_stage.stage}")
        found.add_row(str(report.tick), shown_time(slow.wall_ns), ratio, report.phase, wrote, off, where)
    show("slowest ticks, against the typical tick of their phase; processor: time of all threads on it", found)
