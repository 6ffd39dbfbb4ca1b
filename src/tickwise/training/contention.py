"""Whether other programs take the cores that a run trains on, and which number of threads is faster then.

Threads that compute one product together wait for the slowest of them. When another program has one's core, all wait:
two threads on two cores, one of them shared, train several times slower than one thread.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from tickwise.core.device import usable_cores

_STAT = Path("/proc/stat")
_LOOK_EVERY_S = 5.0
_LOOKS_IN_A_ROW = 3
_TOO_MANY_BY = 0.5
"""So many threads more than there are free cores are one too many: the scheduler lets a program that wants a whole
core have two thirds of it when two of our threads want both."""


def core_seconds(stat: Path = _STAT) -> tuple[float, float] | None:
    """Seconds that the cores of this process were busy since the machine started, and those of this process on them;
    ``None`` where the system does not tell (Linux does, proc_stat(5))."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    by_core = [fields for fields in map(str.split, lines) if fields and fields[0] in mine and len(fields) > 8]
    if len(by_core) < len(mine):
        return None
    busy = 0
    for fields in by_core:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
        busy += user + nice + system + irq + softirq + steal
    return busy / os.sysconf("SC_CLK_TCK"), time.process_time()


class OtherPrograms:
    """Watches how many cores other programs use while ``threads`` threads of this process compute."""

    def __init__(
        self, threads: int, *, n_cores: int | None = None,
        read: Callable[[], tuple[float, float] | None] = core_seconds, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads, self._n_cores = threads, n_cores or usable_cores()
        self._read, self._clock = read, clock
        self._before, self._looked_s = read(), clock()
        self._crowded = 0

    def warning(self) -> str | None:
        """One line, once, when other programs have been in the way for a quarter of a minute; else ``None``."""
        now_s = self._clock()
        elapsed_s = now_s - self._looked_s
        if self._before is None or elapsed_s < _LOOK_EVERY_S:
            return None
        now = self._read()
        if now is None:
            return None
        others = max(0.0, (now[0] - self._before[0] - (now[1] - self._before[1])) / elapsed_s)
        self._before, self._looked_s = now, now_s
        in_the_way = self._threads - (self._n_cores - others) >= _TOO_MANY_BY
        left = max(1, int(self._n_cores - others + _TOO_MANY_BY / 2))
        self._crowded = self._crowded + 1 if in_the_way and left < self._threads else 0
        if self._crowded < _LOOKS_IN_A_ROW:
            return None
        self._before = None
        return (f"other programs use {others:.1f} of the {self._n_cores} cores, which slows this run down; while they "
                f"do, OMP_NUM_THREADS={left} is faster than {self._threads} threads")
