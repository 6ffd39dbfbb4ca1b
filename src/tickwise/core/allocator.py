"""How the C library hands out memory for tensors, set once for a process on Linux.

Left to itself, glibc's malloc cuts tensors out of one heap. What lies free between tensors that live on stays resident:
half as much again as the tensors of a training step, and how much is up to chance. Here tensors from 4 MB on have pages
of their own, which go back to the system when they are freed. Fresh pages cost time, small ones more than they save,
so large tensors ask for huge pages (PyTorch's ``THP_MEM_ALLOC_ENABLE``): a training step is then faster than before
(``records/LOG.md``).
"""

import ctypes
import os
import sys
from pathlib import Path

OWN_PAGES_FROM = 4 << 20
"""Bytes from which a tensor has pages of its own (M_MMAP_THRESHOLD)."""
KEPT_FREE = 32 << 20
"""Bytes at the heap's end that are kept although they are free (M_TRIM_THRESHOLD)."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SWITCH = "THP_MEM_ALLOC_ENABLE"
_is_tuned = False


def tune() -> bool:
    """Set it up, before PyTorch is imported; whether it is set up now.

    It is not without glibc or huge pages, nor where PyTorch is there already or has been told something else.
    """
    global _is_tuned
    if _is_tuned or "torch" in sys.modules or os.environ.get(_SWITCH, "1") != "1" or not _has_huge_pages():
        return _is_tuned
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    os.environ[_SWITCH] = "1"
    mallopt(_M_MMAP_THRESHOLD, OWN_PAGES_FROM)
    mallopt(_M_TRIM_THRESHOLD, KEPT_FREE)
    _is_tuned = True
    return True


def is_tuned() -> bool:
    """Whether this process has been set up."""
    return _is_tuned


def _has_huge_pages() -> bool:
    try:
        return "[never]" not in _HUGE_PAGES.read_text(encoding="ascii")
    except (OSError, ValueError):
        return False
