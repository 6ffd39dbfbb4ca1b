"""What each token of a trace took, and each tick that wrote none, so that traces can be compared with each other.

A token took its part of the tick that wrote it. The tokens of a beam search are entered together in the tick that
ends it; so its ticks, from the one that read the end of the prompt, are dealt out to its tokens in order.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tickwise.core.typical import Used
from tickwise.profiling.trace_store import Trace


class Figures(NamedTuple):
    """Of a stage; ``None``: not counted."""

    ns: float
    flops: float | None
    n_bytes: float | None


@dataclass(frozen=True)
class Unit:
    """A token, or a tick that wrote none."""

    stages: Mapping[str, Figures]
    used: Used
    """What the system said of its tick; of several, the mean, and all interruptions."""
    ticks: tuple[int, ...]
    """One, but for the tokens of a beam search, which may have taken more ticks than it has tokens."""
    tick_ns: float
    """How long its tick took, or the mean of several."""
    in_tick: float
    """How many tokens share its tick."""
    deferred: bool
    """Whether it was entered later than it was made."""

    @property
    def ns(self) -> float:
        return sum(figures.ns for figures in self.stages.values())


Units = dict[tuple[int, int], Unit]
"""By request (numbered from 0 in the order in which they began to write) and place in its text; of ticks that wrote
nothing, by 0 and their place in the phase."""


@dataclass(frozen=True)
class _Tick:
    phase: str
    stages: dict[str, Figures]
    used: Used


_Shares = dict[int, float]
"""Tick → how much of a token was made in it."""

_STAGES = """SELECT tick, phase, stage, sum(duration_ns)::DOUBLE AS ns, sum(flops)::DOUBLE AS flops,
    sum(bytes_read + bytes_written)::DOUBLE AS bytes FROM ledger GROUP BY tick, phase, stage ORDER BY tick"""
_TOKENS = """SELECT request_id, list(tick ORDER BY tick, position) AS ticks FROM tokens GROUP BY request_id
    ORDER BY min(tick), request_id"""
# The ticks that served a request until it wrote its first token.
_BEFORE = """WITH served AS (SELECT tick, phase, unnest(list_distinct(request_ids)) AS request_id FROM (
        SELECT tick, any_value(phase) AS phase, any_value(request_ids) AS request_ids FROM ledger GROUP BY tick)),
    entered AS (SELECT request_id, min(tick) AS first FROM tokens GROUP BY request_id)
SELECT request_id, tick, phase FROM served JOIN entered USING (request_id) WHERE tick <= first ORDER BY tick"""


def token_and_tick_units(trace: Trace) -> tuple[dict[str, Units], dict[str, Units]]:
    """Phase → tokens, and phase → ticks that wrote none. A token that took several ticks is of phase ``prefill`` where
    one of these is."""
    ticks = _ticks(trace)
    shares, deferred = _shares(trace)
    written: dict[int, float] = defaultdict(float)
    for of_token in shares.values():
        for number, share in of_token.items():
            written[number] += share
    tokens: dict[str, Units] = {}
    for key, of_token in shares.items():
        phases = [ticks[number].phase for number in of_token]
        phase = "prefill" if "prefill" in phases else phases[0]
        tokens.setdefault(phase, {})[key] = _unit(ticks, of_token, written, deferred=key[0] in deferred)
    silent: dict[str, Units] = {}
    for number, tick in ticks.items():
        if number not in written:
            of_phase = silent.setdefault(tick.phase, {})
            of_phase[0, len(of_phase)] = _unit(ticks, {number: 1.0}, {number: 1.0}, deferred=False)
    return tokens, silent


def _ticks(trace: Trace) -> dict[int, _Tick]:
    usage = {row["tick"]: Used.of(row) for row in trace.ticks()}
    found: dict[int, _Tick] = {}
    for row in trace.select(_STAGES):
        tick = found.setdefault(row["tick"], _Tick(row["phase"], {}, usage.get(row["tick"], Used())))
        tick.stages[row["stage"]] = Figures(row["ns"], row["flops"], row["bytes"])
    return found


def _shares(trace: Trace) -> tuple[dict[tuple[int, int], _Shares], set[int]]:
    """How much of each token which tick made, in the order of time; and the requests whose tokens were entered later
    than they were made."""
    before: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in trace.select(_BEFORE):
        before[row["request_id"]].append((row["tick"], row["phase"]))
    found: dict[tuple[int, int], _Shares] = {}
    deferred = set()
    for request, row in enumerate(trace.select(_TOKENS)):
        made = _made_in(before[row["request_id"]])
        if made:
            deferred.add(request)
            of_tokens = _dealt_out(made, len(row["ticks"]))
        else:
            of_tokens = iter([{tick: 1.0} for tick in row["ticks"]])
        found.update({(request, place): of_token for place, of_token in enumerate(of_tokens)})
    return dict(sorted(found.items(), key=lambda entry: (min(entry[1]), entry[0]))), deferred


def _made_in(before: Sequence[tuple[int, str]]) -> list[int]:
    """Of the ticks (number, phase) that served a request until it wrote: those that made its tokens, if it had gone on
    from its prompt by then; else none."""
    gone_on = next((place for place, (_, phase) in enumerate(before) if phase == "decode"), None)
    return [] if gone_on is None else [tick for tick, _ in before[max(0, gone_on - 1) :]]


def _dealt_out(ticks: Sequence[int], n_tokens: int) -> Iterator[_Shares]:
    """The first tick is the first token's; the others are dealt out to the other tokens evenly and in order."""
    if n_tokens > 1 and len(ticks) > 1:
        yield {ticks[0]: 1.0}
        ticks, n_tokens = ticks[1:], n_tokens - 1
    n = len(ticks)
    for place in range(n_tokens):
        yield {ticks[at]: (min((place + 1) * n, (at + 1) * n_tokens) - max(place * n, at * n_tokens)) / n
               for at in range(place * n // n_tokens, -(-(place + 1) * n // n_tokens))}


def _unit(ticks: Mapping[int, _Tick], shares: _Shares, written: Mapping[int, float], *, deferred: bool) -> Unit:
    """What a token took that was made in these shares of ticks; ``written``: tokens in each tick."""
    of_ticks = [ticks[number] for number in shares]
    parts = [share / written[number] for number, share in shares.items()]
    weights = [share / sum(shares.values()) for share in shares.values()]
    stages = {}
    for name in dict.fromkeys(name for tick in of_ticks for name in tick.stages):
        figures = [tick.stages.get(name, Figures(0.0, 0.0, 0.0)) for tick in of_ticks]
        ns, flops, n_bytes = (_sum(column, parts) for column in zip(*figures, strict=True))
        stages[name] = Figures(ns or 0.0, flops, n_bytes)
    walls = [sum(figures.ns for figures in tick.stages.values()) for tick in of_ticks]
    used = [tick.used for tick in of_ticks]
    return Unit(
        stages=stages, used=used[0] if len(used) == 1 else _mean(used, weights),
        ticks=tuple(shares), tick_ns=_sum(walls, weights) or 0.0,
        in_tick=_sum([written[number] for number in shares], weights) or 0.0, deferred=deferred,
    )  # fmt: skip


def _sum(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """``None`` where one of them is not known."""
    known = [value * weight for value, weight in zip(values, weights, strict=True) if value is not None]
    return sum(known) if len(known) == len(values) else None


def _mean(used: Sequence[Used], weights: Sequence[float]) -> Used:
    def mean(values: Sequence[int | None]) -> int | None:
        found = _sum(values, weights)
        return None if found is None else round(found)

    interruptions = _sum([one.interruptions for one in used], [1.0] * len(used))
    return Used(interruptions=None if interruptions is None else round(interruptions),
                cpu_ns=mean([one.cpu_ns for one in used]), core_wait_ns=mean([one.core_wait_ns for one in used]),
                major_faults=mean([one.major_faults for one in used]))
