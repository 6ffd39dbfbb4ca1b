"""Signals that ask a program to end: Ctrl-C, and SIGTERM, which does the same here."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C, and after SIGTERM."""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came, as ``timeout``, systemd, containers and batch systems send it."""


@contextmanager
def handled_by(handler: Callable[[int, Any], None], *numbers: signal.Signals) -> Iterator[bool]:
    """Inside the block ``handler`` gets these signals; ``False`` outside the main thread, where nobody can get any."""
    try:
        previous = {number: signal.signal(number, handler) for number in numbers}
    except ValueError:
        yield False
        return
    try:
        yield True
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Inside the block, SIGTERM raises ``TerminatedError``, unless somebody handles it already. Processes that are
    forked inside it end by it as ever."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    own_pid = os.getpid()

    def stop(number: int, _frame: Any) -> NoReturn:
        if os.getpid() != own_pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise TerminatedError

    with handled_by(stop, signal.SIGTERM):
        yield
