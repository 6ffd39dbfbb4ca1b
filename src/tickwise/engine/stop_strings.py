"""Ends a text at a stop string, also when the string arrives in pieces."""

from collections.abc import Sequence


class StopStringFilter:
    """Passes text on as soon as it cannot be part of a stop string.

    The text ends before the stop string that is complete first (the longest of them when several end
    at the same character), so the result does not depend on how the text was cut into pieces.

    >>> filter = StopStringFilter(["END"])
    >>> filter.push("one E"), filter.push("N"), filter.push("D two"), filter.stopped
    ('one ', '', '', True)
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """Take the next piece of text; returns what may be shown now."""
        if self.stopped:
            return ""
        if not self._stop:
            return piece
        text = self._held + piece
        found = self._first_complete(text)
        if found is not None:
            self.stopped, self._held = True, ""
            return text[:found]
        keep = self._possible_start(text)
        shown, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return shown

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held

    def _first_complete(self, text: str) -> int | None:
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stop if stop in text]
        return min(found)[1] if found else None

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins a stop string."""
        longest = max(len(stop) for stop in self._stop) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
