"""What the system says a process has used: processor time, interruptions, pages read, and waiting for a core."""

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy
from numpy.typing import NDArray

_SCHEDULING = "/proc/thread-self/schedstat"
"""Linux: nanoseconds on a core, nanoseconds in the queue for one, turns on a core."""


class Counted(Protocol):
    """Of all threads of the process together, since it began (``resource.getrusage``)."""

    @property
    def ru_nivcsw(self) -> int: ...  # involuntary context switches
    @property
    def ru_nvcsw(self) -> int: ...  # voluntary ones
    @property
    def ru_majflt(self) -> int: ...  # pages that a disk was read for
    @property
    def ru_utime(self) -> float: ...  # seconds of processor time
    @property
    def ru_stime(self) -> float: ...


class Usage(NamedTuple):
    """What was used until a moment."""

    counted: Counted
    core_wait_ns: int | None
    """How long the thread that asked was ready to run and had no core; ``None``: the system does not say."""
    thread: int | None
    """Which thread that was."""


class UsageReader:
    """Reads ``Usage`` in some five microseconds. The queue is looked at (another six) only after a thread of the
    process has left its core since the last time: before, nothing can have waited for one, so that no time is
    missed."""

    def __init__(self, counted: Callable[[], Counted], scheduling: str = _SCHEDULING) -> None:
        self._counted, self._path = counted, scheduling
        self._switches = -1
        self._wait_ns: int | None = None
        self._thread: int | None = None
        self._close: Callable[[], object] = bool
        self._file = -1

    def __call__(self) -> Usage:
        counted = self._counted()
        switches = counted.ru_nivcsw + counted.ru_nvcsw
        if switches != self._switches:
            self._switches = switches
            self._wait_ns = self._read()
        return Usage(counted, self._wait_ns, self._thread)

    def _read(self) -> int | None:
        try:
            if self._thread != threading.get_ident():  # the file is that of the thread that opened it
                self._open()
            _, wait_ns, turns = os.pread(self._file, 80, 0).split()
        except (OSError, ValueError):
            return None
        return int(wait_ns) if int(turns) else None  # a thread that runs has had a turn: here nothing is counted

    def _open(self) -> None:
        self._close()
        self._file, self._thread = -1, threading.get_ident()
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
    a, b = before.counted, after.counted
    known = before.core_wait_ns is not None and after.core_wait_ns is not None and before.thread == after.thread
    return (b.ru_nivcsw - a.ru_nivcsw, round(1e9 * (b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime)),
            (after.core_wait_ns or 0) - (before.core_wait_ns or 0) if known else numpy.nan, b.ru_majflt - a.ru_majflt)


def usage_reader() -> UsageReader | None:
    """How to read this process's ``Usage``; ``None`` where the system does not count it."""
    if not sys.platform.startswith("linux"):
        return None
    import resource

    return UsageReader(lambda: resource.getrusage(resource.RUSAGE_SELF))
