"""A trace as the timeline page reads it: columns instead of rows, repeated values once, no more ticks than a browser
shows at ease."""

import dataclasses
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tickwise.core.errors import DataError
from tickwise.core.slow_tick_words import compared
from tickwise.core.slow_ticks import PhaseOfTicks, typical_flops
from tickwise.core.stages import Stage
from tickwise.core.typical import Ticks, Used, typical

BOUNDS = ("unknown", "compute", "memory", "overhead")
"""A row's bound is stored as its place here; ``unknown`` stands for ``None``."""

_MOST_ROWS = 400_000
"""Rows and tokens together that one page holds: about 10 MB, open in about a second."""
_SLOWEST_SHARE = 0.25
"""Of the ticks that are kept when there are too many, so many are the slowest ones."""


@dataclasses.dataclass(slots=True)
class _Tick:
    run: str
    number: int
    phase: str
    batch: int
    kv_tokens: int | None
    requests: dict[str, None]
    """Ids in their order; a dict because it is a set that keeps it."""
    rows: list[Mapping[str, Any]]
    tokens: list[Mapping[str, Any]]

    @property
    def wall_ns(self) -> int:
        return sum(int(row["duration_ns"]) for row in self.rows)

    @property
    def start_ns(self) -> int:
        return min(int(row["start_ns"]) for row in self.rows)


def compact(
    ledger: Sequence[Mapping[str, Any]], tokens: Sequence[Mapping[str, Any]], usage: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Ledger rows and tokens as columns of JSON values, and their totals by phase and stage.

    Totals and medians are of every tick, also of those that are left out of the columns when there are too many.
    Rows of a tick stand in the order in which they started. ``DataError`` without rows.
    """
    every = _grouped(ledger, tokens)
    if not every:
        raise DataError("the trace has no ticks; nothing to show")
    kept = _thinned(every)
    stages = _stages_in_order(row["stage"] for tick in every for row in tick.rows)
    used = {int(one["tick"]): one for one in usage}
    phases = _phases(every, used)
    return {
        "stages": stages,
        "bounds": BOUNDS,
        "phases": [_phase(phase, stages) for phase in phases.values()],
        "causes": [_cause(tick, phases[tick.phase].compared_with, used.get(tick.number, {}), stages) for tick in kept],
        "between": _between(every),
        "thinned": None if len(kept) == len(every) else {"kept": len(kept), "of": len(every)},
        "energy_kind": _energy_kind(ledger),
        "interruptions": [used.get(tick.number, {}).get("interruptions") for tick in kept],
        "cpu": [used.get(tick.number, {}).get("cpu_ns") for tick in kept],
        **_columns(kept, stages),
    }


def _grouped(ledger: Sequence[Mapping[str, Any]], tokens: Sequence[Mapping[str, Any]]) -> list[_Tick]:
    ticks: dict[tuple[str, int], _Tick] = {}
    by_number: dict[int, _Tick] = {}
    for row in ledger:
        key = (str(row.get("run") or ""), int(row["tick"]))
        tick = ticks.get(key)
        if tick is None:
            nobody = "training" if row["phase"] == "train" else "no request"
            requests = dict.fromkeys(map(str, row["request_ids"] or (nobody,)))
            tick = _Tick(key[0], key[1], str(row["phase"]), int(row["batch"] or 0), row["kv_tokens"], requests, [], [])
            ticks[key] = by_number[key[1]] = tick
        tick.rows.append(row)
    for token in tokens:
        found = by_number.get(int(token["tick"]))
        if found is not None:
            found.tokens.append(token)
            found.requests[str(token["request_id"])] = None
    for tick in ticks.values():
        tick.rows.sort(key=lambda row: int(row["start_ns"]))
    return sorted(ticks.values(), key=lambda tick: (tick.run, tick.number))


def _thinned(ticks: list[_Tick]) -> list[_Tick]:
    """All ticks where they fit; else the slowest ones and evenly spaced others, in their order."""
    weight = sum(len(tick.rows) + len(tick.requests) for tick in ticks)
    if weight <= _MOST_ROWS:
        return ticks
    keep = max(1, int(len(ticks) * _MOST_ROWS / weight))
    slowest = sorted(range(len(ticks)), key=lambda index: -ticks[index].wall_ns)[: max(1, int(keep * _SLOWEST_SHARE))]
    chosen = set(slowest)
    others = [index for index in range(len(ticks)) if index not in chosen]
    n_others = keep - len(chosen)
    chosen.update(others[index * len(others) // n_others] for index in range(n_others))
    return [ticks[index] for index in sorted(chosen)]


def _stages_in_order(names: Iterable[str]) -> list[str]:
    """Names that occur, in the order in which a tick runs them; names that ``Stage`` lacks come last."""
    order = {str(stage): index for index, stage in enumerate(Stage)}
    return sorted({str(name) for name in names}, key=lambda name: (order.get(name, len(order)), name))


def _known(value: Any) -> float | None:
    """The figure as a JSON number, or ``None`` for what is not known or not finite."""
    return None if value is None or not math.isfinite(value) else value


def _short(value: float | None, scale: float) -> float | None:
    """Scaled and with four digits: enough to draw, and short in the page."""
    if value is None:
        return None
    rounded = float(f"{value * scale:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


def _sum(values: Iterable[float | None]) -> float | None:
    """Of the known ones; ``None`` where nothing is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


@dataclasses.dataclass(frozen=True)
class _Phase:
    """All ticks of a phase, which of them are typical, and what each is compared with."""

    name: str
    ticks: list[_Tick]
    compared_with: PhaseOfTicks


def _phases(ticks: list[_Tick], usage: Mapping[int, Mapping[str, Any]]) -> dict[str, _Phase]:
    by_phase: dict[str, list[_Tick]] = defaultdict(list)
    for tick in ticks:
        by_phase[tick.phase].append(tick)
    order = ("decode", "prefill", "train")
    names = sorted(by_phase, key=lambda name: (order.index(name) if name in order else len(order), name))
    return {name: _Phase(name, by_phase[name], _compared_with(name, by_phase[name], usage)) for name in names}


def _compared_with(name: str, ticks: list[_Tick], usage: Mapping[int, Mapping[str, Any]]) -> PhaseOfTicks:
    by_stage: list[dict[str, int]] = []
    ran: dict[str, int] = defaultdict(int)
    for tick in ticks:
        here: dict[str, int] = defaultdict(int)
        for row in tick.rows:
            here[row["stage"]] += int(row["duration_ns"])
        by_stage.append(here)
        for stage in here:
            ran[stage] += 1
    middle = typical(Ticks(stages=by_stage, used=[Used.of(usage.get(tick.number, {})) for tick in ticks],
                           same_work=name != "prefill"))
    flops = [_sum(_known(row["flops"]) for row in tick.rows) for tick in ticks]
    return PhaseOfTicks(ticks=len(ticks), typical=middle, ran=ran,
                        typical_flops=typical_flops(flops, middle), first=ticks[0].number)


def _phase(phase: _Phase, stages: list[str]) -> dict[str, Any]:
    """How many ticks, their time, per stage totals, and the same of the typical ticks (``core/typical``)."""
    ticks, middle = phase.ticks, phase.compared_with.typical
    totals = _totals(ticks, stages)
    for total in totals:
        total["ran"] = phase.compared_with.ran[stages[total["stage"]]]
    return {
        "name": phase.name, "ticks": len(ticks), "wall": sum(tick.wall_ns for tick in ticks), "stages": totals,
        "typical": {
            "ticks": len(middle.ticks), "of": middle.chosen_from, "calm": middle.calm, "wall": middle.wall_ns,
            "cpu": middle.cpu_ns,
            "stages": _totals([ticks[place] for place in middle.ticks], stages),
        },
        "disturbance": middle.sentence(len(ticks)), "busy": middle.blames_the_machine,
    }  # fmt: skip


def _cause(
    tick: _Tick, phase: PhaseOfTicks, usage: Mapping[str, Any], stages: list[str]
) -> dict[str, Any] | None:
    """Why the tick took longer than it had to (``core/slow_ticks``), if anything says so. Behind ``why`` belongs what
    holds the ``blamed`` stage back, where that is asked for (``goes_on``), and behind ``remedy`` what would make that
    stage faster, unless the tick was ``unusual``."""
    slow = compared(tick.rows, phase, Used.of(usage))
    if not slow.why:
        return None
    return {
        "why": slow.why, "remedy": slow.remedy, "blamed": stages.index(slow.blamed.stage),
        "unusual": slow.unusual, "goes_on": not slow.unusual and not slow.blamed.seldom,
        "stages": [stages.index(name) for name in slow.concerned],
        "away": [[stages.index(name), round(ns)] for name, ns in slow.off_by_stage.items()],
    }  # fmt: skip


def _between(ticks: list[_Tick]) -> dict[str, Any] | None:
    """The time between ticks, which is in no row: its sum and median, and the time from the first tick to the last."""
    gaps, span = [], 0
    by_run: dict[str, list[_Tick]] = defaultdict(list)
    for tick in ticks:
        by_run[tick.run].append(tick)
    for of_run in by_run.values():
        in_order = sorted(of_run, key=lambda tick: tick.start_ns)
        gaps += [max(0, b.start_ns - a.start_ns - a.wall_ns) for a, b in itertools.pairwise(in_order)]
        span += in_order[-1].start_ns + in_order[-1].wall_ns - in_order[0].start_ns
    return {"sum": sum(gaps), "median": statistics.median(gaps), "span": span} if gaps else None


def _totals(ticks: list[_Tick], stages: list[str]) -> list[dict[str, Any]]:
    rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for tick in ticks:
        for row in tick.rows:
            rows[row["stage"]].append(row)
    found = []
    for index, stage in enumerate(stages):
        if stage not in rows:
            continue
        bounds = [0] * len(BOUNDS)
        known = 0
        for row in rows[stage]:
            bounds[_bound(row["bound"])] += int(row["duration_ns"])
            if _known(row["flops"]) is not None or _known(row["bytes_read"]) is not None:
                known += int(row["duration_ns"])
        found.append({
            "stage": index, "time": sum(bounds), "bounds": bounds, "known": known,
            "flops": _sum(_known(row["flops"]) for row in rows[stage]),
            "read": _sum(_known(row["bytes_read"]) for row in rows[stage]),
            "written": _sum(_known(row["bytes_written"]) for row in rows[stage]),
            "energy": _sum(_known(row["energy_j"]) for row in rows[stage]),
        })  # fmt: skip
    return found


def _bound(name: str | None) -> int:
    return BOUNDS.index(name) if name in BOUNDS else 0


def _energy_kind(ledger: Sequence[Mapping[str, Any]]) -> str | None:
    """``measured``, ``modelled`` or both; ``None`` where no row has a figure."""
    sources = {str(row["energy_source"]) for row in ledger if row["energy_j"] is not None}
    return " and ".join(sorted(sources)) or None


class _Numbered(dict[Any, int]):
    """Gives each new key the next number."""

    def __missing__(self, key: Any) -> int:
        self[key] = len(self)
        return self[key]


def _columns(ticks: list[_Tick], stages: list[str]) -> dict[str, Any]:
    """What the page draws. Ticks with the same stages share a layout; equal costs and request sets are stored once."""
    stage_index = {name: index for index, name in enumerate(stages)}
    layouts, costs, requests, request_sets = _Numbered(), _Numbered(), _Numbered(), _Numbered()
    origin: dict[str, int] = {}
    for tick in ticks:
        origin[tick.run] = min(origin.get(tick.run, tick.start_ns), tick.start_ns)
    columns: dict[str, list[Any]] = defaultdict(list)
    rows: dict[str, list[Any]] = {"duration": [], "cost": [], "energy": []}
    bounds: list[str] = []
    said: dict[str, list[Any]] = {"tick": [], "request": [], "position": [], "id": [], "text": []}
    for index, tick in enumerate(ticks):
        columns["number"].append(tick.number)
        columns["phase"].append(tick.phase)
        columns["batch"].append(tick.batch)
        columns["kv"].append(tick.kv_tokens)
        columns["start"].append(tick.start_ns - origin[tick.run])
        columns["requests"].append(request_sets[tuple(requests[name] for name in tick.requests)])
        layout: list[int] = []
        for row in tick.rows:
            layout += (stage_index[row["stage"]], -1 if row["layer"] is None else int(row["layer"]))
            rows["duration"].append(int(row["duration_ns"]))
            rows["cost"].append(costs[_known(row["flops"]), _known(row["bytes_read"]), _known(row["bytes_written"])])
            rows["energy"].append(_short(_known(row["energy_j"]), 1e6))
            bounds.append(str(_bound(row["bound"])))
        columns["layout"].append(layouts[tuple(layout)])
        for token in sorted(tick.tokens, key=lambda token: int(token["position"])):
            said["tick"].append(index)
            said["request"].append(requests[str(token["request_id"])])
            said["position"].append(token["position"])
            said["id"].append(token["token_id"])
            said["text"].append(str(token["text"] or ""))
    flops, read, written = (list(column) for column in zip(*costs, strict=True))
    if not any(value is not None for value in rows["energy"]):
        del rows["energy"]
    return {
        "ticks": columns, "layouts": list(layouts), "requests": list(requests), "request_sets": list(request_sets),
        "rows": {**rows, "bound": "".join(bounds)}, "costs": {"flops": flops, "read": read, "written": written},
        "tokens": said,
    }  # fmt: skip


def compact_listing(listing: Sequence[Mapping[str, Any]], stages: Sequence[str]) -> dict[str, list[list[Any]]]:
    """By phase (``""`` where an instruction names none): instructions as ``[stage, layer, op, shapes, flops,
    bytes_read, bytes_written]``; stages not in the trace are left out."""
    found: dict[str, list[list[Any]]] = defaultdict(list)
    for row in listing:
        if row["stage"] in stages:
            found[str(row.get("phase") or "")].append(
                [stages.index(row["stage"]), -1 if row["layer"] is None else int(row["layer"]), str(row["op"]),
                 _shapes(row.get("shapes")), _known(row["flops"]), _known(row["bytes_read"]),
                 _known(row["bytes_written"])])
    return found


def _shapes(shapes: Any) -> str:
    """``1×4×64, 64×64``; what is not a list of shapes as it is."""
    if isinstance(shapes, str) or shapes is None:
        return shapes or ""
    return ", ".join("×".join(map(str, shape)) if isinstance(shape, Sequence) and not isinstance(shape, str)
                     else str(shape) for shape in shapes)  # fmt: skip
