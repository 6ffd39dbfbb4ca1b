"""How the C library hands out memory for tensors, set once for a process on Linux.

Left to itself, glibc's malloc cuts tensors out of one heap. What lies free between tensors that live on stays resident:
half as much again as the tensors of a training step, and how much is up to chance. Here tensors from 4 MB on have pages
of their own, which go back to the system when they are freed. Fresh pages cost time, small ones more than they save,
so large tensors ask for huge pages (PyTorch's ``THP_MEM_ALLOC_ENABLE``): a training step is then faster than before
(``records/LOG.md``).
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

OWN_PAGES_FROM = 4 << 20
"""Bytes from which a tensor has pages of its own (M_MMAP_THRESHOLD)."""
KEPT_FREE = 32 << 20
"""Bytes at the heap's end that are kept although they are free (M_TRIM_THRESHOLD)."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SWITCH = "THP_MEM_ALLOC_ENABLE"
_is_tuned = False
_why_not = "only the command line sets it up; in Python, call tickwise.core.allocator.tune() before PyTorch is imported"


def tune() -> bool:
    """Set it up, before PyTorch is imported; whether it is set up now. ``state`` says why not.

    It is not without glibc or huge pages, nor where PyTorch is there already or has been told something else.
    """
    global _is_tuned, _why_not
    if _is_tuned:
        return True
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if "torch" in sys.modules:
        _why_not = "PyTorch was imported before, which reads the setting when it starts"
    elif os.environ.get(_SWITCH, "1") != "1":
        _why_not = f"{_SWITCH} is set to {os.environ[_SWITCH]}"
    elif not _has_huge_pages():
        _why_not = "this system has no transparent huge pages"
    elif mallopt is None:
        _why_not = "the C library is not glibc"
    else:
        os.environ[_SWITCH] = "1"
        mallopt(_M_MMAP_THRESHOLD, OWN_PAGES_FROM)
        mallopt(_M_TRIM_THRESHOLD, KEPT_FREE)
        _is_tuned = True
    return _is_tuned


def is_tuned() -> bool:
    """Whether this process has been set up."""
    return _is_tuned


def give_back() -> None:
    """Return freed memory to the system, wherever it lies; after work whose memory nothing else will need. Nothing
    happens without glibc."""
    if os.name == "posix" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


@contextlib.contextmanager
def bounded(n_bytes: int) -> Iterator[None]:
    """Inside the block this process, all its threads, gets no more than ``n_bytes`` of addresses besides those that it
    has: what asks for more runs out of memory. Nothing is bounded where the system does not tell (Linux does)."""
    try:
        held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        yield
        return
    import resource

    before, most = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (before, most, held + n_bytes) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def state() -> str:
    """What large tensors live in, or why the C library decides; in one line."""
    if _is_tuned:
        return f"tensors from {OWN_PAGES_FROM >> 20} MB on have pages of their own, which go back when they are freed"
    return _why_not


def _has_huge_pages() -> bool:
    try:
        return "[never]" not in _HUGE_PAGES.read_text(encoding="ascii")
    except (OSError, ValueError):
        return False
