"""What the system says a process has used: processor time, interruptions, pages read, and waiting for a core."""

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy
from numpy.typing import NDArray

_SCHEDULING = "/proc/thread-self/schedstat"
"""Linux: nanoseconds on a core, nanoseconds in the queue for one, turns on a core."""


_OTHERS_EVERY_NS = 5_000_000
"""Between two looks at all threads of the process, which take the time of visiting every one of them."""


class Counted(Protocol):
    """Of one thread or of all, since it began (``resource.getrusage``)."""

    @property
    def ru_nivcsw(self) -> int: ...  # involuntary context switches
    @property
    def ru_nvcsw(self) -> int: ...  # voluntary ones
    @property
    def ru_majflt(self) -> int: ...  # pages that a disk was read for


class Usage(NamedTuple):
    """What was used until a moment."""

    cpu_ns: int
    """Processor time of all threads of the process."""
    interruptions: int
    major_faults: int
    core_wait_ns: int | None
    """How long the thread that asked was ready to run and had no core; ``None``: the system does not say."""
    thread: int
    """Which thread that was."""


class UsageReader:
    """Reads ``Usage`` in some five microseconds, and in a tick, whose own data fills the caches, in about fifteen.

    The other threads' counts are looked at (another fifteen) every five milliseconds: what happened to them since the
    look before is found with the later one. The thread's time in the queue for a core is looked at (six) only after it
    has left its core since the last time: before, it cannot have waited for one, so that no time is missed.
    """

    def __init__(
        self, own: Callable[[], Counted], everyone: Callable[[], Counted], cpu_ns: Callable[[], int],
        scheduling: str = _SCHEDULING, now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._own, self._everyone, self._cpu_ns, self._path, self._now_ns = own, everyone, cpu_ns, scheduling, now_ns
        self._look_at_ns = 0
        self._others = 0, 0
        """Interruptions and pages of the other threads."""
        self._switches = -1
        self._wait_ns: int | None = None
        self._thread: int | None = None
        self._close: Callable[[], object] = bool
        self._file = -1

    def __call__(self) -> Usage:
        thread, now_ns = threading.get_ident(), self._now_ns()
        if now_ns >= self._look_at_ns or thread != self._thread:
            self._look_at_ns = now_ns + _OTHERS_EVERY_NS
            everyone = self._everyone()  # before the own ones, so that nothing is counted twice
            own = self._own()
            self._others = everyone.ru_nivcsw - own.ru_nivcsw, everyone.ru_majflt - own.ru_majflt
        else:
            own = self._own()
        switches = own.ru_nivcsw + own.ru_nvcsw
        if switches != self._switches or thread != self._thread:
            self._switches = switches
            self._wait_ns = self._read(thread)
        interruptions, pages = self._others
        return Usage(self._cpu_ns(), own.ru_nivcsw + interruptions, own.ru_majflt + pages, self._wait_ns, thread)

    def _read(self, thread: int) -> int | None:
        try:
            if thread != self._thread:  # the file is that of the thread that opened it
                self._open(thread)
            _, wait_ns, turns = os.pread(self._file, 80, 0).split()
        except (OSError, ValueError):
            return None
        return int(wait_ns) if int(turns) else None  # a thread that runs has had a turn: here nothing is counted

    def _open(self, thread: int) -> None:
        self._close()
        self._file, self._thread = -1, thread
        self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._file)


USAGE = ("interruptions", "cpu_ns", "core_wait_ns", "major_faults")
"""What is told of each tick."""


def usage_columns(spans: Iterable[tuple[Usage | None, Usage | None]]) -> dict[str, NDArray[numpy.float64]]:
    """``USAGE`` of each tick, from what was used before and after it; NaN: not known."""
    unknown = (numpy.nan,) * len(USAGE)
    rows = [unknown if before is None or after is None else _used(before, after) for before, after in spans]
    return dict(zip(USAGE, numpy.array(rows, dtype=numpy.float64).reshape(-1, len(USAGE)).T, strict=True))


def _used(before: Usage, after: Usage) -> tuple[float, ...]:
    known = before.core_wait_ns is not None and after.core_wait_ns is not None and before.thread == after.thread
    return (after.interruptions - before.interruptions, after.cpu_ns - before.cpu_ns,
            (after.core_wait_ns or 0) - (before.core_wait_ns or 0) if known else numpy.nan,
            after.major_faults - before.major_faults)


def usage_reader() -> UsageReader | None:
    """How to read this process's ``Usage``; ``None`` where the system does not count it."""
    if not sys.platform.startswith("linux"):
        return None
    import resource

    return UsageReader(lambda: resource.getrusage(resource.RUSAGE_THREAD),
                       lambda: resource.getrusage(resource.RUSAGE_SELF), time.process_time_ns)
