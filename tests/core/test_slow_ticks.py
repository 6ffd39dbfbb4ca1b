"""What a slow tick is put down to: other programs, or the program itself."""

import pytest

from tickwise.core.slow_tick_words import compared
from tickwise.core.slow_ticks import PhaseOfTicks
from tickwise.core.typical import Ticks, Used, typical

MS = 1_000_000
USUAL = {"ffn": MS, "host": MS // 10}


def slow_tick(ffn_ns, n=20, number=7, ffn="ffn", flops=50, bound="overhead", others=None, **used):
    """``others``: what the system said of the ticks that it is compared with."""
    stages = {**USUAL, "validation": 0}
    calm = Used(interruptions=0, cpu_ns=11 * MS // 10)
    ordinary = typical(Ticks(stages=[stages] * n, used=[others or calm] * n))
    ran = {**dict.fromkeys(USUAL, n), "validation": 0}
    phase = PhaseOfTicks(ticks=n, typical=ordinary, ran=ran, typical_flops=100.0, first=0)
    rows = [{"tick": number, "stage": stage, "duration_ns": ns, "flops": flops, "bound": bound}
            for stage, ns in ((ffn, ffn_ns), ("host", USUAL["host"]))]
    return compared(rows, phase, Used(**used))


def test_what_the_program_itself_computed_is_not_blamed_on_others():
    """100 ms of the program's own arithmetic in a tick that others interrupted for 560 ms."""
    slow = slow_tick(661 * MS, interruptions=115, cpu_ns=102 * MS)
    assert slow.own_ns == pytest.approx(100.9 * MS)
    assert "computed for 102 ms itself, 93 × as long as usual" in slow.why
    assert slow.saved_ns / slow.wall_ns == pytest.approx(0.846, abs=0.001)
    assert "85 % less" in slow.remedy
    assert "nothing in the model" not in slow.remedy


def test_what_others_took_alone_is_nothing_in_the_model():
    slow = slow_tick(661 * MS, interruptions=115, cpu_ns=3 * MS // 2, core_wait_ns=659 * MS)
    assert "itself" not in slow.why
    assert "interrupted 115 times" in slow.why
    assert slow.remedy == "nothing in the model; without the other programs 100 % less"


def test_a_wait_without_interruption_names_all_that_it_may_have_been():
    slow = slow_tick(50 * MS, interruptions=0, cpu_ns=2 * MS)
    assert "another thread, memory or a disk, or for a core after that" in slow.why


def test_one_interruption_does_not_make_all_waiting_another_programs():
    """As Linux counted it in a cold start: the queue for a core, and pages that were read from a disk."""
    slow = slow_tick(59 * MS, n=1, number=0, interruptions=1, cpu_ns=18 * MS, core_wait_ns=10 * MS, major_faults=27)
    assert "another program held the core for 10 ms (interrupted once), and it waited for 31.1 ms" in slow.why
    assert "(27 major faults); for 41.1 ms of its 59.1 ms no thread of this program ran" in slow.why
    assert slow.remedy.startswith("a cold start: the libraries' pages were read from disk; the next ticks do not pay")
    assert "warm up" in slow.remedy
    assert slow.remedy.endswith("without other programs and the disk 70 % less")


@pytest.mark.parametrize("n", [1, 20])
def test_waiting_is_not_blamed_on_others_where_the_queue_was_short(n):
    slow = slow_tick(59 * MS, n=n, interruptions=1, cpu_ns=2 * MS, core_wait_ns=MS, major_faults=0)
    assert "another program" not in slow.why
    assert "it waited for 56.1 ms, for its own threads, a file or a device" in slow.why
    later = slow_tick(59 * MS, n=n, interruptions=0, cpu_ns=2 * MS, core_wait_ns=0, major_faults=1)
    assert "for a disk or memory (1 major fault)" in later.why
    assert "cold start" not in later.remedy
    assert "pages were read from disk" in later.remedy


@pytest.mark.parametrize("n_ticks", [19, 20])
def test_a_cold_tick_saves_what_it_waited_even_where_that_is_little_of_it(n_ticks):
    """A twentieth of the tick is a sixth of what it took longer: worth a word, and no more than what was measured."""
    slow = slow_tick(16 * MS // 10, n=n_ticks, interruptions=0, cpu_ns=16 * MS // 10, core_wait_ns=0, major_faults=1)
    assert slow.unusual
    assert slow.saved_ns == slow.off_ns == MS // 10
    assert slow.remedy.endswith("without the waiting 6 % less")


def test_where_the_queue_is_not_known_both_are_named():
    slow = slow_tick(59 * MS, interruptions=3, cpu_ns=2 * MS)
    assert "another program held the processor, or it waited (interrupted 3 times)" in slow.why
    assert "other programs" not in slow.remedy
    known = slow_tick(59 * MS, interruptions=3, cpu_ns=2 * MS, core_wait_ns=57 * MS)
    assert "without the other programs" in known.remedy


def test_a_step_that_validates_says_what_others_took_too():
    """Validation is what the step was slow by, and yet for most of its time no thread of the program ran."""
    slow = slow_tick(8_300 * MS, ffn="validation", interruptions=523, cpu_ns=2_000 * MS, core_wait_ns=6_300 * MS)
    assert "in validation, which most ticks do without; another program held the core (interrupted 523" in slow.why
    assert "for 6.3 s of its 8.3 s no thread of this program ran" in slow.why
    assert slow.why.startswith("all of the 8.3 s above the typical tick are in validation")
    assert not slow.unusual
    assert slow.remedy == "without the other programs 76 % less"


def test_a_typical_tick_that_was_interrupted_too_says_nothing_of_what_others_took():
    """All ticks waited for most of their time: what counts is what this very tick waited."""
    busy = Used(interruptions=3, cpu_ns=MS // 4, core_wait_ns=17 * MS // 20)
    slow = slow_tick(3 * MS // 2, others=busy, interruptions=5, cpu_ns=4 * MS // 10, core_wait_ns=12 * MS // 10)
    assert slow.why == ("another program held the core (interrupted 5 times); for 1.2 ms of its 1.6 ms no thread of "
                        "this program ran")
    assert slow.remedy == "nothing in the model; without the other programs 75 % less"
    assert slow.blamed is slow.slowest_stage
    validated = slow_tick(9 * MS, ffn="validation", others=busy, interruptions=0, cpu_ns=9 * MS, core_wait_ns=0)
    assert "in validation, which most ticks do without" in validated.why
    assert validated.blamed.stage == "validation"


def test_where_another_stage_is_to_blame_the_slowest_one_is_spoken_of_too():
    ordinary = typical(Ticks(stages=[{"ffn": 10 * MS, "host": MS}] * 20, used=[Used(interruptions=0)] * 20))
    phase = PhaseOfTicks(ticks=20, typical=ordinary, ran={"ffn": 20, "host": 20}, typical_flops=None, first=0)
    rows = [{"tick": 7, "stage": stage, "duration_ns": ns, "flops": None, "bound": "overhead"}
            for stage, ns in (("ffn", 10 * MS), ("host", 8 * MS))]
    slow = compared(rows, phase, Used(interruptions=0))
    assert slow.why.startswith("ffn took 10 ms, and 10 ms in the typical tick; all of the 7 ms above the typical tick "
                               "are in host, which took 8 × its usual time")


def test_what_the_tick_waited_is_shared_out_to_the_stages_that_took_longer():
    slow = slow_tick(59 * MS, interruptions=1, cpu_ns=2 * MS, core_wait_ns=57 * MS)
    assert sum(slow.off_by_stage.values()) == pytest.approx(slow.off_ns)
    assert slow.off_by_stage["ffn"] == pytest.approx(slow.off_ns)
    alone = slow_tick(59 * MS, n=1, interruptions=1, cpu_ns=2 * MS, core_wait_ns=57 * MS)
    assert sum(alone.off_by_stage.values()) == pytest.approx(alone.off_ns)
    assert 0 < alone.off_by_stage["host"] < USUAL["host"]
    assert slow_tick(59 * MS, interruptions=1, cpu_ns=58 * MS).off_by_stage == {}


def test_more_work_is_said_before_anybody_is_blamed():
    """A first evaluation tick of 64 windows, where the others have few."""
    slow = slow_tick(18 * MS, flops=800, interruptions=0, cpu_ns=18 * MS, core_wait_ns=0)
    assert slow.why == "it did 16.0 × the work of the typical tick"
    assert not slow.unusual
    assert slow.blamed.stage == "ffn"
    held = slow_tick(60 * MS, flops=800, bound="compute", interruptions=9, cpu_ns=18 * MS, core_wait_ns=40 * MS)
    assert "typical tick; another program held the core (interrupted 9 times); for 42.1 ms of its 60.1 ms" in held.why
    assert held.remedy.startswith("nothing in the model; without the other programs")


def test_own_computing_is_told_where_others_took_far_more():
    """A step that imported a library for half a second while others had the core for eight."""
    slow = slow_tick(9000 * MS, interruptions=500, cpu_ns=5 * MS, core_wait_ns=8900 * MS)
    assert "for no more counted work" in slow.why
    assert "this one computed for 5 ms itself, 5 × as long as usual" in slow.why
    assert "nothing in the model" not in slow.remedy
