"""What of the processor each tick had, from few readings."""

import types

import numpy as np
import pytest

from tickwise.profiling.usage import MOST_TICKS, UsageMeter, usage_reader


class Machine:
    """A process on a core that other programs want too; ``readings`` counts how often it was asked."""

    def __init__(self):
        self.now_ns, self.cpu_ns, self.switches, self.readings = 0, 0, 0, 0

    def read(self):
        self.readings += 1
        return types.SimpleNamespace(ru_nivcsw=self.switches, ru_utime=self.cpu_ns * 1e-9, ru_stime=0.0)

    def run(self, ns, off_ns=0, switches=0, threads=1):
        self.now_ns += ns
        self.cpu_ns += threads * (ns - off_ns)
        self.switches += switches


def ticks(machine, meter, *runs):
    """Wall times of ticks that run as told, with readings where the ledger takes them."""
    walls = []
    meter.before(0, machine.now_ns)
    for run in runs:
        start = machine.now_ns
        machine.run(**run)
        walls.append(machine.now_ns - start)
        if walls[-1] > meter.due_ns or len(walls) >= meter.due_ticks:
            meter.after(len(walls), machine.now_ns)
    return np.array(walls)


CALM = {"ns": 500_000}


def test_calm_ticks_share_a_reading_and_are_known_to_be_calm():
    machine = Machine()
    meter = UsageMeter(machine.read)
    used = meter.of_ticks(ticks(machine, meter, *[CALM] * 80), machine.now_ns)
    assert machine.readings <= 80 / MOST_TICKS + 3
    assert used.interruptions.tolist() == [0] * 80
    assert used.cpu_ns.tolist() == pytest.approx([500_000] * 80, rel=0.001)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_tick_that_was_interrupted_gets_its_interruptions_and_its_own_processor_time(threads):
    machine = Machine()
    meter = UsageMeter(machine.read)
    calm = CALM | {"threads": threads}
    runs = [calm] * 21 + [{"ns": 12_500_000, "off_ns": 12_000_000, "switches": 3, "threads": threads}] + [calm] * 20
    used = meter.of_ticks(ticks(machine, meter, *runs), machine.now_ns)
    assert used.interruptions.tolist() == [0] * 21 + [3] + [0] * 20
    assert used.cpu_ns[21] == pytest.approx(500_000 * threads, rel=0.2)
    assert used.cpu_ns.sum() == pytest.approx(machine.cpu_ns, rel=0.01)


def test_slower_ticks_that_become_usual_share_readings_again():
    machine = Machine()
    meter = UsageMeter(machine.read)
    ticks(machine, meter, *[CALM] * 20, *[{"ns": 1_500_000}] * 200)
    assert machine.readings <= 220 / MOST_TICKS + 12


def test_the_time_between_ticks_is_not_theirs():
    machine = Machine()
    meter = UsageMeter(machine.read)
    walls = []
    for n in range(5):
        machine.run(50_000_000, switches=7)  # the program that asks for tokens
        meter.before(n, machine.now_ns)
        machine.run(500_000)
        walls.append(500_000)
        if walls[-1] > meter.due_ns:
            meter.after(n + 1, machine.now_ns)
    machine.run(90_000_000, switches=9)
    used = meter.of_ticks(np.array(walls), machine.now_ns)
    assert used.interruptions.tolist() == [0] * 5
    assert used.cpu_ns.tolist() == pytest.approx([500_000] * 5, rel=0.01)


def test_a_system_that_does_not_say():
    meter = UsageMeter(None)
    meter.before(0, 0)
    assert meter.due_ns > 10**15
    assert meter.of_ticks(np.array([1, 2]), 10) is None


def test_this_system_is_asked_for_what_it_says(monkeypatch):
    read = usage_reader()
    if read is None:
        pytest.skip("not Linux")
    assert read().ru_utime > 0
    monkeypatch.setattr("sys.platform", "darwin")
    assert usage_reader() is None
