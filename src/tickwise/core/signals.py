"""Signals that ask a program to end: Ctrl-C, and SIGTERM, which does the same here."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C, and after SIGTERM."""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came, as ``timeout``, systemd, containers and batch systems send it."""


@contextmanager
def handled_by(handler: Callable[[int, Any], None], *numbers: signal.Signals) -> Iterator[bool]:
    """Inside the block ``handler`` gets these signals; ``False`` outside the main thread, where nobody can get any, and
    where one of them has a handler that is not Python's, which could not be put back."""
    previous = {number: signal.getsignal(number) for number in numbers}
    if threading.current_thread() is not threading.main_thread() or None in previous.values():
        yield False
        return
    try:
        for number in numbers:
            signal.signal(number, handler)
        yield True
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


@contextmanager
def postponed(*numbers: signal.Signals) -> Iterator[None]:
    """These signals wait until the block is over: then the last of them comes."""
    received: list[int] = []
    with handled_by(lambda number, _: received.append(number), *numbers):
        yield
    if received:
        signal.raise_signal(received[-1])


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
