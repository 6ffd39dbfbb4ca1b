"""What a slow tick is put down to: other programs, or the program itself."""

import pytest

from tickwise.core.slow_ticks import PhaseOfTicks, compared
from tickwise.core.typical import Ticks, typical

MS = 1_000_000
USUAL = {"ffn": MS, "host": MS // 10}


def slow_tick(ffn_ns, interruptions, cpu_ns):
    n = 20
    ordinary = typical(Ticks(stages=[USUAL] * n, interruptions=[0] * n, cpu_ns=[11 * MS // 10] * n))
    phase = PhaseOfTicks(ticks=n, typical=ordinary, ran=dict.fromkeys(USUAL, n), mean_flops=100.0)
    rows = [{"stage": stage, "duration_ns": ns, "flops": 50, "bound": "overhead"}
            for stage, ns in (("ffn", ffn_ns), ("host", USUAL["host"]))]
    return compared(rows, phase, interruptions, cpu_ns)


def test_what_the_program_itself_computed_is_not_blamed_on_others():
    """100 ms of the program's own arithmetic in a tick that others interrupted for 560 ms."""
    slow = slow_tick(661 * MS, interruptions=115, cpu_ns=102 * MS)
    assert slow.own_ns == pytest.approx(100.9 * MS)
    assert "computed for 102 ms itself, 93 × as long as usual" in slow.why
    assert slow.unusual_ns / slow.wall_ns == pytest.approx(0.846, abs=0.001)
    assert "85 % less" in slow.remedy
    assert "nothing in the model" not in slow.remedy


def test_what_others_took_alone_is_nothing_in_the_model():
    slow = slow_tick(661 * MS, interruptions=115, cpu_ns=3 * MS // 2)
    assert "itself" not in slow.why
    assert "interrupted 115 times" in slow.why
    assert slow.remedy == "nothing in the model; without that 100 % less"


def test_a_wait_without_interruption_names_all_that_it_may_have_been():
    slow = slow_tick(50 * MS, interruptions=0, cpu_ns=2 * MS)
    assert "another thread, memory or a disk, or for a core after that" in slow.why
