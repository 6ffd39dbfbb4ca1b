"""The classical program for span questions: the window of the passage that shares most with the question.

Richardson et al. 2013 ("MCTest"), algorithm 1: every word counts with its inverse count in the passage, and the window
with the highest sum over the question's words wins. There the window is as long as the question and answer; here its
length is fitted on training questions, which is the best that one length can do. A second program, which knows where
sentences end, answers with the whole sentence of the highest sum.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tickwise.data.span_windows import words_of
from tickwise.data.spans import SpanQuestion
from tickwise.evaluation.answers import Rule, f1
from tickwise.text.words import split_sentences

_LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40)
_FITTED_ON = 400


def _weights(question: SpanQuestion) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Places of the passage's words, and what each counts: log(1 + 1/count) where the question has it, else 0."""
    asked = {question.text[p.start : p.end].casefold() for p in words_of(question.text)}
    places = [(p.start, p.end) for p in words_of(question.passage)]
    spelt = [question.passage[a:b].casefold() for a, b in places]
    counts = Counter(spelt)
    weights = [math.log1p(1 / counts[w]) if w in asked and w[0].isalnum() else 0.0 for w in spelt]
    return places, np.array(weights)


def sliding_window(question: SpanQuestion, length: int) -> str:
    """The ``length`` words in a row with the highest sum; the first of equal ones."""
    places, weights = _weights(question)
    if not places:
        return ""
    length = min(length, len(places))
    sums = np.concatenate(([0.0], np.cumsum(weights)))
    start = int(np.argmax(np.round(sums[length:] - sums[:-length], 9)))
    return question.passage[places[start][0] : places[start + length - 1][1]]


def best_sentence(question: SpanQuestion) -> str:
    """The sentence with the highest sum; the first of equal ones."""
    places, weights = _weights(question)
    words = words_of(question.passage)
    if not places:
        return ""
    sums, at = [], 0
    sentences = split_sentences(question.passage, words)
    for sentence in sentences:
        sums.append(weights[at : at + len(sentence)].sum())
        at += len(sentence)
    best = sentences[int(np.argmax(np.round(sums, 9)))]
    return question.passage[best[0].start : best[-1].end]


@dataclass(frozen=True)
class FittedWindow:
    """The window length with the highest mean F1 on training questions."""

    length: int
    training_f1: float

    def answer(self, question: SpanQuestion) -> str:
        return sliding_window(question, self.length)


def fit_window(training: Sequence[SpanQuestion], rule: Rule) -> FittedWindow:
    """The best of some lengths on (some hundred of) the answerable training questions."""
    answerable = [q for q in training if q.answers]
    chosen = [answerable[i] for i in np.linspace(0, len(answerable) - 1, min(_FITTED_ON, len(answerable))).astype(int)]

    def mean_f1(length: int) -> float:
        return float(np.mean([f1(sliding_window(q, length), q.references, rule) for q in chosen])) if chosen else 0.0

    return max((FittedWindow(length, mean_f1(length)) for length in _LENGTHS), key=lambda one: one.training_f1)


