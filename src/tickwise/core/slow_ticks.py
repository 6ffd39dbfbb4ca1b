"""Why a tick took longer than others of its phase: one rule for the tables and for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tickwise.core.typical import Typical, Used

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
class ComparedTick:
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
    def on_a_busy_machine(self) -> bool:
        """Whether it is one of too few to tell, and other programs took much of them."""
        return not self.phase.has_typical and self.phase.busy


def typical_flops(flops: Sequence[float | None], typical: Typical) -> float | None:
    """Of the ticks that stand for the typical one, out of those of all ticks of the phase; ``None``: not counted."""
    counted = [one for place in typical.ticks if (one := flops[place]) is not None]
    return sum(counted) / len(counted) if counted else None
