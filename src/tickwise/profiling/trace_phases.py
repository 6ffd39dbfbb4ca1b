"""What a trace says of each phase: its stages, its typical tick, what disturbed it, and the time between ticks.

Everything comes back as plain data with one name per figure, so that tables and JSON show the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tickwise.core.config import from_dict
from tickwise.core.errors import DataError
from tickwise.core.stages import Stage
from tickwise.core.typical import Ticks, Typical, Used, typical
from tickwise.profiling.roofline import Roofline, StageWork, judge
from tickwise.profiling.trace_store import Trace

STAGE_ORDER = {str(stage): index for index, stage in enumerate(Stage)}


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """One stage over all layers and all ticks of a phase. Work is in total; ``None``: not counted."""

    stage: str
    duration_ns: int
    time_share: float
    """Of the phase's ticks."""
    flops: int | None
    bytes_read: int | None
    bytes_written: int | None
    energy_j: float | None
    energy_source: str
    bound: str | None
    roofline_share: float | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class TypicalTick:
    """The ticks that stand for a phase's typical one (``core/typical.py``); figures are in total over them."""

    ticks: int
    chosen_from: int
    uninterrupted: bool
    """Whether the ``chosen_from`` ticks are those that no other program interrupted, and not all of the phase."""
    wall_ns: int
    cpu_ns: float | None
    """Processor time of all threads, of one tick; ``None``: not measured."""
    stages: tuple[StageSummary, ...]
    """Their durations add up to ``wall_ns``."""


@dataclass(frozen=True, kw_only=True)
class PhaseSummary:
    """All ticks of one phase."""

    phase: str
    ticks: int
    tokens: int
    wall_ns: int
    """Sum of the ticks' wall times."""
    median_tick_ns: float
    mean_batch: float
    stages: tuple[StageSummary, ...]
    """Their durations add up to ``wall_ns``."""
    typical: TypicalTick
    interrupted: int | None
    """Ticks in which a thread of the program had to leave its core; ``None``: not counted."""
    lost_ns: float | None
    """What other programs took, as far as can be told."""
    disturbance: str
    """A sentence about that; empty where it hardly matters."""
    blames_the_machine: bool
    """Whether even the typical tick was a disturbed one."""


def roofline_of_trace(trace: Trace) -> Roofline:
    """The ceilings that the trace was recorded under."""
    return from_dict(Roofline, trace.header.get("roofline", {}), where=f"{trace.path}: roofline")


def check_has_ticks(trace: Trace) -> None:
    """``DataError`` for a trace of a program that stopped before its first tick was over."""
    if not trace.header["counts"]["ticks"]:
        raise DataError(f"{trace.path}: the trace has no ticks; record it again")


SUMS = """sum(duration_ns)::BIGINT AS duration_ns, count(DISTINCT tick)::BIGINT AS ticks,
    sum(flops)::HUGEINT AS flops, sum(bytes_read)::HUGEINT AS bytes_read, sum(bytes_written)::HUGEINT AS bytes_written,
    sum(duration_ns) FILTER (flops IS NOT NULL)::BIGINT AS counted_ns, sum(energy_j) AS energy_j,
    coalesce(min(energy_source) FILTER (energy_j IS NOT NULL), 'none') AS energy_source"""


def phase_summaries(trace: Trace) -> list[PhaseSummary]:
    """The trace in a table per phase, in the order in which the phases first ran; none for a trace without ticks."""
    roof = roofline_of_trace(trace)
    ticks = trace.select("""SELECT phase, count(*)::BIGINT AS ticks, sum(wall_ns)::BIGINT AS wall_ns,
        median(wall_ns) AS median_tick_ns, avg(batch) AS mean_batch FROM (SELECT phase, tick,
        sum(duration_ns) AS wall_ns, any_value(batch) AS batch FROM ledger GROUP BY ALL)
        GROUP BY phase ORDER BY min(tick)""")
    tokens = {row["phase"]: row["n"] for row in trace.select(
        "SELECT phase, count(*)::BIGINT AS n FROM tokens JOIN (SELECT DISTINCT tick, phase FROM ledger) USING (tick) "
        "GROUP BY phase")}
    summaries = []
    by_phase = typical_ticks(trace)
    for of_phase in ticks:
        numbers, middle = by_phase[of_phase["phase"]]
        stages = trace.select(f"SELECT stage, {SUMS} FROM ledger WHERE phase = ? GROUP BY stage", [of_phase["phase"]])
        summaries.append(PhaseSummary(
            phase=of_phase["phase"], ticks=of_phase["ticks"], tokens=tokens.get(of_phase["phase"], 0),
            wall_ns=of_phase["wall_ns"], median_tick_ns=of_phase["median_tick_ns"], mean_batch=of_phase["mean_batch"],
            stages=tuple(stage_summary(row, of_phase["wall_ns"], roof) for row in _in_order(stages)),
            typical=_typical_tick(trace, [numbers[place] for place in middle.ticks], middle, roof),
            interrupted=middle.interrupted, lost_ns=None if middle.interrupted is None else middle.lost_ns,
            disturbance=middle.sentence(len(numbers)), blames_the_machine=middle.blames_the_machine,
        ))  # fmt: skip
    return summaries


def _typical_tick(trace: Trace, chosen: list[int], middle: Typical, roof: Roofline) -> TypicalTick:
    rows = trace.select(f"SELECT stage, {SUMS} FROM ledger WHERE tick IN (SELECT unnest(?::BIGINT[])) GROUP BY stage",
                        [chosen])
    wall_ns = sum(row["duration_ns"] for row in rows)
    return TypicalTick(ticks=len(chosen), chosen_from=middle.chosen_from, uninterrupted=middle.calm, wall_ns=wall_ns,
                       cpu_ns=middle.cpu_ns,
                       stages=tuple(stage_summary(row, wall_ns, roof) for row in _in_order(rows)))


def typical_ticks(trace: Trace) -> dict[str, tuple[list[int], Typical]]:
    """By phase: the numbers of its ticks, and which of them are typical."""
    phases: dict[str, dict[int, dict[str, int]]] = {}
    for row in trace.select("SELECT phase, tick, stage, sum(duration_ns)::BIGINT AS ns FROM ledger GROUP BY ALL "
                            "ORDER BY tick"):
        phases.setdefault(row["phase"], {}).setdefault(row["tick"], {})[row["stage"]] = row["ns"]
    usage = {row["tick"]: Used.of(row) for row in trace.ticks()}
    found = {}
    for phase, ticks in phases.items():
        found[phase] = list(ticks), typical(Ticks(
            stages=list(ticks.values()), used=[usage.get(tick, Used()) for tick in ticks],
            same_work=phase != "prefill",
        ))  # fmt: skip
    return found


@dataclass(frozen=True, kw_only=True)
class Between:
    """The time between ticks, which is in no row."""

    total_ns: int
    median_ns: float
    span_ns: int
    """From the beginning of the first tick to the end of the last one."""


def between_ticks(trace: Trace) -> Between | None:
    """``None`` for fewer than two ticks. What recording itself took between ticks is left out of the total."""
    (row,) = trace.select("""WITH ticks AS (SELECT min(start_ns) AS start, sum(duration_ns)::BIGINT AS wall FROM ledger
            GROUP BY run, tick),
        gaps AS (SELECT start, wall, lead(start) OVER (ORDER BY start) - start - wall AS gap FROM ticks)
        SELECT sum(gap)::BIGINT AS total, median(gap) AS median, (max(start + wall) - min(start))::BIGINT AS span
        FROM gaps""")
    if row["total"] is None:
        return None
    pause_ns = trace.header.get("recording", {}).get("pause_ns", 0)
    return Between(total_ns=max(0, row["total"] - pause_ns), median_ns=row["median"], span_ns=row["span"] - pause_ns)


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: STAGE_ORDER[row["stage"]])


def stage_summary(row: Mapping[str, Any], wall_ns: int, roof: Roofline) -> StageSummary:
    """Of a row with ``stage`` and ``SUMS``; ``wall_ns`` is what it is a share of."""
    verdict = judge(StageWork(
        stage=Stage(row["stage"]), duration_ns=row["counted_ns"] or row["duration_ns"], flops=row["flops"],
        bytes_read=row["bytes_read"], bytes_written=row["bytes_written"], ticks=row["ticks"],
    ), roof)  # fmt: skip
    return StageSummary(
        stage=row["stage"], duration_ns=row["duration_ns"], time_share=row["duration_ns"] / max(1, wall_ns),
        flops=row["flops"], bytes_read=row["bytes_read"], bytes_written=row["bytes_written"], energy_j=row["energy_j"],
        energy_source=row["energy_source"], bound=verdict.bound, roofline_share=verdict.roofline_share,
        sentence=verdict.sentence,
    )  # fmt: skip
