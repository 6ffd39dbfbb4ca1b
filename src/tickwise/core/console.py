"""What the user sees while a job runs. All of it goes to stderr; stdout is for results alone."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

QUIET, NORMAL, VERBOSE = 0, 1, 2
_verbosity = NORMAL
_PLAIN_INTERVAL_S = 5.0


def set_verbosity(level: int) -> None:
    """``QUIET`` prints errors only, ``VERBOSE`` also the notes. Process-wide, like ``logging``."""
    global _verbosity
    _verbosity = level


def verbosity() -> int:
    return _verbosity


def say(text: str) -> None:
    """One line that every user should see (unless ``-q``)."""
    if _verbosity >= NORMAL:
        print(text, file=sys.stderr, flush=True)


class SayOnce:
    """``say`` for things that happen again and again: one line on each subject is enough."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, line: str, subject: str) -> None:
        """Say ``line`` unless something was said about ``subject``."""
        if subject not in self._said:
            self._said.add(subject)
            say(line)


def note(text: str) -> None:
    """One line for ``-v``."""
    if _verbosity >= VERBOSE:
        print(text, file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Whether live, redrawn output makes sense."""
    return _verbosity >= NORMAL and sys.stderr.isatty()


def format_seconds(seconds: float) -> str:
    """``7s``, ``3m05s``, ``2h07m``; ``n/a`` when not finite."""
    if seconds != seconds or seconds in (float("inf"), float("-inf")):
        return "n/a"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str | None:
    """``value`` in the largest unit of which it has one, with three digits; ``None`` when it has less than any."""
    for divisor, unit in units:
        if abs(value) >= 0.9995 * divisor:  # from here on three digits round up to one
            scaled = value / divisor
            return f"{scaled:.3g}{unit}" if abs(scaled) < 999.5 else f"{scaled:,.0f}{unit}"
    return None


def format_count(value: float) -> str:
    """``950``, ``12.3k``, ``4.56M``, ``7.89G``; ``5,000P`` beyond the largest unit."""
    units = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    return _scaled(value, units) or f"{value:.3g}"


def format_bytes(value: float) -> str:
    """Decimal units: ``1.5 MB`` is 1,500,000 bytes; ``5,000 EB`` beyond the largest unit."""
    units = ((1e18, " EB"), (1e15, " PB"), (1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"))
    return _scaled(value, units) or f"{value:.0f} B"


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_number(value: float, digits: int = 3) -> str:
    """So many significant digits: ``0.00123``, ``2.1``, ``1,080``; ``1.2 × 10¹⁸`` and ``5 × 10⁻⁷`` beyond."""
    short = f"{value:.{digits}g}"
    if "e" not in short:
        return f"{float(short):,.{digits}g}" if abs(value) < 1000 else f"{float(short):,.0f}"
    if 1 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    mantissa, _, exponent = short.partition("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def format_duration(seconds: float) -> str:
    """Of a measured or modelled time: ``340 ns``, ``712 µs``, ``1.3 ms``, ``2.41 s``, ``1,080 s``; ``n/a`` when not
    finite."""
    if not math.isfinite(seconds):
        return "n/a"
    units = ((1.0, " s"), (1e-3, " ms"), (1e-6, " µs"), (1e-9, " ns"))
    return _scaled(seconds, units) or f"{format_number(seconds)} s"


def format_difference(seconds: float) -> str:
    """``+712 µs``, ``-1.3 ms``: as ``format_duration``, with a sign."""
    return f"{'-' if seconds < 0 else '+'}{format_duration(abs(seconds))}"


def format_energy(joules: float) -> str:
    """``12.5 µJ``, ``3.2 mJ``, ``41 J``, ``1.08 MJ``."""
    units = ((1e9, " GJ"), (1e6, " MJ"), (1e3, " kJ"), (1.0, " J"), (1e-3, " mJ"), (1e-6, " µJ"))
    return _scaled(joules, units) or f"{format_number(joules)} J"


class ProgressBar(Protocol):
    """What ``progress`` yields: ``advance(n)`` moves on by n units, ``note`` sets a short text beside it."""

    def advance(self, amount: float) -> None: ...

    def note(self, text: str) -> None: ...


class _Plain:
    def __init__(self, description: str, total: float | None, unit: str | None) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done, self.text, self.shown = 0.0, "", ""
        self.start = self.last = time.monotonic()

    def advance(self, amount: float) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last >= _PLAIN_INTERVAL_S:
            self.last = now
            self._line(now)

    def note(self, text: str) -> None:
        self.text = text

    def _line(self, now: float) -> None:
        rate = self.done / max(now - self.start, 1e-9)
        share = left = ""
        if self.total:
            share = f" {100 * self.done / self.total:.0f}%"
            left = f", {format_seconds((self.total - self.done) / rate)} left" if rate > 0 else ""
        if self.unit is not None:
            say(f"{self.description}:{share} {format_count(self.done)} {self.unit}, "
                f"{format_count(rate)} {self.unit}/s{left} {self.text}".rstrip())
        elif self.shown != (shown := f"{share} {self.text}"):
            self.shown = shown
            say(f"{self.description}:{share}{left} {self.text}".rstrip())


class _Rich:
    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task

    def advance(self, amount: float) -> None:
        self._bar.advance(self._task, amount)

    def note(self, text: str) -> None:
        self._bar.update(self._task, note=text)


@contextlib.contextmanager
def progress(description: str, total: float | None, unit: str | None = "items") -> Iterator[ProgressBar]:
    """A bar with speed and time left on a terminal, a plain line every few seconds without one.

    ``total`` is in ``unit``; ``None`` when it is not known beforehand. Work without a unit that anyone reads (``None``)
    has a line only when its share or its note is another.
    """
    if not is_terminal():
        yield _Plain(description, total, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(show_speed=True),
               TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Rich(bar, bar.add_task(description, total=total, note=""))
