import itertools
import resource
import sys
import threading
import time
import types

import pytest

from tickwise.profiling.usage import UsageReader, usage_columns, usage_reader

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts them")


class System:
    """What the system counts, moved by the test."""

    def __init__(self):
        self.interrupted = self.waited = self.pages = 0
        self.others_interrupted = self.others_pages = 0
        self.cpu_ns = self.now_ns = self.looks = 0

    def own(self):
        return types.SimpleNamespace(ru_nivcsw=self.interrupted, ru_nvcsw=self.waited, ru_majflt=self.pages)

    def everyone(self):
        self.looks += 1
        return types.SimpleNamespace(ru_nivcsw=self.interrupted + self.others_interrupted, ru_nvcsw=self.waited,
                                     ru_majflt=self.pages + self.others_pages)

    def reader(self, scheduling):
        return UsageReader(self.own, self.everyone, lambda: self.cpu_ns, str(scheduling), lambda: self.now_ns)


def told(before, after):
    return {name: column.tolist() for name, column in usage_columns([(before, after)]).items()}


@pytest.fixture
def scheduling(tmp_path):
    path = tmp_path / "schedstat"
    path.write_text("700 100 3\n")
    return path


def test_the_queue_is_looked_at_only_after_the_thread_has_left_its_core(scheduling):
    system = System()
    read = system.reader(scheduling)
    before = read()
    scheduling.write_text("700 900 4\n")
    assert read().core_wait_ns == before.core_wait_ns == 100, "it has not left its core: it cannot have waited"
    system.waited, system.pages, system.cpu_ns = 1, 27, 5
    assert told(before, read()) == {"interruptions": [0], "cpu_ns": [5], "core_wait_ns": [800], "major_faults": [27]}


def test_other_threads_are_looked_at_now_and_then_and_nothing_is_missed_or_counted_twice(scheduling):
    system = System()
    read = system.reader(scheduling)
    readings = [read()]
    for tick in range(12):  # a millisecond each
        system.now_ns += 1_000_000
        system.interrupted += tick in (1, 7)
        system.others_interrupted += tick in (1, 3, 8)
        system.others_pages += 2 * (tick == 4)
        readings.append(read())
    assert system.looks == 3
    used = usage_columns(itertools.pairwise(readings))
    assert used["interruptions"].tolist() == [0, 1, 0, 0, 2, 0, 0, 1, 0, 1, 0, 0]
    assert used["major_faults"].tolist() == [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("text", [None, "", "0 0 0\n", "no number\n"], ids=["none", "empty", "off", "other"])
def test_where_the_system_does_not_say_the_wait_is_not_known(scheduling, text):
    if text is None:
        scheduling.unlink()
    else:
        scheduling.write_text(text)
    used = System().reader(scheduling)()
    assert used.core_wait_ns is None
    columns = usage_columns([(used, used), (None, used)])
    assert str(columns["core_wait_ns"].tolist()) == "[nan, nan]"
    assert str(columns["interruptions"].tolist()) == "[0.0, nan]"


@LINUX
def test_what_another_thread_waited_is_not_compared():
    read = usage_reader()
    mine = read()
    found = []
    other = threading.Thread(target=lambda: found.append(read()))
    other.start()
    other.join()
    assert found[0].thread != mine.thread
    assert str(usage_columns([(mine, found[0])])["core_wait_ns"].tolist()) == "[nan]"


@LINUX
def test_sleeping_is_no_waiting_for_a_core():
    read = usage_reader()
    read()
    start = time.perf_counter_ns()
    before = read()
    if before.core_wait_ns is None:
        pytest.skip("this kernel does not count it")
    time.sleep(0.05)
    after = read()
    assert 0 <= after.core_wait_ns - before.core_wait_ns < time.perf_counter_ns() - start - 49_000_000


@LINUX
def test_it_agrees_with_the_system():
    read = usage_reader()
    before = resource.getrusage(resource.RUSAGE_SELF)
    used = read()
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert before.ru_nivcsw <= used.interruptions <= after.ru_nivcsw
    assert before.ru_majflt <= used.major_faults <= after.ru_majflt
    assert before.ru_utime + before.ru_stime - 0.01 <= used.cpu_ns * 1e-9 <= after.ru_utime + after.ru_stime + 0.01
