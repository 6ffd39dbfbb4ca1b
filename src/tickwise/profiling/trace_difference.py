"""The difference between two traces, token by token, or tick by tick where nothing is written."""

from dataclasses import dataclass
from typing import Any

from tickwise.core.errors import ConfigError
from tickwise.profiling.trace_phases import STAGE_ORDER, check_has_ticks
from tickwise.profiling.trace_store import Trace


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
    names = sorted({stage for key in matched for stage in (*in_a[key], *in_b[key])}, key=STAGE_ORDER.__getitem__)
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
