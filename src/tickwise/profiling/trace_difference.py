"""The difference between two traces, token by token, or tick by tick where nothing is written."""

from dataclasses import dataclass
from typing import Any

from tickwise.core.console import format_duration
from tickwise.core.errors import ConfigError
from tickwise.core.typical import ENOUGH, Ticks, Typical, typical
from tickwise.profiling.trace_phases import STAGE_ORDER, check_has_ticks
from tickwise.profiling.trace_store import Trace


@dataclass(frozen=True, kw_only=True)
class StageDifference:
    """A stage of the typical token (tick, where nothing is written) of two traces; work is the mean. ``None``: not
    counted."""

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
    compared: int
    """Of the matched ones: those that no other program interrupted in either trace, where there are enough."""
    a_interrupted: int | None
    """Of the matched ones, those that were interrupted; ``None``: not counted."""
    b_interrupted: int | None
    a_ns: float
    """The typical one of those compared (``core/typical.py``); its stages add up to it."""
    b_ns: float
    a_all_ns: float
    """All matched ones together."""
    b_all_ns: float
    stages: tuple[StageDifference, ...]
    warning: str
    """What other programs did to the figures; empty where they did nothing, or where that is not known."""
    disturbed: bool
    """Whether other programs took much of even the typical ones (``core/typical.py``)."""
    sentence: str

    @property
    def is_worth_the_name(self) -> bool:
        if self.disturbed or min(self.a_ns, self.b_ns) <= 0:
            return False
        return not 1 / _NO_DIFFERENCE < self.b_ns / self.a_ns < _NO_DIFFERENCE


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
SELECT phase, request, place, stage, tick, ns / in_tick AS ns, flops / in_tick AS flops, bytes / in_tick AS bytes
FROM numbered JOIN stages USING (tick)
"""
_PER_TICK = """
SELECT phase, 0 AS request, dense_rank() OVER (PARTITION BY phase ORDER BY tick) - 1 AS place, stage,
    tick, sum(duration_ns)::DOUBLE AS ns, sum(flops)::DOUBLE AS flops, sum(bytes_read + bytes_written)::DOUBLE AS bytes
FROM ledger WHERE tick NOT IN (SELECT tick FROM tokens) GROUP BY phase, tick, stage
"""
_NO_DIFFERENCE = 1.02
"""Times whose ratio is less than this do not differ."""


@dataclass(frozen=True)
class _Unit:
    """A token or tick: its stages as (ns, FLOPs, bytes), and what the system said of its tick."""

    stages: dict[str, tuple[float, float | None, float | None]]
    interruptions: int | None
    cpu_ns: int | None


_Units = dict[tuple[int, int], _Unit]


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


def _units(trace: Trace, sql: str) -> dict[str, _Units]:
    """phase → (request, place) → what happened there."""
    usage = {row["tick"]: (row["interruptions"], row["cpu_ns"]) for row in trace.ticks()}
    found: dict[str, _Units] = {}
    for row in trace.select(sql):
        units = found.setdefault(row["phase"], {})
        key = (row["request"], row["place"])
        if key not in units:
            units[key] = _Unit({}, *usage.get(row["tick"], (None, None)))
        units[key].stages[row["stage"]] = (row["ns"], row["flops"], row["bytes"])
    return found


def _phase_difference(phase: str, unit: str, in_a: _Units, in_b: _Units) -> PhaseDifference:
    matched = [key for key in in_a if key in in_b]
    a, b = [in_a[key] for key in matched], [in_b[key] for key in matched]
    calm = [place for place in range(len(matched)) if a[place].interruptions == b[place].interruptions == 0]
    chosen = calm if len(calm) >= ENOUGH else list(range(len(matched)))
    hit = [None if any(one.interruptions is None for one in side) else sum(bool(one.interruptions) for one in side)
           for side in (a, b)]
    disturbed = bool(chosen) and any(_typical([side[place] for place in chosen]).blames_the_machine for side in (a, b))
    stages = _stages([a[place] for place in chosen], [b[place] for place in chosen])
    a_ns, b_ns = sum(s.a_ns for s in stages), sum(s.b_ns for s in stages)
    return PhaseDifference(
        phase=phase, unit=unit, matched=len(matched), only_a=len(in_a) - len(matched), only_b=len(in_b) - len(matched),
        compared=len(chosen), a_interrupted=hit[0], b_interrupted=hit[1], a_ns=a_ns, b_ns=b_ns,
        a_all_ns=_all_ns(a), b_all_ns=_all_ns(b), stages=tuple(stages),
        warning=_warning(hit, len(matched), unit, left_out=chosen is calm), disturbed=disturbed,
        sentence=_who_pays(stages, a_ns, b_ns, unit, disturbed=disturbed),
    )  # fmt: skip


def _stages(a: list[_Unit], b: list[_Unit]) -> list[StageDifference]:
    """Of the typical unit of each side; both sides hold the same units."""
    if not a:
        return []
    names = sorted({stage for unit in (*a, *b) for stage in unit.stages}, key=STAGE_ORDER.__getitem__)
    typical_a, typical_b = _typical(a).stages, _typical(b).stages
    found = []
    for name in names:
        a_flops, a_bytes = _mean_work(a, name)
        b_flops, b_bytes = _mean_work(b, name)
        found.append(StageDifference(stage=name, a_ns=typical_a.get(name, 0.0), b_ns=typical_b.get(name, 0.0),
                                     a_flops=a_flops, b_flops=b_flops, a_bytes=a_bytes, b_bytes=b_bytes))
    return found


def _typical(units: list[_Unit]) -> Typical:
    return typical(Ticks(
        stages=[{name: round(figures[0]) for name, figures in unit.stages.items()} for unit in units],
        interruptions=[unit.interruptions for unit in units], cpu_ns=[unit.cpu_ns for unit in units],
    ))  # fmt: skip


def _all_ns(units: list[_Unit]) -> float:
    return sum(figures[0] for unit in units for figures in unit.stages.values())


def _mean_work(units: list[_Unit], stage: str) -> tuple[float | None, float | None]:
    """FLOPs and bytes; a unit without the stage did nothing in it."""

    def known(column: int) -> float | None:
        counted = [figures[column] for unit in units if (figures := unit.stages.get(stage)) is not None]
        found = [value for value in counted if value is not None]
        return sum(found) / len(units) if found else None

    return known(1), known(2)


def _warning(hit: list[int | None], matched: int, unit: str, *, left_out: bool) -> str:
    told = [f"{n:,} in {name}" for n, name in zip(hit, "AB", strict=True) if n]
    if not told:
        return ""
    of_them = "of one" if matched == 1 else f"of the {matched:,}"
    text = f"{of_them} {unit}{'s' if matched > 1 else ''}, other programs interrupted {' and '.join(told)}"
    return f"{text}; " + ("they are left out" if left_out else
                          "too few were not, so these are figures of a busy machine")


def _who_pays(stages: list[StageDifference], a_ns: float, b_ns: float, unit: str, *, disturbed: bool) -> str:
    if not stages or a_ns <= 0 or b_ns <= 0:
        return f"nothing to compare: the traces have no {unit} in common"
    change = b_ns - a_ns
    slower = change > 0
    ratio = b_ns / a_ns if slower else a_ns / b_ns
    text = f"B takes {format_duration(b_ns * 1e-9)} for a typical {unit} where A takes {format_duration(a_ns * 1e-9)}"
    if disturbed:
        return f"{text}, with what other programs took: record both again with nothing else running to see who pays"
    if ratio < _NO_DIFFERENCE:
        return f"{text}: no difference worth the name"
    text += f": {ratio:.2f}× as {'slow' if slower else 'fast'}"
    most = max(stages, key=lambda stage: stage.difference_ns * (1 if slower else -1))
    share = most.difference_ns / change
    verb = "pays" if slower else "gains"
    moved = f"{most.difference_ns / 1e3:+,.0f} µs, {100 * share:.0f} % of the difference"
    return f"{text}; {most.stage} {verb} most ({moved})"
