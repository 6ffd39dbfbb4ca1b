"""The page of answers that ``tickwise run answer`` and ``tickwise run ask`` write on request."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tickwise.core.console import say
from tickwise.core.errors import ConfigError, UserError
from tickwise.core.paths import check_file_output

if TYPE_CHECKING:
    from tickwise.report.answers import ShownAnswer


def check_page(path: Path | None, evaluates: bool) -> None:
    """``ConfigError`` for a page without answers of its own, ``OutputError`` where it cannot be written."""
    if path is None:
        return
    if evaluates:
        raise ConfigError("--html: is for answers to questions; leave out --test and --calibrate")
    check_file_output(path)


class AnswerPage:
    """Collects answers for a page, or does nothing without a ``path``. It has the first hundred of them."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._shown: list[ShownAnswer] = []
        self._n = 0

    def add(self, make: "Callable[[], ShownAnswer]") -> None:
        """An answer, which is made where the page has room for it."""
        if self._path is None:
            return
        from tickwise.tasks.answer_places import MOST_SHOWN

        self._n += 1
        if len(self._shown) < MOST_SHOWN:
            self._shown.append(make())

    def write(self, title: str) -> None:
        """Write the page; ``UserError`` without any answer."""
        if self._path is None:
            return
        from tickwise.tasks.answer_places import write_answers

        if not self._n:
            raise UserError("no question was given; there is nothing to write a page of")
        write_answers(self._path, self._shown, title, self._n - len(self._shown))
        say(f"page: {self._path}")
