"""The difference between two traces, token by token, or tick by tick where nothing is written."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy

from tickwise.core.console import format_difference, format_duration
from tickwise.core.errors import ConfigError
from tickwise.core.typical import ENOUGH, Ticks, typical
from tickwise.profiling.scatter import FEWEST, Floats, Ratio, Scatter, middle, scatter
from tickwise.profiling.trace_phases import STAGE_ORDER, check_has_ticks
from tickwise.profiling.trace_store import Trace
from tickwise.profiling.trace_units import Figures, Unit, Units, token_and_tick_units


@dataclass(frozen=True, kw_only=True)
class StageDifference:
    """A stage of the typical token (tick, where nothing is written) of two traces; work is the median. ``None``:
    not counted."""

    stage: str
    a_ns: float
    b_ns: float
    a_flops: float | None
    b_flops: float | None
    a_bytes: float | None
    b_bytes: float | None
    ratio: Ratio | None
    """B's time over A's; ``None``: too few ticks to know its interval, or it did not run in both."""

    @property
    def difference_ns(self) -> float:
        return self.b_ns - self.a_ns

    @property
    def has_equal_work(self) -> bool:
        """Whether what was counted of it is the same in both, to 1 %."""
        return all(_equal(a, b) for a, b in ((self.a_flops, self.b_flops), (self.a_bytes, self.b_bytes)))


def _equal(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and abs(a - b) <= 0.01 * max(a, b))


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
    a_left_out_ns: float
    """Of these, the ones that were interrupted in either trace and are not compared."""
    b_left_out_ns: float
    a_tick_ns: float
    """The tick that the typical one was written in, which may have written others too."""
    b_tick_ns: float
    ratio: Ratio | None
    """Of the typical ones; ``None``: too few ticks to know its interval."""
    stages: tuple[StageDifference, ...]
    stands_out: tuple[str, ...]
    """Stages that moved by more than the scatter, and more than the stages of equal work did."""
    unmatched: str
    """Why some are only in one of them; empty where none are."""
    warning: str
    """What other programs did to the figures; empty where they did nothing, or where that is not known."""
    disturbed: bool
    """Whether other programs took much of even the typical ones (``core/typical.py``)."""
    sentence: str


@dataclass(frozen=True)
class Guesses:
    """Tokens that were guessed and checked, and those of them that became text."""

    made: int
    accepted: int


@dataclass(frozen=True, kw_only=True)
class TraceDifference:
    """What differs between trace A and trace B."""

    settings: dict[str, tuple[Any, Any]]
    """What was set differently, by name: (in A, in B)."""
    phases: tuple[PhaseDifference, ...]
    guesses: tuple[Guesses | None, Guesses | None]
    """In A and in B, as the FLOPs of the head tell; ``None``: nothing was guessed, or that is not known."""


# The head reads the last token of every text, and the guesses behind it; the first tick of a text has no guesses.
_GUESSES = """
WITH written AS (SELECT tick, count(*) AS tokens, count(DISTINCT request_id) AS texts FROM tokens GROUP BY tick),
    heads AS (SELECT tick, sum(flops)::DOUBLE AS flops FROM ledger WHERE stage = 'head' GROUP BY tick),
    ticks AS (SELECT tokens - texts AS accepted, texts, flops, min(flops / texts) OVER () AS each
        FROM written JOIN heads USING (tick))
SELECT sum(accepted)::BIGINT AS accepted, sum(greatest(0, round(flops / each) - texts))::BIGINT AS made FROM ticks
WHERE EXISTS (FROM ledger WHERE stage = 'draft')
"""


def difference(a: Trace, b: Trace) -> TraceDifference:
    """Compare token by token (the n-th token of the n-th request), and tick by tick what writes no tokens.

    ``ConfigError`` for traces that have no phase in common, ``DataError`` for one without ticks.
    """
    phases = []
    in_both = [_phases(trace) for trace in (a, b)]
    if not set(in_both[0]) & set(in_both[1]):
        has = [f"{trace.path} has {' and '.join(names)} ticks" for trace, names in zip((a, b), in_both, strict=True)]
        raise ConfigError(f"{has[0]}, {has[1].replace(' has ', ' ', 1)}: nothing to compare")
    names = ("model", "dtype", "device", "threads", "machine", "versions", "command")
    settings = {name: (a.header.get(name), b.header.get(name)) for name in names
                if a.header.get(name) != b.header.get(name)}
    alike = not set(settings) - {"command"} and _without_output(a) == _without_output(b)
    for unit, in_a, in_b in zip(("token", "tick"), token_and_tick_units(a), token_and_tick_units(b), strict=True):
        for phase in dict.fromkeys([*in_a, *in_b]):
            phases.append(_phase_difference(phase, unit, in_a, in_b, alike=alike))
    if not any(phase.matched for phase in phases):
        raise ConfigError(f"{a.path} and {b.path} have no token or tick in common: nothing to compare")
    return TraceDifference(settings=settings, phases=tuple(phases), guesses=(_guesses(a), _guesses(b)))


def _without_output(trace: Trace) -> list[str]:
    """The command without the folder that the trace went to."""
    try:
        words = shlex.split(str(trace.header.get("command")))
    except ValueError:
        return [str(trace.header.get("command"))]
    return [word for place, word in enumerate(words)
            if not word.startswith(("--out=", "--trace=")) and word not in ("--out", "--trace", "--overwrite")
            and (not place or words[place - 1] not in ("--out", "--trace"))]


def _guesses(trace: Trace) -> Guesses | None:
    (row,) = trace.select(_GUESSES)
    return None if row["made"] is None else Guesses(row["made"], row["accepted"])


def _phases(trace: Trace) -> list[str]:
    """In the order in which they first ran."""
    check_has_ticks(trace)
    return [row["phase"] for row in trace.select("SELECT phase FROM ledger GROUP BY phase ORDER BY min(tick)")]


def _phase_difference(phase: str, unit: str, all_a: dict[str, Units], all_b: dict[str, Units], *,
                      alike: bool) -> PhaseDifference:
    in_a, in_b = all_a.get(phase, {}), all_b.get(phase, {})
    matched = [key for key in in_a if key in in_b]
    a, b = [in_a[key] for key in matched], [in_b[key] for key in matched]
    calm = [place for place in range(len(matched)) if a[place].used.interruptions == b[place].used.interruptions == 0]
    left_out = len(calm) >= ENOUGH
    chosen = calm if left_out else list(range(len(matched)))
    hit = [None if any(one.used.interruptions is None for one in side)
           else sum(bool(one.used.interruptions) for one in side) for side in (a, b)]
    of_a, of_b = [a[place] for place in chosen], [b[place] for place in chosen]
    disturbed = bool(chosen) and any(_disturbed(side) for side in (of_a, of_b))
    stages, found = _stages(of_a, of_b)
    names = [stages[place].stage for place in found.stands_out] if found and not disturbed else []
    ticks = [float(middle(numpy.array([[one.tick_ns] for one in side]))[0]) if side else 0.0
             for side in (of_a, of_b)]
    difference = PhaseDifference(
        phase=phase, unit=unit, matched=len(matched), only_a=len(in_a) - len(matched), only_b=len(in_b) - len(matched),
        compared=len(chosen), a_interrupted=hit[0], b_interrupted=hit[1], a_ns=sum(s.a_ns for s in stages),
        b_ns=sum(s.b_ns for s in stages), a_all_ns=sum(one.ns for one in a), b_all_ns=sum(one.ns for one in b),
        a_left_out_ns=sum(one.ns for one in a) - sum(one.ns for one in of_a),
        b_left_out_ns=sum(one.ns for one in b) - sum(one.ns for one in of_b), a_tick_ns=ticks[0], b_tick_ns=ticks[1],
        ratio=found.whole if found else None, stages=tuple(stages), stands_out=tuple(names),
        unmatched=_unmatched(phase, unit, all_a, all_b), disturbed=disturbed,
        warning=_warning(hit, len(matched), unit, left_out=left_out), sentence="",
    )  # fmt: skip
    return replace(difference, sentence=_sentence(difference, found, [*of_a, *of_b], _n_ticks(of_a, of_b), alike=alike))


def _n_ticks(a: list[Unit], b: list[Unit]) -> int:
    return min(len({tick for one in side for tick in one.ticks}) for side in (a, b))


def _stages(a: list[Unit], b: list[Unit]) -> tuple[list[StageDifference], Scatter | None]:
    """Of the typical unit of each side, and what their scatter says; both sides hold the same units, in order."""
    if not a:
        return [], None
    names = sorted({stage for unit in (*a, *b) for stage in unit.stages}, key=STAGE_ORDER.__getitem__)
    a_US, b_US = _times(a, names), _times(b, names)
    stages = []
    for name, a_ns, b_ns in zip(names, middle(a_US), middle(b_US), strict=True):
        a_flops, a_bytes = _work(a, name)
        b_flops, b_bytes = _work(b, name)
        stages.append(StageDifference(stage=name, a_ns=float(a_ns), b_ns=float(b_ns), a_flops=a_flops, b_flops=b_flops,
                                      a_bytes=a_bytes, b_bytes=b_bytes, ratio=None))
    counted = [s for s in stages if s.a_bytes is not None or s.b_bytes is not None]
    same = all(s.has_equal_work for s in counted)  # else nobody knows what the uncounted ones did
    found = scatter(a_US, b_US, [s.has_equal_work and (same or s in counted) for s in stages], _n_ticks(a, b))
    if found is None:
        return stages, None
    return [replace(stage, ratio=ratio) for stage, ratio in zip(stages, found.stages, strict=True)], found


def _times(units: list[Unit], names: list[str]) -> Floats:
    return numpy.array([[unit.stages[name].ns if name in unit.stages else 0.0 for name in names] for unit in units],
                       dtype=numpy.float64)


def _disturbed(units: list[Unit]) -> bool:
    """Whether other programs took much of the ticks of these, all of which are compared."""
    return typical(Ticks(
        stages=[{name: round(figures.ns * unit.tick_ns / max(1.0, unit.ns)) for name, figures in unit.stages.items()}
                for unit in units],
        used=[unit.used for unit in units],
    )).disturbed  # fmt: skip


def _unmatched(phase: str, unit: str, all_a: dict[str, Units], all_b: dict[str, Units]) -> str:
    """Why some are in one trace only."""
    said, beside_prompts = [], False
    for name, mine, other, theirs in (("A", all_a, "B", all_b), ("B", all_b, "A", all_a)):
        only = [key for key in mine.get(phase, {}) if key not in theirs.get(phase, {})]
        elsewhere = [where for key in only for where, units in theirs.items() if where != phase and key in units]
        parts = [f"{elsewhere.count(where):,} that {other} wrote in a {where} tick"
                 for where in dict.fromkeys(elsewhere)]
        if len(only) > len(elsewhere):
            parts.append(f"{len(only) - len(elsewhere):,} that {other} does not have")
        if parts:
            said.append(f"only in {name}: {' and '.join(parts)}")
        beside_prompts = beside_prompts or bool(elsewhere)
    if beside_prompts:
        said.append("a tick that reads any prompt counts as prefill, also for the texts that go on in it")
    return "; ".join(said)


def _work(units: list[Unit], stage: str) -> tuple[float | None, float | None]:
    """FLOPs and bytes; a unit without the stage did nothing in it."""

    done = [unit.stages.get(stage, Figures(0.0, 0.0, 0.0)) for unit in units]
    flops = [figures.flops for figures in done if figures.flops is not None]
    n_bytes = [figures.n_bytes for figures in done if figures.n_bytes is not None]
    return median(flops) if flops else None, median(n_bytes) if n_bytes else None


def _warning(hit: list[int | None], matched: int, unit: str, *, left_out: bool) -> str:
    told = [f"{n:,} in {name}" for n, name in zip(hit, "AB", strict=True) if n]
    if not told:
        return ""
    of_them = "of one" if matched == 1 else f"of the {matched:,}"
    text = f"{of_them} {unit}{'s' if matched > 1 else ''}, other programs interrupted {' and '.join(told)}"
    return f"{text}; " + ("they are left out" if left_out else
                          "too few were not, so these are figures of a busy machine")


def _sentence(found: PhaseDifference, judged: Scatter | None, compared: list[Unit], ticks: int, *, alike: bool) -> str:
    """What is compared, and what can be said of it."""
    unit, a_ns, b_ns = found.unit, found.a_ns, found.b_ns
    if not found.stages or min(a_ns, b_ns) <= 0:
        return f"nothing to compare: the traces have no {unit} in common"
    typical_one = f"the {unit}" if found.compared == 1 else f"a typical {unit}"
    text = f"B takes {_shown(b_ns)} for {typical_one} where A takes {_shown(a_ns)}"
    if any(one.deferred for one in compared):
        text += " (of a beam search: all of its ticks ÷ its tokens)"
    if any(one.in_tick > 1 for one in compared):
        text += (f" (time of a tick ÷ tokens written in it); the tick itself, for which each text waits, takes "
                 f"{_shown(found.b_tick_ns)} where it took {_shown(found.a_tick_ns)}")
    if judged is None:
        few = "one tick" if ticks == 1 else f"{ticks} ticks"
        return f"{text}: no verdict from {few}, it takes {FEWEST} to know how they scatter"
    if found.disturbed:
        return f"{text}, with what other programs took: record both again with nothing else running to see who pays"
    whole, common = judged.whole, judged.common
    moved = common if common is not None and common.differs else None
    text += f": {_times_as(whole)}" if whole.differs else (
        f": no difference of the whole (B ÷ A is between {whole.low:.2f} and {whole.high:.2f}, 95 %, by the scatter)")
    if moved:
        pace = f"the machine was {'slower' if moved.value > 1 else 'faster'}"
        which = "the others" if found.stands_out else "all stages"
        text += (f"; {which} take about {moved.value:.2f}× as long (from {judged.common_from:.2f}× to "
                 f"{judged.common_to:.2f}×) at the same FLOPs and bytes: {pace}"
                 + ("" if alike else ", or what was set differently acts on all alike"))
    if found.stands_out:
        return f"{text}; {_who_pays(found, moved)}"
    if all(stage.has_equal_work for stage in found.stages):
        return f"{text}; no stage stands out: no difference of the program shown"
    return f"{text}; no stage stands out"


def _shown(nanoseconds: float) -> str:
    return format_duration(nanoseconds * 1e-9)


def _times_as(ratio: Ratio) -> str:
    """``1.64× as slow (95 %: 1.60 to 1.68)``."""
    if ratio.value > 1:
        return f"{ratio.value:.2f}× as slow (95 %: {ratio.low:.2f} to {ratio.high:.2f})"
    return f"{1 / ratio.value:.2f}× as fast (95 %: {1 / ratio.high:.2f} to {1 / ratio.low:.2f})"


def _who_pays(found: PhaseDifference, common: Ratio | None) -> str:
    """The stages that moved most beyond the others: those that moved as the first of them did, then the opposite."""
    excess_ns = {one.stage: one.b_ns - one.a_ns * (common.value if common else 1.0) for one in found.stages}
    most = next(stage for stage in found.stages if stage.stage == found.stands_out[0])
    pays = excess_ns[most.stage] > 0
    text = f"{most.stage} {'pays' if pays else 'gains'} most{' beyond that' if common else ''}"
    text += f" ({format_difference(excess_ns[most.stage] * 1e-9)}"
    if not common and found.ratio is not None and found.ratio.differs:
        text += f", {100 * most.difference_ns / (found.b_ns - found.a_ns):.0f} % of the difference"
    others = [one.stage for one in found.stages if one.stage in found.stands_out and one is not most
              and (one.difference_ns > 0) == (excess_ns[one.stage] > 0)]  # else the table seems to say the opposite
    others.sort(key=found.stands_out.index)
    alike = [name for name in others if (excess_ns[name] > 0) == pays][:2]
    opposite = [name for name in others if (excess_ns[name] > 0) != pays][:2]
    text += f"){f', then {_amounts(alike, excess_ns)}' if alike else ''}"
    if not opposite:
        return text
    verb = ("gain" if pays else "pay") + ("s" if len(opposite) == 1 else "")
    return f"{text}; {_amounts(opposite, excess_ns)} {verb}"


def _amounts(stages: list[str], excess_ns: Mapping[str, float]) -> str:
    """``out (+63 µs) and ffn (+50 µs)``."""
    return " and ".join(f"{name} ({format_difference(excess_ns[name] * 1e-9)})" for name in stages)
