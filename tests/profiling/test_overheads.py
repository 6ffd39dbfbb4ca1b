"""What calibration says while it measures."""

from tickwise.core.stages import Stage, mark
from tickwise.profiling.overheads import announced
from tickwise.profiling.reference import stage_seconds


def test_every_round_says_what_is_measured_and_how_far_it_is(capsys):
    assert list(announced("7 ticks", 3)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "calibrating: 7 ticks, round 1 of 3"
    assert [line.split(", ")[1] for line in lines] == ["round 1 of 3", "round 2 of 3", "round 3 of 3"]
    assert all(line.endswith(" left") for line in lines[1:])


def test_reference_runs_are_announced_and_timed_by_stage(capsys):
    def run():
        mark(Stage.FFN)
        sum(range(20_000))
        mark(Stage.HOST)

    (seconds,) = stage_seconds([run], "runs")
    assert seconds[Stage.FFN] > seconds[Stage.HOST] >= 0
    assert "calibrating: 1 runs, round 1 of 4" in capsys.readouterr().err
