"""The one line about other programs: when it comes, what it says, and that it comes once."""

import multiprocessing
import os
import time

import pytest

from tickwise.core import console
from tickwise.training.contention import OtherPrograms, core_seconds
from tickwise.training.live import Journal


class Machine:
    """Cores whose use the test sets: ``others`` and ``own`` are cores' worth of time."""

    def __init__(self, own, others):
        self.own, self.others = own, others
        self.clock_s = self.busy_s = self.own_s = 0.0

    def passes(self, seconds):
        self.clock_s += seconds
        self.busy_s += seconds * (self.own + self.others)
        self.own_s += seconds * self.own

    def watched(self, threads, n_cores):
        return OtherPrograms(threads, n_cores=n_cores, read=lambda: (self.busy_s, self.own_s),
                             clock=lambda: self.clock_s)


def warnings(machine, watch, seconds):
    """What is said while so much time passes, looked at four times a second."""
    said = []
    for _ in range(4 * seconds):
        machine.passes(0.25)
        line = watch.warning()
        if line is not None:
            said.append((machine.clock_s, line))
    return said


def test_a_neighbour_on_one_of_two_cores_is_named_once_with_the_remedy():
    machine = Machine(own=1.3, others=0.7)
    watch = machine.watched(threads=2, n_cores=2)
    said = warnings(machine, watch, 120)
    assert [at for at, _ in said] == [15.0]
    assert "other programs use 0.7 of the 2 cores" in said[0][1]
    assert "OMP_NUM_THREADS=1 is faster than 2 threads" in said[0][1]


def test_the_advice_leaves_the_others_what_they_use():
    machine = Machine(own=5.5, others=2.4)
    (said,) = warnings(machine, machine.watched(threads=8, n_cores=8), 20)
    assert "OMP_NUM_THREADS=5 " in said[1]


@pytest.mark.parametrize(("threads", "n_cores", "others"), [
    (2, 2, 0.2),  # a desktop's usual noise
    (1, 2, 1.0),  # the other core is free for others
    (1, 1, 0.5),  # there is no smaller number of threads
    (4, 16, 11.0),
])
def test_nothing_is_said_where_nobody_is_in_the_way(threads, n_cores, others):
    machine = Machine(own=threads, others=others)
    assert warnings(machine, machine.watched(threads, n_cores), 60) == []


def test_short_bursts_of_others_are_no_reason():
    machine = Machine(own=1.5, others=0.0)
    watch = machine.watched(threads=2, n_cores=2)
    for _ in range(5):
        machine.others = 1.0
        assert warnings(machine, watch, 10) == []
        machine.others = 0.0
        assert warnings(machine, watch, 10) == []


def test_a_system_that_does_not_tell_is_never_accused(tmp_path):
    assert core_seconds(tmp_path / "nothing") is None
    (tmp_path / "stat").write_text("cpu  1 2 3 4 5 6 7 8\nintr 0\n")
    assert core_seconds(tmp_path / "stat") is None
    machine = Machine(own=1, others=1)
    watch = OtherPrograms(2, n_cores=2, read=lambda: None, clock=lambda: machine.clock_s)
    assert warnings(machine, watch, 60) == []


def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.skipif(core_seconds() is None, reason="needs /proc/stat")
def test_time_of_another_process_is_not_taken_for_our_own():
    other = multiprocessing.get_context("spawn").Process(target=spin, args=(0.6,))
    (busy, own), start = core_seconds(), os.times()
    other.start()
    other.join()
    (busy_later, own_later), end = core_seconds(), os.times()
    spent = end.children_user - start.children_user + end.children_system - start.children_system
    assert spent >= 0.5  # the child measured 0.6 s of itself; both clocks tick in hundredths
    assert busy_later - busy >= spent - 0.1
    assert own_later - own < 0.5 * spent


def test_the_line_appears_beside_the_live_one(tmp_path, capsys):
    machine = Machine(own=1.3, others=0.7)
    console.set_verbosity(console.NORMAL)
    with Journal(tmp_path, machine.watched(threads=2, n_cores=2)) as journal:
        for step in range(80):
            machine.passes(0.25)
            journal.show({"step": step}, None)
    assert capsys.readouterr().err.count("other programs use 0.7 of the 2 cores") == 1
