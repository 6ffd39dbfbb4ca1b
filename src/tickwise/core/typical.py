"""Which ticks of a phase stand for a typical one, and what other programs took from the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

ENOUGH = 5
"""Uninterrupted ticks from which on the interrupted ones are left aside."""
_WORTH_SAYING = 0.05
"""Share of a phase's time lost to other programs from which on it is said."""
_OFTEN_PER_S = 50
"""Interruptions a second that only a shared core explains: on a quiet machine they are a few."""


@dataclass(frozen=True, kw_only=True)
class Used:
    """What the system says about a tick; ``None``: not known."""

    interruptions: int | None = None
    """How often a thread of the program had to leave its core although it had work to do."""
    cpu_ns: int | None = None
    """Processor time of all of the program's threads."""
    core_wait_ns: int | None = None
    """How long the thread that runs the ticks was ready to run and had no core."""
    major_faults: int | None = None
    """Pages that a disk was read for."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Used":
        """Of a row that may have more columns, or fewer."""
        return cls(**{field.name: row.get(field.name) for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Ticks:
    """Ticks of one phase; every list has one entry per tick."""

    stages: Sequence[Mapping[str, int]]
    """Nanoseconds by stage."""
    used: Sequence[Used]
    same_work: bool = True
    """Whether ticks can be expected to take the same time."""


@dataclass(frozen=True, kw_only=True)
class Typical:
    """The typical tick: the mean of the middle ticks, so that its stages add up to it."""

    ticks: tuple[int, ...]
    """Their places."""
    chosen_from: int
    calm: bool
    """Whether the ``chosen_from`` ticks are those that nobody interrupted, and not all."""
    wall_ns: float
    cpu_ns: float | None
    """Processor time of all threads; ``None``: not measured."""
    stages: Mapping[str, float]
    interrupted: int | None
    """Of all ticks."""
    lost_ns: float
    """What the interrupted ticks took longer; where that cannot be told, how long they waited for a core."""
    disturbed: bool
    """Whether other programs took enough to be worth a word."""

    @property
    def blames_the_machine(self) -> bool:
        """Whether even the typical tick was a disturbed one."""
        return self.disturbed and not self.calm

    def sentence(self, n_ticks: int) -> str:
        """What other programs did to the ticks; empty where that hardly matters, or is not known."""
        if not self.disturbed:
            return ""
        who = "every tick was" if self.interrupted == n_ticks else f"{self.interrupted:,} of {n_ticks:,} ticks were"
        text = f"{who} interrupted by other programs"
        if self.calm:
            return f"{text}; the typical tick is one of the others"
        return f"{text}, and too few were not: these are figures of a busy machine"


def typical(ticks: Ticks) -> Typical:
    """The middle quarter, by time, of the ticks that nobody interrupted, where there are enough, else of all."""
    walls = [sum(of_tick.values()) for of_tick in ticks.stages]
    interruptions = [used.interruptions for used in ticks.used]
    known = bool(walls) and all(n is not None for n in interruptions)
    quiet = [place for place, n in enumerate(interruptions) if n == 0]
    calm = known and (len(quiet) == len(walls) or len(quiet) >= ENOUGH)
    order = sorted(quiet if calm else range(len(walls)), key=walls.__getitem__)
    cut = 3 * len(order) // 8
    middle = order[cut : len(order) - cut]
    names = dict.fromkeys(name for of_tick in ticks.stages for name in of_tick)
    means = {name: sum(ticks.stages[place].get(name, 0) for place in middle) / len(middle) for name in names}
    wall_ns = sum(walls[place] for place in middle) / len(middle)
    cpus = [cpu for place in middle if (cpu := ticks.used[place].cpu_ns) is not None]
    hit = [place for place in range(len(walls)) if interruptions[place]]
    lost_ns = 0.0
    for place in hit:
        if calm and ticks.same_work:
            lost_ns += max(0.0, sum(ns - means[name] for name, ns in ticks.stages[place].items() if means[name]))
        else:
            lost_ns += _queued_ns(walls[place], ticks.used[place])
    often = sum(interruptions[place] or 0 for place in hit) > _OFTEN_PER_S * max(sum(walls) * 1e-9, 0.01)
    disturbed = known and bool(hit) and (lost_ns >= _WORTH_SAYING * sum(walls) or (often and not calm))
    return Typical(ticks=tuple(sorted(middle)), chosen_from=len(order), calm=calm and len(quiet) < len(walls),
                   wall_ns=wall_ns, stages=means,
                   cpu_ns=sum(cpus) / len(cpus) if cpus and len(cpus) == len(middle) else None,
                   interrupted=len(hit) if known else None, lost_ns=lost_ns, disturbed=disturbed)


def _queued_ns(wall_ns: int, used: Used) -> int:
    """How long a tick waited for a core, as far as known: at most the time in which no thread of the program ran."""
    off_ns = 0 if used.cpu_ns is None else max(0, wall_ns - used.cpu_ns)
    return off_ns if used.core_wait_ns is None else min(used.core_wait_ns, wall_ns)
