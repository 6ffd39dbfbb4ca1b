"""Ends a text at a stop string, also when the string arrives in pieces."""

from collections.abc import Sequence


class StopStringFilter:
    """Passes text on as soon as it cannot be part of a stop string.

    The text ends before the stop string that is complete first (the longest of them when several end
    at the same character), so the result does not depend on how the text was cut into pieces. Each character
    is looked at once per stop string (Knuth, Morris and Pratt 1977), however long the strings are.

    >>> filter = StopStringFilter(["END"])
    >>> filter.push("one E"), filter.push("N"), filter.push("D two"), filter.stopped
    ('one ', '', '', True)
    """

    def __init__(self, stop: Sequence[str]) -> None:
        # Longest first: the first match at a character is then the one to end at.
        self._stop = sorted(set(stop), key=len, reverse=True)
        self._borders = [_borders(text) for text in self._stop]
        self._matched = [0] * len(self._stop)
        self._held = ""
        self.stopped = False

    def push(self, piece: str, *, may_stop: bool = True) -> str:
        """Take the next piece of text; returns what may be shown now.

        ``may_stop=False``: the piece is not searched, and no stop string begins in it or before it.
        """
        if self.stopped:
            return ""
        if not self._stop:
            return piece
        if not may_stop:
            self._matched = [0] * len(self._stop)
            return self.flush() + piece
        text = self._held + piece
        for end, character in enumerate(piece, start=len(self._held) + 1):
            for index, stop in enumerate(self._stop):
                self._matched[index] = self._longer_match(index, character)
                if self._matched[index] == len(stop):
                    self.stopped, self._held = True, ""
                    return text[: end - len(stop)]
        shown = len(text) - max(self._matched)
        self._held = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held

    def _longer_match(self, index: int, character: str) -> int:
        """How much of a stop string the text now ends with, given what it ended with before."""
        stop, borders, matched = self._stop[index], self._borders[index], self._matched[index]
        while matched and stop[matched] != character:
            matched = borders[matched - 1]
        return matched + (stop[matched] == character)


def _borders(text: str) -> list[int]:
    """For each prefix of ``text``, the length of its longest proper prefix that is also its suffix."""
    borders = [0] * len(text)
    for index in range(1, len(text)):
        length = borders[index - 1]
        while length and text[length] != text[index]:
            length = borders[length - 1]
        borders[index] = length + (text[length] == text[index])
    return borders
