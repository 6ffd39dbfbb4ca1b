import resource
import sys
import threading
import time
import types

import pytest

from tickwise.profiling.usage import UsageReader, usage_columns, usage_reader

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts them")


class Counts:
    """What the system counts, moved by the test."""

    def __init__(self):
        self.interrupted = self.waited = self.pages = 0

    def __call__(self):
        return types.SimpleNamespace(ru_nivcsw=self.interrupted, ru_nvcsw=self.waited, ru_majflt=self.pages,
                                     ru_utime=0.5, ru_stime=0.25)


@pytest.fixture
def scheduling(tmp_path):
    path = tmp_path / "schedstat"
    path.write_text("700 100 3\n")
    return path


def test_the_queue_is_looked_at_only_after_a_thread_has_left_its_core(scheduling):
    counts = Counts()
    read = UsageReader(counts, str(scheduling))
    before = read()
    scheduling.write_text("700 900 4\n")
    assert read().core_wait_ns == before.core_wait_ns == 100, "no thread has left its core: nothing can have waited"
    counts.waited, counts.pages = 1, 27
    after = read()
    assert after.core_wait_ns == 900
    found = usage_columns([(before, after)])
    assert {name: column.tolist() for name, column in found.items()} == {
        "interruptions": [0], "cpu_ns": [0], "core_wait_ns": [800], "major_faults": [27]}


@pytest.mark.parametrize("text", [None, "", "0 0 0\n", "no number\n"], ids=["none", "empty", "off", "other"])
def test_where_the_system_does_not_say_the_wait_is_not_known(scheduling, text):
    if text is None:
        scheduling.unlink()
    else:
        scheduling.write_text(text)
    used = UsageReader(Counts(), str(scheduling))()
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
    assert after.counted.ru_nvcsw > before.counted.ru_nvcsw
    assert 0 <= after.core_wait_ns - before.core_wait_ns < time.perf_counter_ns() - start - 49_000_000


@LINUX
def test_it_agrees_with_the_system():
    used = usage_reader()()
    now = resource.getrusage(resource.RUSAGE_SELF)
    assert used.counted.ru_utime <= now.ru_utime
    assert used.counted.ru_nivcsw <= now.ru_nivcsw
