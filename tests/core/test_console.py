"""Numbers and times as people read them; plain progress lines without a terminal."""

import pytest

from tickwise.core import console


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (185, "3m05s"), (7620, "2h07m"), (float("inf"), "n/a"),
    (float("nan"), "n/a"), (-3, "0s"),
])
def test_seconds(seconds, text):
    assert console.format_seconds(seconds) == text


def test_counts_and_bytes():
    assert console.format_count(12_345) == "12.3k"
    assert console.format_count(999) == "999"
    assert console.format_bytes(1_500_000) == "1.5 MB"
    assert console.format_bytes(12) == "12 B"


@pytest.mark.parametrize(("value", "text"), [
    (999.4, "999 B"), (999.6, "1 kB"), (999_949, "1 MB"), (11_500e12, "11.5 PB"), (2.5e18, "2.5 EB"),
    (5e21, "5,000 EB"), (9.9e30, "9,900,000,000,000 EB"),
])
def test_bytes_of_any_size_are_read_at_a_glance(value, text):
    assert console.format_bytes(value) == text


@pytest.mark.parametrize(("value", "text"), [(999.7, "1k"), (0.25, "0.25"), (999_600, "1M"), (5e18, "5,000P")])
def test_counts_of_any_size_are_read_at_a_glance(value, text):
    assert console.format_count(value) == text


def test_plain_progress_gives_share_speed_and_time_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("reading", 100, "MB") as bar:
        now[0] = 10.0
        bar.advance(25)
    assert "reading: 25% 25 MB, 2.5 MB/s, 30s left" in capsys.readouterr().err


def test_quiet_says_nothing(capsys):
    console.set_verbosity(console.QUIET)
    try:
        console.say("hello")
    finally:
        console.set_verbosity(console.NORMAL)
    assert capsys.readouterr().err == ""
