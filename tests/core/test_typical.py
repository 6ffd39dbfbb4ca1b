import pytest

from tickwise.core.typical import Ticks, Used, typical

MS = 1_000_000


def lost(used, wall_ms=60):
    """What interrupted ticks lost, of which too few were calm to compare them with."""
    return typical(Ticks(stages=[{"ffn": wall_ms * MS}] * 3, used=[used] * 3)).lost_ns / MS


@pytest.mark.parametrize(("used", "expected"), [
    (Used(interruptions=1, cpu_ns=20 * MS, core_wait_ns=10 * MS), 30),
    (Used(interruptions=1, cpu_ns=20 * MS), 120),
    (Used(interruptions=1, cpu_ns=90 * MS, core_wait_ns=10 * MS), 30),
    (Used(interruptions=1, core_wait_ns=500 * MS), 180),
    (Used(interruptions=1), 0),
], ids=["waited-for-a-disk-too", "wait-unknown", "other-threads-ran", "longer-than-the-tick", "nothing-known"])
def test_only_the_queue_for_a_core_is_lost_to_other_programs(used, expected):
    assert lost(used) == expected


def test_what_interrupted_ticks_took_longer_is_lost_where_enough_others_show_it():
    calm, hit = Used(interruptions=0, cpu_ns=10 * MS), Used(interruptions=2, cpu_ns=10 * MS)
    found = typical(Ticks(stages=[{"ffn": 10 * MS}] * 6 + [{"ffn": 13 * MS}], used=[calm] * 6 + [hit]))
    assert (found.lost_ns, found.interrupted, found.chosen_from, found.wall_ns) == (3 * MS, 1, 6, 10 * MS)
    assert found.sentence(7) == ""
