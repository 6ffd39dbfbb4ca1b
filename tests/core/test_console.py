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


@pytest.mark.parametrize(("value", "text"), [
    (0, "0"), (2.1, "2.1"), (0.00123, "0.00123"), (99.96, "100"), (210, "210"), (999.6, "1,000"), (1080, "1,080"),
    (-1080, "-1,080"), (1.2e18, "1.2 × 10¹⁸"), (5e-7, "5 × 10⁻⁷"),
])
def test_numbers_for_people_have_no_exponent_in_letters(value, text):
    assert console.format_number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [
    (3.4e-7, "340 ns"), (9.997e-4, "1 ms"), (1.08, "1.08 s"), (1080, "1,080 s"), (0, "0 s"), (float("inf"), "n/a"),
])
def test_durations_change_their_unit_before_they_have_four_digits(seconds, text):
    assert console.format_duration(seconds) == text


@pytest.mark.parametrize(("joules", "text"), [(1.3e-5, "13 µJ"), (0.9999, "1 J"), (1.08e6, "1.08 MJ")])
def test_energies(joules, text):
    assert console.format_energy(joules) == text


def test_plain_progress_gives_share_speed_and_time_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("reading", 100, "MB") as bar:
        now[0] = 10.0
        bar.advance(25)
    assert "reading: 25% 25 MB, 2.5 MB/s, 30s left" in capsys.readouterr().err


def test_work_without_a_unit_has_a_line_only_when_something_changed(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("sweep", 100, None) as bar:
        for amount in (25, 0, 0.1):
            now[0] += 10.0
            bar.advance(amount)
        bar.note("1/3 trials")
        now[0] = 50.2
        bar.advance(0)
    assert capsys.readouterr().err == "sweep: 25%, 30s left\nsweep: 25%, 2m30s left 1/3 trials\n"


def test_quiet_says_nothing(capsys):
    console.set_verbosity(console.QUIET)
    try:
        console.say("hello")
    finally:
        console.set_verbosity(console.NORMAL)
    assert capsys.readouterr().err == ""
