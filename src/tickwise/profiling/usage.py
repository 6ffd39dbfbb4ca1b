"""What of the processor each tick had, without asking the system after every one.

Asking costs some microseconds, which is much for a tick of half a millisecond. The counters only ever grow, so ticks
between two readings with the same count of interruptions had none. A tick that took long is followed by a reading at
once; other ticks share one reading of up to ``MOST_TICKS``.
"""

import functools
import itertools
import sys
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy
from numpy.typing import NDArray

MOST_TICKS = 8
"""Between two readings."""
_ALWAYS_NS = 2_000_000
"""A tick that took this long is followed by a reading: it costs half a percent at most."""
_NEVER_NS = 1 << 62
_SLOW = 1.25
"""Times the mean of the ticks before."""
_ONE_STANDS_OUT = 1.5
"""Times the others' mean: what a window's ticks do not share by their time, its slowest one had."""


class Usage(Protocol):
    """What a process has used since it began, all of its threads together (``resource.getrusage``)."""

    @property
    def ru_nivcsw(self) -> int: ...  # involuntary context switches
    @property
    def ru_utime(self) -> float: ...  # seconds of processor time
    @property
    def ru_stime(self) -> float: ...


def usage_reader() -> Callable[[], Usage] | None:
    """How to read this process's ``Usage``, in about a microsecond; ``None`` where the system does not say it all."""
    if not sys.platform.startswith("linux"):
        return None
    import resource

    return functools.partial(resource.getrusage, resource.RUSAGE_SELF)


class _Reading(NamedTuple):
    n_ticks: int
    """Finished before it."""
    at_ns: int
    usage: Usage


class UsageMeter:
    """Readings between ticks. ``due_ns`` and ``due_ticks`` say when the next one is due: after a tick that took longer,
    or when so many are finished; without ``read`` never."""

    def __init__(self, read: Callable[[], Usage] | None) -> None:
        self._read = read
        self._readings: list[_Reading] = []
        self._slow_ns = 0.0
        self.due_ns = 0 if read is not None else _NEVER_NS
        self.due_ticks = 0 if read is not None else sys.maxsize

    def before(self, n_ticks: int, now_ns: int) -> None:
        """The first tick after a gap, which has a reading of its own, so that the gap is not its doing."""
        if self._read is not None:
            self._take(n_ticks, now_ns)
            self.due_ns = 0  # such a tick may be one of many with gaps between them

    def after(self, n_ticks: int, now_ns: int) -> None:
        """``n_ticks`` are finished, and a reading is due."""
        if self._read is None:
            return
        last = self._readings[-1] if self._readings else None
        self._take(n_ticks, now_ns)
        if last is None:
            return
        if n_ticks - last.n_ticks >= MOST_TICKS or not self._slow_ns:
            self._slow_ns = _SLOW * (now_ns - last.at_ns) / max(1, n_ticks - last.n_ticks)
        else:  # a slow tick, or a slower kind of tick that is usual from now on
            self._slow_ns *= _SLOW
        self.due_ns = min(int(self._slow_ns), _ALWAYS_NS)

    def _take(self, n_ticks: int, now_ns: int) -> None:
        assert self._read is not None
        self._readings.append(_Reading(n_ticks, now_ns, self._read()))
        self.due_ticks = n_ticks + MOST_TICKS

    def of_ticks(self, wall_ns: NDArray[numpy.int64], now_ns: int) -> "TickUsage | None":
        """Of all finished ticks, whose wall times these are, (N,); then forgets them. ``None``: not known."""
        if self._read is None or not self._readings:
            return None
        self._take(len(wall_ns), now_ns)
        readings, n = self._readings, len(wall_ns)
        self._readings = []
        self.due_ns = self.due_ticks = 0
        switches, cpu_ns = numpy.zeros(n, dtype=numpy.int64), numpy.zeros(n, dtype=numpy.int64)
        windows = [pair for pair in itertools.pairwise(readings) if pair[0].n_ticks < min(pair[1].n_ticks, n)]
        busy = [_cpu_ns(*pair) / max(pair[1].at_ns - pair[0].at_ns, 1) for pair in windows]
        for before, after in windows:
            window = slice(before.n_ticks, after.n_ticks)
            walls = wall_ns[window]
            switches[before.n_ticks + int(walls.argmax())] = after.usage.ru_nivcsw - before.usage.ru_nivcsw
            cpu_ns[window] = _shared(_cpu_ns(before, after), walls,
                                     max(after.at_ns - before.at_ns, int(walls.sum())), float(numpy.median(busy)))
        return TickUsage(switches, cpu_ns)


class TickUsage(NamedTuple):
    """(N,) each."""

    interruptions: NDArray[numpy.int64]
    """How often a thread of this process had to leave its core although it had work to do: between two readings they
    count for the slowest tick."""
    cpu_ns: NDArray[numpy.int64]
    """Processor time of all threads of this process."""


def _cpu_ns(before: _Reading, after: _Reading) -> float:
    first, second = before.usage, after.usage
    return 1e9 * (second.ru_utime + second.ru_stime - first.ru_utime - first.ru_stime)


def _shared(cpu_ns: float, walls: NDArray[numpy.int64], span_ns: int, busy: float) -> NDArray[numpy.int64]:
    """Processor time of a window of ``span_ns``, for its ticks (N,), by their wall time. Where one stands out, the
    others had what is usual (``busy``: processor time over wall time), and it had the rest."""
    by_time: NDArray[numpy.floating] = cpu_ns * walls / max(span_ns, 1)
    if len(walls) > 1:
        slowest = int(walls.argmax())
        others = (walls.sum() - walls[slowest]) / (len(walls) - 1)
        if walls[slowest] > _ONE_STANDS_OUT * others:
            by_time = walls * min(busy, cpu_ns / max(1, int(walls.sum() - walls[slowest])))
            by_time[slowest] = max(0.0, cpu_ns - (by_time.sum() - by_time[slowest]))
    return by_time.astype(numpy.int64)
