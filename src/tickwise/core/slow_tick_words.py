"""What is said of a slow tick: why it took longer than others of its phase, and what helps."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tickwise.core.console import format_duration
from tickwise.core.slow_ticks import ComparedTick, PhaseOfTicks, StageTime
from tickwise.core.stages import Stage
from tickwise.core.typical import Used

_ORDER = {str(stage): place for place, stage in enumerate(Stage)}


@dataclass(frozen=True, kw_only=True)
class SlowTick(ComparedTick):
    """A compared tick, in sentences."""

    @property
    def _no_more(self) -> str:
        return "for no more counted work" if self._computed_longer else "for no more work"

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
