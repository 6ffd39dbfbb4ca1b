"""A question and a piece of its passage as one sequence: ``[CLS] question [SEP] passage [SEP]``, long passages in
overlapping windows."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickwise.core.errors import ConfigError
from tickwise.data.encoder_inputs import marks_of
from tickwise.data.spans import SpanQuestion
from tickwise.text.segment import has_chinese
from tickwise.text.words import Place, split_characters, split_words
from tickwise.tokenizers.places import PlacedIds, placed_ids
from tickwise.tokenizers.tokenizer import Tokenizer

QUESTION, PASSAGE, SHARED, SHARED_PAIR = 0, 1, 2, 3
"""Segments: the question; the passage; passage tokens of a word that the question has; of two such words in a row."""
N_SEGMENTS = 4
_LONGEST_QUESTION_SHARE = 0.5
"""Of the sequence."""


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

    def make(self, questions: Sequence[SpanQuestion]) -> list[Window]:
        """The windows of all questions, in order; every question has at least one."""
        passages = list(dict.fromkeys(question.passage for question in questions))
        placed = dict(zip(passages, placed_ids(self._tokenizer, passages), strict=True))
        asked = self._tokenizer.encode_batch([question.text for question in questions])
        windows: list[Window] = []
        for number, (question, ids) in enumerate(zip(questions, asked, strict=True)):
            windows += self._windows(number, question, ids, placed[question.passage])
        return windows

    def _windows(self, number: int, question: SpanQuestion, asked: list[int], passage: PlacedIds) -> list[Window]:
        self.n_cut += len(asked) > self.longest_question
        asked = asked[-self.longest_question :]
        room = self._longest - len(asked) - 3
        stride = min(self._stride, room)
        kinds = shared_segments(question.text, question.passage, passage.places)
        front = [self._marks.cls, *asked, self._marks.sep]
        windows = []
        start = 0
        while True:
            end = min(start + room, len(passage.ids))
            n = len(front) + end - start + 1
            ids = np.array([*front, *passage.ids[start:end], self._marks.sep], dtype=np.int64)
            segments = np.zeros(n, dtype=np.int64)
            segments[len(front) : n - 1] = kinds[start:end]
            places = np.full((n, 2), -1, dtype=np.int64)
            if end > start:
                places[len(front) : n - 1] = passage.places[start:end]
            windows.append(Window(number, ids, segments, places, _targets(places, question.answers)))
            if end == len(passage.ids):
                return windows
            start += stride


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


def shared_segments(question: str, passage: str, places: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """(T,) the segment of each passage token, by whether the question has its word, or its word and a neighbour."""
    asked = [question[p.start : p.end].casefold() for p in words_of(question)]
    known, pairs = {w for w in asked if w[0].isalnum()}, set(itertools.pairwise(asked))
    words = words_of(passage)
    spelt = [passage[p.start : p.end].casefold() for p in words]
    kinds = [SHARED if word in known else PASSAGE for word in spelt]
    for i, pair in enumerate(itertools.pairwise(spelt)):
        if pair in pairs:
            kinds[i] = kinds[i + 1] = SHARED_PAIR
    out = np.full(len(places), PASSAGE, dtype=np.int64)
    number = 0
    for token, (start, end) in enumerate(places):
        while number < len(words) and words[number].end <= start:
            number += 1
        if number < len(words) and end > start and words[number].start < end:
            out[token] = kinds[number]
    return out
