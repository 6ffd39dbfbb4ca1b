"""SIGTERM ends a block as Ctrl-C does, and forked processes as ever."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from tickwise.core.signals import TerminatedError, handled_by, postponed, termination_interrupts

FORKS = """
import os, signal
from tickwise.core.signals import termination_interrupts

with termination_interrupts():
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(write, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.read(read, 1)
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_sigterm_interrupts_inside_the_block_only():
    with pytest.raises(KeyboardInterrupt) as stop, termination_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.type is TerminatedError
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_who_handles_it_already_goes_on_to():
    received = []
    with handled_by(lambda number, _: received.append(number), signal.SIGTERM) as handles, termination_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
    assert (handles, received) == (True, [signal.SIGTERM])


def test_outside_the_main_thread_nothing_is_changed():
    found = []

    def work():
        with handled_by(lambda *_: None, signal.SIGTERM) as handles, termination_interrupts():
            found.append((handles, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.SIG_DFL)]


def test_a_signal_while_handlers_are_installed_leaves_none_behind(monkeypatch):
    install, received = signal.signal, []

    def stop(number, _frame):
        received.append(number)
        raise TerminatedError

    def install_and_send(number, handler):
        install(number, handler)
        if handler is stop:
            os.kill(os.getpid(), number)

    before = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)]
    monkeypatch.setattr(signal, "signal", install_and_send)
    with pytest.raises(TerminatedError), handled_by(stop, signal.SIGUSR1, signal.SIGTERM):
        pass
    assert received == [signal.SIGUSR1]
    assert [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)] == before


def test_a_handler_that_is_not_pythons_stays(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    installed = []
    monkeypatch.setattr(signal, "signal", lambda *pair: installed.append(pair))
    with handled_by(lambda *_: None, signal.SIGTERM) as handles:
        pass
    assert (handles, installed) == (False, [])


def test_what_is_postponed_comes_after_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt) as stop, termination_interrupts():
        with postponed(signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("the block")
        done.append("not this")
    assert (stop.type, done) == (TerminatedError, ["the block"])


def test_a_forked_process_ends_by_it_as_ever():
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == (f"{-signal.SIGTERM}\n", "")
