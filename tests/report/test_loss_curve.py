import json
import xml.etree.ElementTree as ElementTree

import pytest

from tickwise.core.errors import DataError, OutputError
from tickwise.report.loss_curve import loss_svg
from tickwise.report.metrics import loss_series, read_metrics, smoothed


def write(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def falling(n):
    return [{"step": i, "loss": 5.0 - 0.01 * i, "lr": 1e-3} for i in range(n)]


def test_the_picture_is_valid_svg_with_both_curves_named(tmp_path):
    metrics = write(tmp_path / "metrics.jsonl", [*falling(40), {"step": 39, "validation_loss": 4.7}])
    loss_svg(metrics, tmp_path / "loss.svg")
    text = (tmp_path / "loss.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "validation" in text
    assert "moving average" in text


def test_the_same_metrics_give_the_same_bytes(tmp_path):
    metrics = write(tmp_path / "metrics.jsonl", falling(30))
    for name in ("a.svg", "b.svg"):
        loss_svg(metrics, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_training_line_and_a_validation_line_of_one_step_become_one(tmp_path):
    path = write(tmp_path / "m", [{"step": 5, "loss": 2.0}, {"step": 5, "validation_loss": 2.5}])
    assert loss_series(read_metrics(path)) == ([(5, 2.0)], [(5, 2.5)])


def test_steps_repeated_after_a_resume_count_once_as_last_written(tmp_path):
    path = write(tmp_path / "m", [{"step": s, "loss": v} for s, v in [(1, 4.0), (2, 3.0), (2, 2.0), (3, 1.0)]])
    assert loss_series(read_metrics(path))[0] == [(1, 4.0), (2, 2.0), (3, 1.0)]


def test_a_last_line_cut_off_by_a_kill_is_skipped_but_a_broken_middle_is_reported(tmp_path):
    path = tmp_path / "m"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert [m.step for m in read_metrics(path)] == [1]
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo\n{"step": 3, "loss": 1.0}\n')
    with pytest.raises(DataError, match="line 2"):
        read_metrics(path)


def test_a_loss_that_is_not_finite_is_left_out_of_the_curve(tmp_path):
    path = write(tmp_path / "m", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}])
    assert loss_series(read_metrics(path))[0] == [(1, 2.0)]


def test_missing_metrics_and_unwritable_output_are_the_users_to_mend(tmp_path):
    with pytest.raises(DataError, match="no metrics file"):
        loss_svg(tmp_path / "none.jsonl", tmp_path / "loss.svg")
    metrics = write(tmp_path / "m", falling(3))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        loss_svg(metrics, tmp_path / "file" / "loss.svg")
    assert not list(tmp_path.glob("*tmp*"))


def test_the_moving_average_does_not_lag_behind_a_falling_line():
    line = [(i, 10.0 - i) for i in range(9)]
    assert [value for _, value in smoothed(line, 5)] == pytest.approx([value for _, value in line])
