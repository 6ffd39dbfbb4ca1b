"""Why a tick took longer than others of its phase: one rule for the tables and for the page."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tickwise.core.console import format_duration
from tickwise.core.stages import Stage
from tickwise.core.typical import Typical, Used

_ORDER = {str(stage): place for place, stage in enumerate(Stage)}
_ENOUGH_TICKS = 3
"""Of a phase, for its typical tick to mean something."""
_WORTH_THE_NAME = 0.1
"""Share of the typical tick by which a slow one is longer; and of a tick in which none of the program's threads ran."""
_MORE_WORK = 1.25
"""Times the typical tick's FLOPs from which on a tick did more work."""
_MUCH_LONGER = 3.0
"""Times the typical tick's processor time from which on a tick computed longer, whatever else happened to it."""
_LONGEST_TURN_NS = 50_000_000
"""What an interruption takes at most: what is longer, the program has waited for by itself."""


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """A stage of one tick beside the same stage of the typical tick of its phase."""

    stage: str
    duration_ns: int
    """0 where this tick did without the stage."""
    usual_ns: float
    seldom: bool
    """Whether most ticks of the phase do without the stage."""
    bound: str | None
    """What held most of its rows back, by time."""

    @property
    def excess_ns(self) -> float:
        return self.duration_ns - self.usual_ns


@dataclass(frozen=True, kw_only=True)
class PhaseOfTicks:
    """What one tick of a phase is compared with."""

    ticks: int
    typical: Typical
    ran: Mapping[str, int]
    """In how many ticks each stage ran."""
    typical_flops: float | None
    """Of the typical tick; ``None``: not counted."""
    first: int | None = None
    """Number of the first of them."""

    @property
    def has_typical(self) -> bool:
        """Whether there are ticks enough to speak of a typical one."""
        return self.ticks >= _ENOUGH_TICKS

    @property
    def busy(self) -> bool:
        """Whether other programs took much of even the typical one, so that it does not show what a tick needs."""
        return self.typical.blames_the_machine


@dataclass(frozen=True, kw_only=True)
class SlowTick:
    """One tick, compared with the typical tick of its phase, so that what the stages took more adds up."""

    wall_ns: int
    phase: PhaseOfTicks
    flops: int | None
    used: Used
    stages: tuple[StageTime, ...]
    first: bool
    """Whether it is the first of its phase."""

    @property
    def interruptions(self) -> int | None:
        return self.used.interruptions

    @property
    def cpu_ns(self) -> int | None:
        return self.used.cpu_ns

    @property
    def usual_wall_ns(self) -> float:
        return self.phase.typical.wall_ns

    @property
    def slowest_stage(self) -> StageTime:
        return max(self.stages, key=lambda stage: stage.duration_ns)

    @property
    def slowest_part(self) -> StageTime:
        """The stage that took the most time more than usual."""
        return max(self.stages, key=lambda stage: stage.excess_ns)

    @property
    def blamed(self) -> StageTime:
        """The stage that a remedy has to begin with."""
        part = self.slowest_part
        compares = self._over_ns and self._same_work and (part.seldom or not self.phase.busy)
        return part if compares else self.slowest_stage

    @property
    def off_ns(self) -> int | None:
        """How long at least no thread of the program ran; ``None``: not known."""
        return None if self.cpu_ns is None else max(0, self.wall_ns - self.cpu_ns)

    @property
    def held_ns(self) -> int | None:
        """How much of that it waited for a core, which another program then had; ``None``: not known."""
        wait_ns = self.used.core_wait_ns
        return None if wait_ns is None or self.off_ns is None else min(wait_ns, self.off_ns)

    @property
    def waited_ns(self) -> int:
        """How much of that it waited for something else; 0 where that is not known."""
        return 0 if self.held_ns is None else (self.off_ns or 0) - self.held_ns

    @property
    def off_by_stage(self) -> dict[str, float]:
        """About how much of ``off_ns`` fell into each stage: shared out over what each took longer than usual, and
        what is more than that over all of their time. Empty where it is not worth a word."""
        off_ns = float(self.off_ns or 0)
        if not self._away:
            return {}
        excess = {stage.stage: max(0.0, stage.excess_ns) if self.phase.has_typical else 0.0 for stage in self.stages}
        longer_ns = sum(excess.values())
        of_excess = min(1.0, off_ns / longer_ns) if longer_ns else 0.0
        of_rest = (off_ns - of_excess * longer_ns) / max(1.0, self.wall_ns - of_excess * longer_ns)
        return {stage.stage: of_excess * excess[stage.stage]
                + of_rest * (stage.duration_ns - of_excess * excess[stage.stage])
                for stage in self.stages if stage.duration_ns}

    @property
    def _away(self) -> bool:
        """Whether it was off its core for long enough to be worth a word."""
        return (self.off_ns or 0) >= _WORTH_THE_NAME * max(1, self.wall_ns)

    @property
    def _least_ns(self) -> float:
        """What a cause has to take to be worth a word."""
        return max(1.0, _WORTH_THE_NAME * (self._over_ns or self.wall_ns))

    @property
    def _cold(self) -> bool:
        """Whether it waited long while pages were read from a disk."""
        return bool(self.used.major_faults) and self.waited_ns >= self._least_ns

    @property
    def _several_threads(self) -> bool:
        """Whether threads worked side by side, of which only one's wait for a core is known."""
        usual = self.phase.typical
        return max((self.cpu_ns or 0) / max(1, self.wall_ns), (usual.cpu_ns or 0) / max(1.0, usual.wall_ns)) > 1.05

    @property
    def own_ns(self) -> float:
        """What the program itself computed longer than usual: processor time of all of its threads, at most as much as
        the tick took longer. 0 where that is not known."""
        usual_ns = self.phase.typical.cpu_ns
        if self.cpu_ns is None or usual_ns is None or not self.interruptions:
            return 0.0
        return min(max(0.0, self.cpu_ns - usual_ns), max(0.0, self.wall_ns - self.usual_wall_ns))

    @property
    def _computed_longer(self) -> bool:
        """Whether that is worth a word beside what other programs took."""
        much = (self.cpu_ns or 0) > _MUCH_LONGER * (self.phase.typical.cpu_ns or 0)
        return self.own_ns > self.usual_wall_ns and (
            much or self.own_ns >= _WORTH_THE_NAME * max(1.0, self._over_ns))

    @property
    def _work(self) -> float:
        """Times the typical tick's work; 1 where that is not known."""
        return self.flops / self.phase.typical_flops if self.flops and self.phase.typical_flops else 1.0

    @property
    def _same_work(self) -> bool:
        return self._work <= _MORE_WORK

    @property
    def _no_more(self) -> str:
        return "for no more counted work" if self._computed_longer else "for no more work"

    @property
    def _over_ns(self) -> float:
        """Above the typical tick, where that is worth the name; else 0."""
        over_ns = self.wall_ns - self.usual_wall_ns
        return over_ns if self.phase.has_typical and over_ns >= _WORTH_THE_NAME * self.usual_wall_ns else 0.0

    @property
    def _stretched(self) -> list[StageTime]:
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
        part, wait_ns = self.slowest_part, self.used.core_wait_ns
        if wait_ns is not None and wait_ns < self._least_ns and not self._several_threads:
            return False
        return bool(self.interruptions) and not part.seldom and part.bound in (None, "overhead")

    @property
    def _explained(self) -> bool:
        """Whether its stages show that it took longer than usual for no more work than usual."""
        shows = bool(self._over_ns) and self._same_work and not self.phase.busy
        return shows and (self._everywhere or self._in_stages or self._taken)

    @property
    def _kept_off(self) -> bool:
        """Whether other programs, or a disk that pages were read from, kept it off the processor for long."""
        if self.held_ns is None:
            return self._away and (self.off_ns or 0) <= _LONGEST_TURN_NS * (self.interruptions or 0)
        return self._away and (self.held_ns >= self._least_ns or self._cold)

    @property
    def _held(self) -> bool:
        """Whether that, and neither bytes nor arithmetic nor a stage that few ticks have made it slow."""
        most = 2 * (self.off_ns or 0) >= self.wall_ns  # then a ceiling that it reached nevertheless is too low
        return self._kept_off and not self.blamed.seldom and (most or self.slowest_stage.bound in (None, "overhead"))

    @property
    def unusual(self) -> bool:
        """Whether it took longer than it had to for a reason that the model cannot have caused."""
        return self._explained or self._held

    @property
    def concerned(self) -> tuple[str, ...]:
        """The stages that ``why`` speaks of, where it was ``unusual``."""
        if not self.unusual:
            return ()
        if self._explained and not self._everywhere:
            return tuple(stage.stage for stage in self._stretched) if self._in_stages else (self.slowest_part.stage,)
        return tuple(stage.stage for stage in self.stages if stage.duration_ns and not stage.seldom)

    @property
    def saved_ns(self) -> float:
        """What it would save without what the ``remedy`` names. Where that is other programs, or a wait, it is what was
        measured of that very tick: the typical one may have waited too."""
        if self._explained and self._computed_longer:
            stretched_ns = sum(stage.excess_ns for stage in self._stretched)
            over_ns = self._over_ns if self._everywhere or not self._in_stages else min(self._over_ns, stretched_ns)
            return max(0.0, over_ns - self.own_ns)
        if self._others_held and not self._cold:
            return float(self.held_ns or 0)
        return float(self.off_ns or 0) if self._away or self._cold else self._over_ns

    @property
    def _others_held(self) -> bool:
        """Whether its wait for a core is known, and worth a word."""
        return self.held_ns is not None and self.held_ns >= self._least_ns

    @property
    def why(self) -> str:
        """Why it took longer than it had to, in a sentence; empty where nothing says so. Where it is not ``unusual``,
        what holds the ``blamed`` stage back belongs behind it, unless few ticks have that stage."""
        over_ns, part = self._over_ns, self.slowest_part
        away = self._cause() if self._away else ""
        if over_ns and not self._same_work:
            text = f"it did {self._work:.1f} × the work of the typical tick"
            return f"{text}; {away}" if away else text
        if not over_ns or (self._held and not self._explained):
            return away
        if self._explained and self._everywhere:
            return f"nearly every stage took longer than usual, {self._no_more} than usual: {self._cause('processor')}"
        if self._explained and self._in_stages and len(self._stretched) > 1:
            few = self._stretched[:3]
            names = f"{', '.join(stage.stage for stage in few[:-1])} and {few[-1].stage}"
            took, n = sum(stage.duration_ns for stage in few), "two" if len(few) == 2 else "three"
            times = took / max(1.0, sum(stage.usual_ns for stage in few))
            return (f"{self._slowest_as_usual(few)}{n} stages took far longer than usual: {names} hold "
                    f"{format_duration(took * 1e-9)} of the {format_duration(self.wall_ns * 1e-9)}, {times:,.0f} × "
                    f"their usual time {self._no_more}: {self._cause()}")
        if self.phase.busy and not part.seldom:
            return away
        above = f"{format_duration(over_ns * 1e-9)} above the typical tick are"
        of_it = "all" if part.excess_ns > 0.95 * over_ns else format_duration(part.excess_ns * 1e-9)
        text = f"{self._slowest_as_usual([part])}{of_it} of the {above} in {part.stage}"
        if part.seldom:
            text += ", which most ticks do without"
        if part.seldom or not self._explained:
            return f"{text}; {away}" if away else text
        if not self._in_stages:
            return f"{text}: {self._cause()}"
        return (f"{text}, which took {part.duration_ns / max(1.0, part.usual_ns):.0f} × its usual time "
                f"{self._no_more}: {self._cause()}")

    def _slowest_as_usual(self, named: list[StageTime]) -> str:
        """Of the slowest stage, where another one is to blame."""
        slowest = self.slowest_stage
        if slowest in named:
            return ""
        return (f"{slowest.stage} took {format_duration(slowest.duration_ns * 1e-9)}, and "
                f"{format_duration(slowest.usual_ns * 1e-9)} in the typical tick; ")

    @property
    def on_a_busy_machine(self) -> bool:
        """Whether it is one of too few to tell, and other programs took much of them."""
        return not self.phase.has_typical and self.phase.busy

    @property
    def remedy(self) -> str:
        """What helps against what kept it; empty where nothing did. Unless it was ``unusual``, what would make the
        ``blamed`` stage faster belongs behind it."""
        if not self.unusual and not self._kept_off:
            return ""
        less = f"{100 * self.saved_ns / self.wall_ns:.0f} % less"
        if self._explained and self._computed_longer:
            return (f"without the interruptions {less}; the rest is what this program computed in {self.blamed.stage}: "
                    "look what it did there")
        if self._cold:
            what = ("a cold start: the libraries' pages were read from disk; the next ticks do not pay that; warm up "
                    "with a short run first" if self.first else
                    "pages were read from disk: leave more memory free, or read everything once before")
            return f"{what}; without {'other programs and the disk' if self._others_held else 'the waiting'} {less}"
        without = ("without the other programs" if self._others_held else
                   "without the waiting" if self._away else "in its usual time")
        return f"{'nothing in the model; ' if self.unusual else ''}{without} {less}"

    def _cause(self, of: str = "core") -> str:
        """What kept it, as far as the system says; and for how long no thread of the program ran."""
        n, held_ns, off_ns = self.interruptions, self.held_ns, self.off_ns or 0
        if n is None:
            return ("most likely another program used the processor" if of == "processor" else
                    "most likely an interruption or a first use")
        often = f" (interrupted {times(n)})" if n else ""
        if held_ns is None and self._away:
            text = (f"another program held the {of}, or it waited{often}" if n else
                    "it waited, for another thread, memory or a disk, or for a core after that; no other program "
                    "interrupted it")
        elif held_ns is not None and max(held_ns, self.waited_ns) >= self._least_ns:
            text = self._kept(of, often)
        elif n and self._taken:
            text = f"most likely another program held the {of}{'' if of == 'processor' else ' of a thread'}{often}"
        else:
            few = f"interrupted {times(n)}, but not for long" if n else "no other program interrupted it"
            text = (f"most likely another program used the processor; {few}" if of == "processor" else
                    f"most likely a first use, or waiting for memory; {few}")
        if self._explained and self._computed_longer:
            text += (f", and this one computed for {format_duration((self.cpu_ns or 0) * 1e-9)} itself, "
                     f"{(self.cpu_ns or 0) / max(1.0, self.phase.typical.cpu_ns or 0):.0f} × as long as usual")
        return text if not self._away else (f"{text}; for {format_duration(off_ns * 1e-9)} of its "
                                            f"{format_duration(self.wall_ns * 1e-9)} no thread of this program ran")

    def _kept(self, of: str, often: str) -> str:
        """Of a tick whose wait for a core is known: what held it, and what it waited for."""
        held_ns, waited_ns = self.held_ns or 0, self.waited_ns
        faults = self.used.major_faults
        waited = f"it waited for {format_duration(waited_ns * 1e-9)}, " + (
            f"for a disk or memory ({faults:,} major fault{'' if faults == 1 else 's'})" if faults else
            "for its own threads, a file or a device (no page of memory had to be read)")
        if held_ns < self._least_ns:
            return waited
        if waited_ns < self._least_ns:
            return f"another program held the {of}{often}"
        return f"another program held the {of} for {format_duration(held_ns * 1e-9)}{often}, and {waited}"


def typical_flops(flops: Sequence[float | None], typical: Typical) -> float | None:
    """Of the ticks that stand for the typical one, out of those of all ticks of the phase; ``None``: not counted."""
    counted = [one for place in typical.ticks if (one := flops[place]) is not None]
    return sum(counted) / len(counted) if counted else None


def times(count: int) -> str:
    """``once``, ``12 times``."""
    return "once" if count == 1 else f"{count:,} times"


def compared(rows: Iterable[Mapping[str, Any]], phase: PhaseOfTicks, used: Used) -> SlowTick:
    """The tick of these ledger rows (``tick, stage, duration_ns, flops, bound``) beside the typical tick of its phase.
    """
    times_ns: dict[str, dict[str | None, int]] = defaultdict(lambda: defaultdict(int))
    counted, number = [], None
    for row in rows:
        number = row["tick"]
        times_ns[row["stage"]][row["bound"]] += int(row["duration_ns"])
        if row["flops"] is not None:
            counted.append(int(row["flops"]))
    usual_ns = phase.typical.stages
    names = sorted({*times_ns, *(name for name in usual_ns if usual_ns[name])},
                   key=lambda name: (_ORDER.get(name, len(_ORDER)), name))
    return SlowTick(
        wall_ns=sum(sum(by_bound.values()) for by_bound in times_ns.values()), phase=phase,
        flops=sum(counted) if counted else None, used=used, first=number is not None and number == phase.first,
        stages=tuple(_stage_time(name, times_ns.get(name, {}), phase) for name in names),
    )  # fmt: skip


def _stage_time(name: str, by_bound: Mapping[str | None, int], phase: PhaseOfTicks) -> StageTime:
    return StageTime(
        stage=name, duration_ns=sum(by_bound.values()), usual_ns=phase.typical.stages[name],
        seldom=2 * phase.ran[name] < phase.ticks,
        bound=max(by_bound, key=lambda bound: by_bound[bound]) if by_bound else None,
    )  # fmt: skip
