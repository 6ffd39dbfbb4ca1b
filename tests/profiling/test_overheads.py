"""What calibration says while it works."""

from types import SimpleNamespace

from tickwise.profiling import overheads
from tickwise.profiling.overheads import announced


def test_every_few_seconds_it_says_how_far_it_is_and_how_long_it_still_takes(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(overheads, "time", SimpleNamespace(monotonic=lambda: now[0]))
    seen = []
    for part in announced("2 ticks", 5, ["a", "b"]):
        seen.append(part)
        now[0] += 3.0
    assert seen == ["a", "b"] * 5
    assert capsys.readouterr().err.splitlines() == [
        "calibrating: 2 ticks", "calibrating: 2 ticks, 20 %, 24s left", "calibrating: 2 ticks, 40 %, 18s left",
        "calibrating: 2 ticks, 60 %, 12s left", "calibrating: 2 ticks, 80 %, 6s left"]
