"""What a trace says of single ticks: the slowest ones, that of a token, and why one took longer than the others."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tickwise.core.errors import ConfigError
from tickwise.profiling.trace_phases import (
    STAGE_ORDER,
    SUMS,
    StageSummary,
    roofline_of_trace,
    stage_summary,
    typical_ticks,
)
from tickwise.profiling.trace_store import Trace

_ENOUGH_TICKS = 3
"""Of a phase, for its median to mean something."""


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
    usual = {phase: middle for phase, (_, middle) in typical_ticks(trace).items()}
    interruptions = {row["tick"]: row["interruptions"] for row in trace.ticks()}
    reports = []
    for tick in ticks:
        rows = trace.select(f"""SELECT any_value(phase) AS phase, any_value(batch) AS batch,
            any_value(kv_tokens) AS kv_tokens, stage, {SUMS} FROM ledger WHERE tick = ? GROUP BY stage""", [tick])
        text = trace.select("SELECT text FROM tokens WHERE tick = ? ORDER BY rowid", [tick])
        phase = rows[0]["phase"]
        counted = [row["flops"] for row in rows if row["flops"] is not None]
        n_ticks, usual_ns = phases[phase]["ticks"], usual[phase].stages
        by_stage = {row["stage"]: stage_summary(row, row["duration_ns"], roof) for row in rows}
        reports.append(TickReport(
            tick=tick, phase=phase, batch=rows[0]["batch"], kv_tokens=rows[0]["kv_tokens"],
            wall_ns=sum(row["duration_ns"] for row in rows), usual_wall_ns=usual[phase].wall_ns,
            ticks=n_ticks, flops=sum(counted) if counted else None, mean_flops=phases[phase]["flops"],
            interruptions=interruptions.get(tick), text="".join(row["text"] for row in text),
            stages=tuple(_against_typical(name, by_stage.get(name), usual_ns[name], 2 * ran[phase, name] < n_ticks)
                         for name in sorted(usual_ns, key=STAGE_ORDER.__getitem__)
                         if name in by_stage or usual_ns[name]),
        ))  # fmt: skip
    return reports


def _against_typical(stage: str, here: StageSummary | None, usual_ns: float, seldom: bool) -> StageAgainstTypical:
    if here is None:
        return StageAgainstTypical(stage=stage, duration_ns=0, usual_ns=usual_ns, seldom=seldom, bound=None,
                                   sentence="did not run in this tick")
    return StageAgainstTypical(stage=stage, duration_ns=here.duration_ns, usual_ns=usual_ns, seldom=seldom,
                               bound=here.bound, sentence=here.sentence)
