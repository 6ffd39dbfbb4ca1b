"""What a trace says of single ticks: the slowest ones, that of a token, and why one took longer than the others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tickwise.core.errors import ConfigError
from tickwise.core.slow_tick_words import SlowTick, compared
from tickwise.core.slow_ticks import PhaseOfTicks, typical_flops
from tickwise.core.typical import Used
from tickwise.profiling.trace_phases import (
    SUMS,
    StageSummary,
    roofline_of_trace,
    stage_summary,
    typical_ticks,
)
from tickwise.profiling.trace_store import Trace
from tickwise.profiling.usage import USAGE


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
            **{name: usage.get(row["tick"], {}).get(name) for name in USAGE}, "stages": [],
        })  # fmt: skip
        tick["wall_ns"] += row["duration_ns"]
        tick["stages"].append({key: row[key] for key in (
            "stage", "layer", "start_ns", "duration_ns", "flops", "bytes_read", "bytes_written", "bound",
            "roofline_share", "energy_j", "energy_source")})
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class TickReport:
    """One tick: what it was, and how it compares with the typical tick of its phase."""

    tick: int
    phase: str
    batch: int
    kv_tokens: int
    written: Mapping[int, str]
    """What it wrote for each request; requests are numbered from 0 in the order in which they began to write."""
    slow: SlowTick
    summaries: Mapping[str, StageSummary]
    """Of the stages that it ran."""

    @property
    def why(self) -> str:
        """Why it took longer than it had to, with what holds the blamed stage back; empty where nothing says so."""
        why = self.slow.why
        blamed = self.summaries.get(self.slow.blamed.stage)
        if not why or self.slow.unusual or self.slow.blamed.seldom or blamed is None:
            return why
        return f"{why}; {blamed.sentence}"

    @property
    def blamed(self) -> StageSummary:
        """The stage that a remedy has to begin with."""
        return self.summaries[self.slow.blamed.stage]


@dataclass(frozen=True)
class WrittenToken:
    """Where a token was written, and for which request (numbered as in ``TickReport.written``)."""

    tick: int
    request: int


_NUMBERED = """SELECT tick, text, tokens.rowid AS place, request FROM tokens JOIN (
    SELECT request_id, row_number() OVER (ORDER BY min(rowid)) - 1 AS request FROM tokens GROUP BY request_id
) USING (request_id)"""


def written_token(trace: Trace, number: int, request: int | None = None) -> WrittenToken:
    """Token ``number``, counted from 0 in the order of writing, of all tokens or of those of ``request``;
    ``ConfigError`` for one that there is not."""
    found = trace.select(f"SELECT tick, request FROM ({_NUMBERED}) WHERE request = coalesce(?, request) "
                         "ORDER BY place LIMIT 1 OFFSET ?", [request, max(0, number)])
    if number >= 0 and found:
        return WrittenToken(int(found[0]["tick"]), int(found[0]["request"]))
    (has,) = trace.select("SELECT count(DISTINCT request) AS requests, count(*) FILTER (request = coalesce(?, request))"
                          f" AS tokens FROM ({_NUMBERED})", [request])
    if not has["requests"]:
        raise ConfigError(f"--token {number}: the trace has no tokens; --tick shows a step")
    if not has["tokens"]:
        raise ConfigError(f"--request {request}: the trace has requests 0 to {has['requests'] - 1}")
    whose = "the trace" if request is None else f"request {request}"
    raise ConfigError(f"--token {number}: {whose} has tokens 0 to {has['tokens'] - 1}")


def tick_of_number(trace: Trace, number: int) -> int:
    """Tick ``number`` itself; ``ConfigError`` where there is none."""
    if not trace.select("SELECT tick FROM ledger WHERE tick = ? LIMIT 1", [number]):
        last = trace.select("SELECT max(tick) AS tick FROM ledger", [])[0]["tick"]
        raise ConfigError(f"--tick {number}: the trace has ticks 0 to {last}")
    return number


def slowest_ticks(trace: Trace, count: int, phase: str | None = None) -> list[int]:
    """Numbers of the ticks (of one phase, if given) that took longest, compared with the median of their phase."""
    found = trace.select("""WITH walls AS (SELECT tick, phase, sum(duration_ns) AS wall FROM ledger GROUP BY ALL)
        SELECT tick FROM walls JOIN (SELECT phase, median(wall) AS usual FROM walls GROUP BY phase) USING (phase)
        WHERE phase = coalesce(?, phase) ORDER BY wall / usual DESC, tick LIMIT ?""", [phase, count])
    return [row["tick"] for row in found]


def tick_reports(trace: Trace, ticks: Iterable[int]) -> list[TickReport]:
    """These ticks, stage by stage, beside the typical ticks of their phases."""
    roof = roofline_of_trace(trace)
    phases = phases_of_ticks(trace)
    usage = {row["tick"]: row for row in trace.ticks()}
    reports = []
    for tick in ticks:
        rows = trace.select("SELECT * FROM ledger WHERE tick = ? ORDER BY rowid", [tick])
        sums = trace.select(f"SELECT stage, {SUMS} FROM ledger WHERE tick = ? GROUP BY stage", [tick])
        written: dict[int, str] = {}
        for token in trace.select(f"SELECT request, text FROM ({_NUMBERED}) WHERE tick = ? ORDER BY place", [tick]):
            written[token["request"]] = written.get(token["request"], "") + token["text"]
        used = usage.get(tick, {})
        slow = compared(rows, phases[rows[0]["phase"]], Used.of(used))
        reports.append(TickReport(
            tick=tick, phase=rows[0]["phase"], batch=rows[0]["batch"], kv_tokens=rows[0]["kv_tokens"],
            written=written, slow=slow,
            summaries={row["stage"]: stage_summary(row, slow.wall_ns, roof) for row in sums},
        ))  # fmt: skip
    return reports


def phases_of_ticks(trace: Trace) -> dict[str, PhaseOfTicks]:
    """What the ticks of each phase are compared with."""
    flops = {row["tick"]: row["flops"] for row in trace.select(
        "SELECT tick, sum(flops)::DOUBLE AS flops FROM ledger GROUP BY tick HAVING count(flops) > 0")}
    ran: dict[str, dict[str, int]] = {}
    for row in trace.select("SELECT phase, stage, count(DISTINCT tick)::BIGINT AS n FROM ledger GROUP BY ALL"):
        ran.setdefault(row["phase"], {})[row["stage"]] = row["n"]
    return {phase: PhaseOfTicks(ticks=len(numbers), typical=middle, ran=ran[phase], first=numbers[0],
                                typical_flops=typical_flops([flops.get(number) for number in numbers], middle))
            for phase, (numbers, middle) in typical_ticks(trace).items()}
