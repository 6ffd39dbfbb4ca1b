"""A question and a piece of its passage as one sequence: ``[CLS] question [SEP] passage [SEP]``, long passages in
overlapping windows, which are made one after the other: a passage of any length takes little more memory than its text.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickwise.core.console import progress
from tickwise.core.errors import ConfigError
from tickwise.data.encoder_inputs import marks_of
from tickwise.data.spans import SpanQuestion
from tickwise.text.segment import has_chinese
from tickwise.text.words import Place, split_characters, split_words
from tickwise.tokenizers.places import placed_ids
from tickwise.tokenizers.tokenizer import Tokenizer

QUESTION, PASSAGE, SHARED, SHARED_PAIR = 0, 1, 2, 3
"""Segments: the question; the passage; passage tokens of a word that the question has; of two such words in a row."""
N_SEGMENTS = 4
LONG_PASSAGE = 1 << 18
"""Characters; of a longer one it is shown how far it has been read."""
_LONGEST_QUESTION_SHARE = 0.5
"""Of the sequence."""
_PIECE = 1 << 16
"""Characters that are tokenized at once."""
_BORDER_WITHIN = 1 << 12
_KEPT = 1 << 22
"""Characters of passages whose tokens are kept for the questions to come."""


@dataclass(frozen=True, slots=True)
class Window:
    """One sequence. ``places`` (T, 2) are the characters of the passage that each token stands for, -1 where it stands
    for none; ``targets`` (2, T) true where an answer begins and where one ends, at the first position where the window
    has none. ``question`` is the question's number."""

    question: int
    ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    places: NDArray[np.int64]
    targets: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class PlacedPassage:
    """A passage's token ids (T), the characters of each token (T, 2), and where its words begin and end (2, W)."""

    text: str
    ids: NDArray[np.integer[Any]]
    places: NDArray[np.integer[Any]]
    words: NDArray[np.integer[Any]]


def place_passage(tokenizer: Tokenizer, text: str) -> PlacedPassage:
    """Tokens and words of ``text``, made piece by piece. Pieces end before single blanks, where no token goes on; only
    a text that has none for thousands of characters is cut elsewhere."""
    number = np.int32 if len(text) <= np.iinfo(np.int32).max else np.int64
    split = split_characters if has_chinese(text) else split_words
    ids, places, words = [], [], []

    def pairs(found: Sequence[tuple[int, int]]) -> NDArray[Any]:
        return np.fromiter(itertools.chain.from_iterable(found), number, 2 * len(found)).reshape(-1, 2)

    with shown_progress("tokenize", len(text), "characters", len(text) > LONG_PASSAGE) as advance:
        for start, end in _pieces(text):
            [placed] = placed_ids(tokenizer, [text[start:end]])
            ids.append(np.array(placed.ids, dtype=number))
            places.append(pairs(placed.places) + number(start))
            words.append(pairs(split(text[start:end])).T.copy() + number(start))
            advance(end - start)
    return PlacedPassage(text, np.concatenate(ids), np.concatenate(places), np.concatenate(words, axis=1))


@contextmanager
def shown_progress(doing: str, total: float, unit: str, wanted: bool) -> Iterator[Callable[[float], None]]:
    """What moves a line of progress on, or nothing unless it is ``wanted``."""
    if not wanted:
        yield lambda amount: None
        return
    with progress(doing, total, unit) as bar:
        yield bar.advance


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while len(text) - start > _PIECE:
        end = start + _PIECE
        for i in range(end - 1, max(start, end - 1 - _BORDER_WITHIN), -1):
            if text[i].isspace() and not text[i - 1].isspace() and not text[i + 1].isspace():
                end = i
                break
        yield start, end
        start = end
    yield start, len(text)


class SpanWindows:
    """Makes windows of at most ``longest`` tokens that begin ``stride`` tokens after each other. Of a question longer
    than ``longest_question`` tokens the end is kept, which says what is asked; such questions are counted in ``n_cut``.
    """

    def __init__(self, tokenizer: Tokenizer, longest: int, stride: int) -> None:
        if longest < 8:
            raise ConfigError(f"an encoder of {longest} tokens has no room for a question and a passage")
        self._tokenizer, self._longest, self._stride = tokenizer, longest, stride
        self._marks = marks_of(tokenizer)
        self.pad = self._marks.pad
        self.longest_question = max(1, int(_LONGEST_QUESTION_SHARE * longest) - 3)
        self.n_cut = 0
        self._kept: dict[str, PlacedPassage] = {}
        self._n_kept = 0

    def make(self, questions: Sequence[SpanQuestion]) -> list[Window]:
        """The windows of all questions, in order; every question has at least one."""
        return list(self.each(questions))

    def each(self, questions: Sequence[SpanQuestion]) -> Iterator[Window]:
        """The windows that ``make`` makes, each when it is asked for."""
        asked = self._tokenizer.encode_batch([question.text for question in questions])
        for number, (question, ids) in enumerate(zip(questions, asked, strict=True)):
            self.n_cut += len(ids) > self.longest_question
            yield from self._windows(number, question, ids[-self.longest_question :], self._placed(question.passage))

    def count(self, question: SpanQuestion) -> int:
        """How many windows the question has."""
        n_asked = min(len(self._tokenizer.encode(question.text)), self.longest_question)
        return len(self._starts(n_asked, len(self._placed(question.passage).ids)))

    def _placed(self, text: str) -> PlacedPassage:
        placed = self._kept.get(text)
        if placed is None:
            self._n_kept += len(text)
            if self._n_kept > _KEPT:
                self._kept.clear()
                self._n_kept = len(text)
            placed = self._kept[text] = place_passage(self._tokenizer, text)
        return placed

    def _room(self, n_asked: int) -> int:
        """Tokens of the passage in one window."""
        return self._longest - n_asked - 3

    def _starts(self, n_asked: int, n_tokens: int) -> range:
        """Where windows begin: the last one ends with the passage."""
        room = self._room(n_asked)
        stride = min(self._stride, room)
        return range(0, max(0, n_tokens - room) + stride, stride)

    def _windows(self, number: int, question: SpanQuestion, asked: list[int],
                 passage: PlacedPassage) -> Iterator[Window]:
        words = SharedWords(question.text)
        front, behind = np.array([self._marks.cls, *asked, self._marks.sep]), np.array([self._marks.sep])
        for start in self._starts(len(asked), len(passage.ids)):
            end = min(start + self._room(len(asked)), len(passage.ids))
            ids = np.concatenate((front, passage.ids[start:end], behind), dtype=np.int64)
            segments = np.full(len(ids), QUESTION, dtype=np.int64)
            segments[len(front) : -1] = words.segments(passage, start, end)
            places = np.full((len(ids), 2), -1, dtype=np.int64)
            places[len(front) : -1] = passage.places[start:end]
            yield Window(number, ids, segments, places, _targets(places, question.answers))


def _targets(places_T2: NDArray[np.int64], answers: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """(2, T) of the answers that are wholly inside."""
    targets = np.zeros((2, len(places_T2)), dtype=np.bool_)
    own = np.flatnonzero(places_T2[:, 1] > places_T2[:, 0])
    for start, end in answers:
        covered = own[(places_T2[own, 1] > start) & (places_T2[own, 0] < end)]
        if not len(covered) or places_T2[covered[0], 0] > start or places_T2[covered[-1], 1] < end:
            continue
        targets[0, covered[0]] = targets[1, covered[-1]] = True
    if not targets.any():
        targets[:, 0] = True
    return targets


def words_of(text: str) -> list[Place]:
    """Words; of text with Han characters every character."""
    return split_characters(text) if has_chinese(text) else split_words(text)


class SharedWords:
    """Tells which of a passage's tokens are of words that ``question`` has."""

    def __init__(self, question: str) -> None:
        asked = [question[p.start : p.end].casefold() for p in words_of(question)]
        self._known, self._pairs = {w for w in asked if w[0].isalnum()}, set(itertools.pairwise(asked))

    def segments(self, passage: "PlacedPassage", start: int, end: int) -> NDArray[np.int64]:
        """The segments of tokens ``start`` up to (not including) ``end``, by whether the question has a token's word,
        or its word and a neighbour."""
        places, (starts, ends) = passage.places[start:end], passage.words
        out = np.full(len(places), PASSAGE, dtype=np.int64)
        numbers = np.searchsorted(ends, places[:, 0], side="right")
        of_words = np.flatnonzero((numbers < len(ends)) & (places[:, 1] > places[:, 0]))
        of_words = of_words[starts[numbers[of_words]] < places[of_words, 1]]
        if not len(of_words):
            return out
        first, behind = max(0, int(numbers[of_words[0]]) - 1), int(numbers[of_words[-1]]) + 2
        spelt = [passage.text[a:b].casefold()
                 for a, b in zip(starts[first:behind].tolist(), ends[first:behind].tolist(), strict=True)]
        kinds = np.array([SHARED if word in self._known else PASSAGE for word in spelt])
        for i, pair in enumerate(itertools.pairwise(spelt)):
            if pair in self._pairs:
                kinds[i : i + 2] = SHARED_PAIR
        out[of_words] = kinds[numbers[of_words] - first]
        return out
