"""Answers from documents: the passage that a question is about, the place in it that answers, or "not found"."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tickwise.data.passages import Question, sentence_spans
from tickwise.evaluation.answers import AnswerScores, Rule, answer_scores
from tickwise.tasks.passage_index import Hit, PassageIndex
from tickwise.tasks.retrieve import threshold_of
from tickwise.text.search_terms import search_terms

_READ_AT_ONCE = 256


class Span(Protocol):
    """Characters ``start`` up to (not including) ``end`` of a passage as an answer; its ``text`` is empty where there
    is none."""

    @property
    def text(self) -> str: ...

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def probability(self) -> float: ...


class Reader(Protocol):
    """What finds the answer to a question in a passage, such as ``tasks.answer.Reader``."""

    def answer_all(self, pairs: Sequence[tuple[str, str]]) -> "Sequence[Span]":
        """A span for each (question, passage)."""


@dataclass(frozen=True)
class Sentence:
    """A sentence as a ``Span``; ``probability`` is the weight of the question's terms in it, as a share of all."""

    text: str
    start: int
    end: int
    probability: float


class SentenceReader:
    """The sentence that covers most of the question's terms, weighed by their inverse document frequency."""

    def __init__(self, weights: Callable[[Iterable[str]], Mapping[str, float]]) -> None:
        self._weights = weights

    def answer_all(self, pairs: Sequence[tuple[str, str]]) -> list[Sentence]:
        """Of sentences that cover as much the first; a passage without one is taken whole."""
        return [self._read(question, passage) for question, passage in pairs]

    def _read(self, question: str, passage: str) -> Sentence:
        weights = self._weights(search_terms(question))
        total = sum(weights.values()) or 1.0
        sentences = [Sentence(passage[start:end], start, end, self._covered(weights, passage[start:end]) / total)
                     for start, end in sentence_spans(passage)] or [Sentence(passage, 0, len(passage), 0.0)]
        return max(sentences, key=lambda sentence: sentence.probability)

    def _covered(self, weights: Mapping[str, float], sentence: str) -> float:
        return sum(weights[term] for term in weights.keys() & set(search_terms(sentence)))


@dataclass(frozen=True)
class DocumentAnswer:
    """``found`` is False when no passage's score reaches the threshold or the reader finds no answer in the best one;
    the nearest passage is told all the same."""

    question: str
    found: bool
    text: str
    """Empty when nothing was found."""
    hit: Hit | None
    span: Span | None

    def to_json(self) -> dict[str, Any]:
        hit = self.hit.to_json() if self.hit is not None else None
        place = {"start": self.span.start, "end": self.span.end} if self.found and self.span else {}
        return {"question": self.question, "found": self.found, "answer": self.text or None,
                "score": self.hit.score if self.hit else 0.0, **place, "passage": hit}


class DocumentAnswers:
    """Answers questions from an index.

    >>> answers = DocumentAnswers(PassageIndex.open(Path("out/index")))       # doctest: +SKIP
    >>> answers.answer(["Who wrote it?"])[0].text                             # doctest: +SKIP
    """

    def __init__(self, index: PassageIndex, reader: Reader | None = None, threshold: float | None = None,
                 embedding_weight: float | None = None) -> None:
        """``reader`` finds the answer in a passage: its best sentence if left out."""
        self.index = index
        self.reader = reader or SentenceReader(index.term_weights)
        self.threshold = threshold_of(index, embedding_weight) if threshold is None else threshold
        self._embedding_weight = embedding_weight

    def answer(self, questions: Sequence[str]) -> list[DocumentAnswer]:
        """An answer to each question, from the best passage."""
        answers: list[DocumentAnswer] = []
        for start in range(0, len(questions), _READ_AT_ONCE):
            some = questions[start : start + _READ_AT_ONCE]
            best = [hits[0] if hits else None
                    for hits in self.index.search(some, 1, embedding_weight=self._embedding_weight)]
            pairs = [(question, hit.passage.text) for question, hit in zip(some, best, strict=True)
                     if hit is not None and hit.score >= self.threshold]
            spans = iter(self.reader.answer_all(pairs))
            for question, hit in zip(some, best, strict=True):
                if hit is None or hit.score < self.threshold:
                    answers.append(DocumentAnswer(question, False, "", hit, None))
                else:
                    span = next(spans)
                    answers.append(DocumentAnswer(question, bool(span.text), span.text, hit, span))
        return answers


@dataclass(frozen=True)
class AnswerReport:
    """On questions with known answers: exact match and F1 of all, and shares of questions that were answered, and whose
    answer has a reference in it."""

    scores: AnswerScores
    answered: float
    contains: float


def evaluate_answers(answers: DocumentAnswers, questions: Sequence[Question], rule: Rule = "squad") -> AnswerReport:
    """Answer ``questions`` and compare; a question without references wants "not found"."""
    given = answers.answer([question.text for question in questions])
    contains = [any(reference in answer.text for reference in question.answers) if question.answers
                else not answer.found for answer, question in zip(given, questions, strict=True)]
    return AnswerReport(
        answer_scores([answer.text for answer in given], [question.answers for question in questions], rule),
        sum(answer.found for answer in given) / len(given), sum(contains) / len(given))
