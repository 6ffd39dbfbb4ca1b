"""What a trace says: its stages, its slowest ticks, one token, and the difference between two traces.

Everything comes back as plain data with one name per figure, so that tables and JSON show the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tickwise.core.config import from_dict
from tickwise.core.errors import ConfigError, DataError
from tickwise.core.stages import Stage
from tickwise.core.typical import Ticks, Typical, typical
from tickwise.profiling.roofline import Roofline, StageWork, judge
from tickwise.profiling.trace_store import Trace

_ORDER = {str(stage): index for index, stage in enumerate(Stage)}
_ENOUGH_TICKS = 3
"""Of a phase, for its median to mean something."""


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


_SUMS = """sum(duration_ns)::BIGINT AS duration_ns, count(DISTINCT tick)::BIGINT AS ticks,
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
    by_phase = _typical_ticks(trace)
    for of_phase in ticks:
        numbers, middle = by_phase[of_phase["phase"]]
        stages = trace.select(f"SELECT stage, {_SUMS} FROM ledger WHERE phase = ? GROUP BY stage", [of_phase["phase"]])
        summaries.append(PhaseSummary(
            phase=of_phase["phase"], ticks=of_phase["ticks"], tokens=tokens.get(of_phase["phase"], 0),
            wall_ns=of_phase["wall_ns"], median_tick_ns=of_phase["median_tick_ns"], mean_batch=of_phase["mean_batch"],
            stages=tuple(_stage_summary(row, of_phase["wall_ns"], roof) for row in _in_order(stages)),
            typical=_typical_tick(trace, [numbers[place] for place in middle.ticks], middle, roof),
            interrupted=middle.interrupted, lost_ns=None if middle.interrupted is None else middle.lost_ns,
            disturbance=middle.sentence(len(numbers)), blames_the_machine=middle.blames_the_machine,
        ))  # fmt: skip
    return summaries


def _typical_tick(trace: Trace, chosen: list[int], middle: Typical, roof: Roofline) -> TypicalTick:
    rows = trace.select(f"SELECT stage, {_SUMS} FROM ledger WHERE tick IN (SELECT unnest(?::BIGINT[])) GROUP BY stage",
                        [chosen])
    wall_ns = sum(row["duration_ns"] for row in rows)
    return TypicalTick(ticks=len(chosen), chosen_from=middle.chosen_from, uninterrupted=middle.calm, wall_ns=wall_ns,
                       stages=tuple(_stage_summary(row, wall_ns, roof) for row in _in_order(rows)))


def _typical_ticks(trace: Trace) -> dict[str, tuple[list[int], Typical]]:
    """By phase: the numbers of its ticks, and which of them are typical."""
    phases: dict[str, dict[int, dict[str, int]]] = {}
    for row in trace.select("SELECT phase, tick, stage, sum(duration_ns)::BIGINT AS ns FROM ledger GROUP BY ALL "
                            "ORDER BY tick"):
        phases.setdefault(row["phase"], {}).setdefault(row["tick"], {})[row["stage"]] = row["ns"]
    usage = {row["tick"]: (row["interruptions"], row["cpu_ns"]) for row in trace.ticks()}
    found = {}
    for phase, ticks in phases.items():
        used = [usage.get(tick, (None, None)) for tick in ticks]
        found[phase] = list(ticks), typical(Ticks(
            stages=list(ticks.values()), interruptions=[one for one, _ in used], cpu_ns=[two for _, two in used],
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
    return sorted(rows, key=lambda row: _ORDER[row["stage"]])


def _stage_summary(row: Mapping[str, Any], wall_ns: int, roof: Roofline) -> StageSummary:
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


def ticks_as_json(trace: Trace, ticks: Iterable[int] | None = None) -> list[dict[str, Any]]:
    """``[{"tick", "phase", "wall_ns", "stages": [...]}]`` of these ticks, or of all."""
    chosen = None if ticks is None else list(ticks)
    usage = {row["tick"]: row for row in trace.ticks()}
    rows = trace.select("SELECT * FROM ledger WHERE ?::BIGINT[] IS NULL OR list_contains(?::BIGINT[], tick) "
                        "ORDER BY rowid", [chosen, chosen])
    said: dict[int, list[dict[str, Any]]] = {}
    for token in trace.tokens():
        said.setdefault(token.pop("tick"), []).append(token)
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        tick = found.setdefault(row["tick"], {
            "tick": row["tick"], "phase": row["phase"], "wall_ns": 0, "batch": row["batch"],
            "kv_tokens": row["kv_tokens"], "request_ids": row["request_ids"], "tokens": said.get(row["tick"], []),
            "interruptions": usage.get(row["tick"], {}).get("interruptions"),
            "cpu_ns": usage.get(row["tick"], {}).get("cpu_ns"),
            "stages": [],
        })  # fmt: skip
        tick["wall_ns"] += row["duration_ns"]
        tick["stages"].append({key: row[key] for key in (
            "stage", "layer", "start_ns", "duration_ns", "flops", "bytes_read", "bytes_written", "bound",
            "roofline_share", "energy_j", "energy_source")})
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class StageAgainstTypical:
    """A stage of one tick beside the same stage of the typical tick of its phase."""

    stage: str
    duration_ns: int
    """0 where this tick did without the stage."""
    usual_ns: float
    seldom: bool
    """Whether most ticks of the phase do without the stage."""
    bound: str | None
    sentence: str

    @property
    def excess_ns(self) -> float:
        return self.duration_ns - self.usual_ns


@dataclass(frozen=True, kw_only=True)
class TickReport:
    """One tick, compared with the typical tick of its phase, so that what the stages took more adds up."""

    tick: int
    phase: str
    batch: int
    kv_tokens: int
    wall_ns: int
    usual_wall_ns: float
    ticks: int
    """Of the phase."""
    flops: int | None
    mean_flops: float | None
    """Of the phase's ticks."""
    interruptions: int | None
    """How often a thread of the program had to leave its core; ``None``: not counted."""
    text: str
    """Of the tokens that it wrote."""
    stages: tuple[StageAgainstTypical, ...]

    @property
    def slowest_stage(self) -> StageAgainstTypical:
        return max(self.stages, key=lambda stage: stage.duration_ns)

    @property
    def slowest_part(self) -> StageAgainstTypical:
        """The stage that took the most time more than usual."""
        return max(self.stages, key=lambda stage: stage.excess_ns)

    @property
    def _same_work(self) -> bool:
        return self.flops is None or self.flops <= 1.25 * (self.mean_flops or 0)

    @property
    def _over_ns(self) -> float:
        """Above the typical tick, where that is worth the name; else 0."""
        over_ns = self.wall_ns - self.usual_wall_ns
        return over_ns if self.ticks >= _ENOUGH_TICKS and over_ns >= 0.1 * self.usual_wall_ns else 0.0

    @property
    def _stretched(self) -> list[StageAgainstTypical]:
        """Stages that took more than three times as long as usual, and what they took more is worth the name; the
        longest first."""
        least_ns = 0.1 * self._over_ns
        found = [stage for stage in self.stages
                 if not stage.seldom and stage.duration_ns > 3 * stage.usual_ns and stage.excess_ns > least_ns]
        return sorted(found, key=lambda stage: -stage.excess_ns)

    @property
    def _everywhere(self) -> bool:
        """Whether nearly every stage took longer than usual, and no few of them hold most of it."""
        longer_ns = sum(stage.usual_ns for stage in self.stages if stage.duration_ns > 1.4 * stage.usual_ns)
        ratio = self.wall_ns / max(1.0, self.usual_wall_ns)
        apart_ns = sum(stage.excess_ns for stage in self.stages if stage.duration_ns > 2 * ratio * stage.usual_ns)
        return longer_ns > 0.75 * self.usual_wall_ns and apart_ns < 0.5 * self._over_ns

    @property
    def _in_stages(self) -> bool:
        """Whether a few stages that took far longer than usual hold most of what the tick took more."""
        return sum(stage.excess_ns for stage in self._stretched) > 0.5 * self._over_ns

    @property
    def _taken(self) -> bool:
        """Whether it was interrupted where it lost most, and neither bytes nor arithmetic held that stage back."""
        part = self.slowest_part
        return bool(self.interruptions) and not part.seldom and part.bound in (None, "overhead")

    @property
    def unusual(self) -> bool:
        """Whether it took longer than usual for no more work than usual, which the model cannot have caused."""
        return bool(self._over_ns) and self._same_work and (self._everywhere or self._in_stages or self._taken)

    @property
    def unusual_ns(self) -> float:
        """What it would save if what was ``unusual`` had taken its usual time."""
        if self._everywhere or not self._in_stages:
            return self._over_ns
        return min(self._over_ns, sum(stage.excess_ns for stage in self._stretched))

    @property
    def why(self) -> str:
        """Why it took longer than the others, in a sentence; empty where it did not, or where there are few others."""
        over_ns, part = self._over_ns, self.slowest_part
        if not over_ns:
            return ""
        if self.unusual and self._everywhere:
            return f"nearly every stage took longer than usual, for no more work than usual: {self._cause('processor')}"
        if self.unusual and self._in_stages and len(self._stretched) > 1:
            few = self._stretched[:3]
            names = f"{', '.join(stage.stage for stage in few[:-1])} and {few[-1].stage}"
            took, n = sum(stage.duration_ns for stage in few), "two" if len(few) == 2 else "three"
            times = took / max(1.0, sum(stage.usual_ns for stage in few))
            return (f"{n} stages took far longer than usual: {names} hold {took / 1e6:,.3g} of the "
                    f"{self.wall_ns / 1e6:,.3g} ms, {times:.0f} × their usual time for no more work: {self._cause()}")
        above = f"{over_ns / 1e3:,.0f} µs above the typical tick are"
        of_it = "all" if part.excess_ns > 0.95 * over_ns else f"{part.excess_ns / 1e3:,.0f}"
        text = f"{of_it} of the {above} in {part.stage}"
        if part.seldom:
            return f"{text}, which most ticks do without"
        if self.unusual:
            if not self._in_stages:
                return f"{text}: {self._cause()}"
            return (f"{text}, which took {part.duration_ns / max(1.0, part.usual_ns):.0f} × its usual time for no more "
                    f"work: {self._cause()}")
        return f"{text}; {part.sentence}"

    def _cause(self, of: str = "core") -> str:
        if self.interruptions is None:
            return ("most likely another program used the processor" if of == "processor" else
                    "most likely an interruption or a first use")
        if self.interruptions:
            times = "once" if self.interruptions == 1 else f"{self.interruptions:,} times"
            return f"another program held the {of} (interrupted {times})"
        return "most likely a first use, or waiting for memory; no other program interrupted it"


def tick_of_token(trace: Trace, number: int) -> int:
    """The tick that wrote token ``number``, counted from 0 in the order of writing; ``ConfigError`` past the end."""
    found = trace.select("SELECT tick FROM tokens ORDER BY rowid LIMIT 1 OFFSET ?",
                         [max(0, number)])
    if number < 0 or not found:
        n = trace.header["counts"]["tokens"]
        raise ConfigError(f"--token {number}: the trace has tokens 0 to {n - 1}" if n else
                          f"--token {number}: the trace has no tokens")
    return int(found[0]["tick"])


def slowest_ticks(trace: Trace, count: int, phase: str | None = None) -> list[int]:
    """Numbers of the ticks (of one phase, if given) that took longest, compared with the median of their phase."""
    found = trace.select("""WITH walls AS (SELECT tick, phase, sum(duration_ns) AS wall FROM ledger GROUP BY ALL)
        SELECT tick FROM walls JOIN (SELECT phase, median(wall) AS usual FROM walls GROUP BY phase) USING (phase)
        WHERE phase = coalesce(?, phase) ORDER BY wall / usual DESC, tick LIMIT ?""", [phase, count])
    return [row["tick"] for row in found]


def tick_reports(trace: Trace, ticks: Iterable[int]) -> list[TickReport]:
    """These ticks, stage by stage, beside the typical ticks of their phases."""
    roof = roofline_of_trace(trace)
    phases = {row["phase"]: row for row in trace.select(
        "SELECT phase, count(*)::BIGINT AS ticks, avg(flops) AS flops FROM (SELECT phase, sum(flops) AS flops "
        "FROM ledger GROUP BY phase, tick) GROUP BY phase")}
    ran = {(row["phase"], row["stage"]): row["n"] for row in trace.select(
        "SELECT phase, stage, count(DISTINCT tick)::BIGINT AS n FROM ledger GROUP BY ALL")}
    usual = {phase: middle for phase, (_, middle) in _typical_ticks(trace).items()}
    interruptions = {row["tick"]: row["interruptions"] for row in trace.ticks()}
    reports = []
    for tick in ticks:
        rows = trace.select(f"""SELECT any_value(phase) AS phase, any_value(batch) AS batch,
            any_value(kv_tokens) AS kv_tokens, stage, {_SUMS} FROM ledger WHERE tick = ? GROUP BY stage""", [tick])
        text = trace.select("SELECT text FROM tokens WHERE tick = ? ORDER BY rowid", [tick])
        phase = rows[0]["phase"]
        counted = [row["flops"] for row in rows if row["flops"] is not None]
        n_ticks, usual_ns = phases[phase]["ticks"], usual[phase].stages
        by_stage = {row["stage"]: _stage_summary(row, row["duration_ns"], roof) for row in rows}
        reports.append(TickReport(
            tick=tick, phase=phase, batch=rows[0]["batch"], kv_tokens=rows[0]["kv_tokens"],
            wall_ns=sum(row["duration_ns"] for row in rows), usual_wall_ns=usual[phase].wall_ns,
            ticks=n_ticks, flops=sum(counted) if counted else None, mean_flops=phases[phase]["flops"],
            interruptions=interruptions.get(tick), text="".join(row["text"] for row in text),
            stages=tuple(_against_typical(name, by_stage.get(name), usual_ns[name], 2 * ran[phase, name] < n_ticks)
                         for name in sorted(usual_ns, key=_ORDER.__getitem__) if name in by_stage or usual_ns[name]),
        ))  # fmt: skip
    return reports


def _against_typical(stage: str, here: StageSummary | None, usual_ns: float, seldom: bool) -> StageAgainstTypical:
    if here is None:
        return StageAgainstTypical(stage=stage, duration_ns=0, usual_ns=usual_ns, seldom=seldom, bound=None,
                                   sentence="did not run in this tick")
    return StageAgainstTypical(stage=stage, duration_ns=here.duration_ns, usual_ns=usual_ns, seldom=seldom,
                               bound=here.bound, sentence=here.sentence)


@dataclass(frozen=True, kw_only=True)
class StageDifference:
    """A stage in two traces, per token (per tick where nothing is written). ``None``: not counted."""

    stage: str
    a_ns: float
    b_ns: float
    a_flops: float | None
    b_flops: float | None
    a_bytes: float | None
    b_bytes: float | None

    @property
    def difference_ns(self) -> float:
        return self.b_ns - self.a_ns


@dataclass(frozen=True, kw_only=True)
class PhaseDifference:
    """One phase of two traces, over what they have in common."""

    phase: str
    unit: str
    """``token`` or ``tick``."""
    matched: int
    only_a: int
    only_b: int
    a_ns: float
    b_ns: float
    stages: tuple[StageDifference, ...]
    sentence: str


@dataclass(frozen=True, kw_only=True)
class TraceDifference:
    """What differs between trace A and trace B."""

    settings: dict[str, tuple[Any, Any]]
    """What was set differently, by name: (in A, in B)."""
    phases: tuple[PhaseDifference, ...]


_PER_TOKEN = """
WITH stages AS (SELECT tick, phase, stage, sum(duration_ns) AS ns, sum(flops)::DOUBLE AS flops,
        sum(bytes_read + bytes_written)::DOUBLE AS bytes FROM ledger GROUP BY tick, phase, stage),
    numbered AS (SELECT tick, dense_rank() OVER (ORDER BY first_tick, request_id) - 1 AS request,
        row_number() OVER (PARTITION BY request_id ORDER BY tick, position) - 1 AS place,
        count(*) OVER (PARTITION BY tick) AS in_tick
        FROM tokens JOIN (SELECT request_id, min(tick) AS first_tick FROM tokens GROUP BY ALL) USING (request_id))
SELECT phase, request, place, stage, ns / in_tick AS ns, flops / in_tick AS flops, bytes / in_tick AS bytes
FROM numbered JOIN stages USING (tick)
"""
_PER_TICK = """
SELECT phase, 0 AS request, dense_rank() OVER (PARTITION BY phase ORDER BY tick) - 1 AS place, stage,
    sum(duration_ns)::DOUBLE AS ns, sum(flops)::DOUBLE AS flops, sum(bytes_read + bytes_written)::DOUBLE AS bytes
FROM ledger WHERE tick NOT IN (SELECT tick FROM tokens) GROUP BY phase, tick, stage
"""
_Unit = dict[tuple[int, int], dict[str, tuple[float, float | None, float | None]]]


def difference(a: Trace, b: Trace) -> TraceDifference:
    """Compare token by token (the n-th token of the n-th request), and tick by tick what writes no tokens.

    ``ConfigError`` for traces that have no phase in common, ``DataError`` for one without ticks.
    """
    phases = []
    in_both = [_phases(trace) for trace in (a, b)]
    if not set(in_both[0]) & set(in_both[1]):
        has = [f"{trace.path} has {' and '.join(names)} ticks" for trace, names in zip((a, b), in_both, strict=True)]
        raise ConfigError(f"{has[0]}, {has[1].replace(' has ', ' ', 1)}: nothing to compare")
    for unit, sql in (("token", _PER_TOKEN), ("tick", _PER_TICK)):
        in_a, in_b = _units(a, sql), _units(b, sql)
        for phase in dict.fromkeys([*in_a, *in_b]):
            phases.append(_phase_difference(phase, unit, in_a.get(phase, {}), in_b.get(phase, {})))
    if not any(phase.matched for phase in phases):
        raise ConfigError(f"{a.path} and {b.path} have no token or tick in common (one of them wrote by beam search, "
                          "which settles its tokens at the end): nothing to compare")
    names = ("model", "dtype", "device", "threads", "machine", "versions", "command")
    settings = {name: (a.header.get(name), b.header.get(name)) for name in names
                if a.header.get(name) != b.header.get(name)}
    return TraceDifference(settings=settings, phases=tuple(phases))


def _phases(trace: Trace) -> list[str]:
    """In the order in which they first ran."""
    check_has_ticks(trace)
    return [row["phase"] for row in trace.select("SELECT phase FROM ledger GROUP BY phase ORDER BY min(tick)")]


def _units(trace: Trace, sql: str) -> dict[str, _Unit]:
    """Phase → (request, place) → stage → (ns, FLOPs, bytes)."""
    found: dict[str, _Unit] = {}
    for row in trace.select(sql):
        unit = found.setdefault(row["phase"], {}).setdefault((row["request"], row["place"]), {})
        unit[row["stage"]] = (row["ns"], row["flops"], row["bytes"])
    return found


def _phase_difference(phase: str, unit: str, in_a: _Unit, in_b: _Unit) -> PhaseDifference:
    matched = [key for key in in_a if key in in_b]
    names = sorted({stage for key in matched for stage in (*in_a[key], *in_b[key])}, key=_ORDER.__getitem__)
    stages = []
    for name in names:
        a_ns, a_flops, a_bytes = _mean([in_a[key].get(name) for key in matched])
        b_ns, b_flops, b_bytes = _mean([in_b[key].get(name) for key in matched])
        stages.append(StageDifference(stage=name, a_ns=a_ns, b_ns=b_ns, a_flops=a_flops, b_flops=b_flops,
                                      a_bytes=a_bytes, b_bytes=b_bytes))
    a_total, b_total = sum(s.a_ns for s in stages), sum(s.b_ns for s in stages)
    return PhaseDifference(
        phase=phase, unit=unit, matched=len(matched), only_a=len(in_a) - len(matched), only_b=len(in_b) - len(matched),
        a_ns=a_total, b_ns=b_total, stages=tuple(stages), sentence=_who_pays(stages, a_total, b_total, unit),
    )  # fmt: skip


def _mean(values: list[tuple[float, float | None, float | None] | None]) -> tuple[float, float | None, float | None]:
    """A unit without the stage spent nothing in it."""
    there = [value for value in values if value is not None]
    n = max(1, len(values))

    def known(column: list[float | None]) -> float | None:
        counted = [value for value in column if value is not None]
        return sum(counted) / n if counted else None

    return sum(v[0] for v in there) / n, known([v[1] for v in there]), known([v[2] for v in there])


def _who_pays(stages: list[StageDifference], a_ns: float, b_ns: float, unit: str) -> str:
    if not stages or a_ns <= 0 or b_ns <= 0:
        return f"nothing to compare: the traces have no {unit} in common"
    change = b_ns - a_ns
    slower = change > 0
    ratio = b_ns / a_ns if slower else a_ns / b_ns
    text = f"B takes {b_ns / 1e3:,.0f} µs a {unit} where A takes {a_ns / 1e3:,.0f} µs"
    if ratio < 1.02:
        return f"{text}: no difference worth the name"
    text += f": {ratio:.2f}× as {'slow' if slower else 'fast'}"
    most = max(stages, key=lambda stage: stage.difference_ns * (1 if slower else -1))
    share = most.difference_ns / change
    verb = "pays" if slower else "gains"
    moved = f"{most.difference_ns / 1e3:+,.0f} µs, {100 * share:.0f} % of the difference"
    return f"{text}; {most.stage} {verb} most ({moved})"
