"""Answers from documents: the passages that a question is about, the place in them that answers, or "not found".

The best passages of a search are read, and what is found in them is ranked by

    (1 - w) · (the passage's score in the search) + w · support

where ``support`` tells from 0 to 1 how much speaks for an answer in that passage. Of a trained reader it is made from
the odds that the passage has an answer at all. The probability of a span would not do: places share it with the other
places of their own passage alone, so that it says little of which passage answers (Clark & Gardner 2018). A sum
of the two scores is what Yang et al. 2019 (BERTserini) rank by.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tickwise.core.errors import ConfigError
from tickwise.data.passages import Question, sentence_spans
from tickwise.evaluation.answers import AnswerScores, Rule, answer_scores
from tickwise.tasks.passage_index import Hit, PassageIndex
from tickwise.tasks.retrieve import (
    Outcome,
    Threshold,
    best_cut,
    held_out_shares,
    keep_in_header,
    right_passages,
    shares,
    threshold_of,
)
from tickwise.text.search_terms import search_terms

PASSAGES = 5
READER_WEIGHT = 0.1
"""The w above. On questions of CMRC 2018 that a reader had not seen (376 of the development part, 1,002 of the trial
part) 0.1 and 0.2 found as many answers in five passages, which were more than with less, with more, or in one passage;
0.1 told best what the documents do not answer. For sentences it is as good as any from 0.1 to 0.2."""
SENTENCES = "sentences"
"""The name under which an index keeps the threshold of answers without a reader."""
_READ_AT_ONCE = 32
_BEFORE = 0.5
"""What a term counts in a sentence behind the one that has it."""


class Span(Protocol):
    """Characters ``start`` up to (not including) ``end`` of a passage as an answer; its ``text`` is empty where there
    is none. ``probability`` is the reader's for just this span, None where it tells none; ``support`` as above."""

    @property
    def text(self) -> str: ...

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def probability(self) -> float | None: ...

    @property
    def support(self) -> float: ...


class Reader(Protocol):
    """What finds the answer to a question in a passage, such as ``tasks.answer.Reader``. ``neutral`` is the support
    that an answer needs in a passage whose own score is just that from which on the search finds something."""

    @property
    def neutral(self) -> float: ...

    def answer_all(self, pairs: Sequence[tuple[str, str]]) -> "Sequence[Span]":
        """A span for each (question, passage)."""


@dataclass(frozen=True)
class Sentence:
    """A sentence as a ``Span``; ``support`` is the weight of the question's terms that it covers, as a share of all; a
    term weighs its inverse document frequency in all documents."""

    text: str
    start: int
    end: int
    support: float
    probability: float | None = None


class SentenceReader:
    """The sentence that covers most of the question.

    To choose it, a term of the question weighs its inverse document frequency among the sentences of the passage: what
    the passage is about stands in many of them and does not tell which one answers. A term of the sentence before
    counts half: "They eat mice" goes on about the cats of that one. On 1,200 questions of CMRC 2018 an answer was in
    the chosen sentence of 77.8 %; of 70.7 % with weights from all documents and each sentence by itself.

    Its ``support``, by which passages are told apart, weighs the terms by ``weigh``, which must know all documents:
    frequencies within a passage depend on how many sentences it has.
    """

    neutral = 0.25

    def __init__(self, weigh: Callable[[Iterable[str]], Mapping[str, float]]) -> None:
        """``weigh`` gives the weight of terms, such as ``PassageIndex.term_weights``."""
        self._weigh = weigh

    def answer_all(self, pairs: Sequence[tuple[str, str]]) -> list[Sentence]:
        """Of sentences that cover as much the first; a passage without one is taken whole."""
        terms = [search_terms(question) for question, _ in pairs]
        weights = self._weigh(itertools.chain.from_iterable(terms))
        return [_best_sentence(own, passage, weights) for own, (_, passage) in zip(terms, pairs, strict=True)]


def _best_sentence(asked: Sequence[str], passage: str, rarity: Mapping[str, float]) -> Sentence:
    """``rarity``: the weights of the terms that are ``asked`` for among all documents."""
    spans = sentence_spans(passage) or [(0, len(passage))]
    terms = [set(search_terms(passage[start:end])) for start, end in spans]
    n, n_with = len(spans), Counter(itertools.chain.from_iterable(terms))
    weights = {term: math.log(1 + (n - n_with[term] + 0.5) / (n_with[term] + 0.5)) for term in asked}
    at = max(range(n), key=lambda place: _covered(weights, terms, place))
    return Sentence(passage[slice(*spans[at])], *spans[at],
                    _covered({term: rarity[term] for term in weights}, terms, at))


def _covered(weights: Mapping[str, float], terms: Sequence[Collection[str]], at: int) -> float:
    """The share of the weights whose term stands in the sentence ``at`` or, at ``_BEFORE``, in the one before."""
    own, before = terms[at], terms[at - 1] if at else ()
    found = sum(weight if term in own else _BEFORE * weight for term, weight in weights.items()
                if term in own or term in before)
    return found / (sum(weights.values()) or 1.0)


@dataclass(frozen=True)
class Candidate:
    """What was found in a passage, and its score by both."""

    hit: Hit
    span: Span
    score: float

    def to_json(self) -> dict[str, Any]:
        passage = self.hit.passage
        return {"answer": self.span.text, "score": self.score, "retrieval_score": self.hit.score,
                "probability": self.span.probability, "support": self.span.support, "start": self.span.start,
                "end": self.span.end, "document": passage.source, "place": passage.place, "title": passage.title}


@dataclass(frozen=True)
class DocumentAnswer:
    """``found`` is False when no answer in the passages that were read has a score that reaches the threshold; the
    nearest passage is told all the same."""

    question: str
    found: bool
    candidates: tuple[Candidate, ...]
    """At most one of a passage, the best first."""
    nearest: Hit | None
    """The first passage of the search."""
    unread: float | None = None
    """Where no passage was read because no answer in any could reach the threshold: the highest score that one in the
    nearest could have."""

    @property
    def text(self) -> str:
        """Empty when nothing was found."""
        return self.candidates[0].span.text if self.found else ""

    @property
    def hit(self) -> Hit | None:
        """The passage of the best answer, else the nearest one."""
        return self.candidates[0].hit if self.candidates else self.nearest

    @property
    def span(self) -> Span | None:
        return self.candidates[0].span if self.candidates else None

    @property
    def score(self) -> float | None:
        """Of the best answer."""
        return self.candidates[0].score if self.candidates else None

    def to_json(self) -> dict[str, Any]:
        hit, span = self.hit, self.span
        place = {"start": span.start, "end": span.end} if self.found and span else {}
        return {"question": self.question, "found": self.found, "answer": self.text or None, "score": self.score,
                "retrieval_score": hit.score if hit else None, "probability": span.probability if span else None,
                "support": span.support if span else None, "document": hit.passage.source if hit else None, **place,
                "passage": hit.to_json() if hit else None,
                "candidates": [candidate.to_json() for candidate in self.candidates]}


def check_reading(passages: int | None, reader_weight: float | None) -> None:
    """``ConfigError`` for a number of passages or a weight that cannot be."""
    if passages is not None and passages < 1:
        raise ConfigError(f"--passages {passages}: must be at least 1")
    if reader_weight is not None and not 0 <= reader_weight <= 1:
        raise ConfigError(f"--reader-weight {reader_weight:g}: must be from 0 to 1")


class DocumentAnswers:
    """Answers questions from an index.

    >>> answers = DocumentAnswers(PassageIndex.open(Path("out/index")))       # doctest: +SKIP
    >>> answers.answer(["Who wrote it?"])[0].text                             # doctest: +SKIP
    """

    def __init__(self, index: PassageIndex, reader: Reader | None = None, threshold: float | None = None,
                 embedding_weight: float | None = None, *, passages: int | None = None,
                 reader_weight: float | None = None, kept_as: str = SENTENCES) -> None:
        """``reader`` finds the answer in a passage: its best sentence if left out. ``kept_as`` names the reader among
        those for which the index keeps a threshold. Settings that are left out are those with which that threshold was
        chosen, else the usual ones. ``ConfigError`` for settings that cannot be, and for others than the threshold was
        chosen with unless ``threshold`` is given."""
        check_reading(passages, reader_weight)
        self.index = index
        self.reader: Reader = reader or SentenceReader(index.term_weights)
        self._kept_as = kept_as
        kept: Mapping[str, Any] = (index.header.get("answer_thresholds") or {}).get(kept_as) or {}
        self._embedding_weight = kept.get("embedding_weight") if embedding_weight is None else embedding_weight
        self.passages: int = kept.get("passages", PASSAGES) if passages is None else passages
        self.reader_weight: float = kept.get("reader_weight", READER_WEIGHT) if reader_weight is None else reader_weight
        self.threshold = self._usual_threshold(kept) if threshold is None else threshold

    def _usual_threshold(self, kept: Mapping[str, Any]) -> float:
        """The one that the index keeps for this reader; else the score of a passage at the search's own threshold with
        an answer of neutral support."""
        if not kept:
            found_from = threshold_of(self.index, self._embedding_weight)
            return (1 - self.reader_weight) * found_from + self.reader_weight * self.reader.neutral
        for name, value in self._settings().items():
            if kept[name] != value:
                raise ConfigError(f"--{name.replace('_', '-')} {value:g}: the threshold of this index was chosen with "
                                  f"{kept[name]:g}; leave it out, --calibrate anew, or give --threshold")
        return float(kept["value"])

    def _settings(self) -> dict[str, float]:
        """What a threshold holds for."""
        return {"embedding_weight": self.index.weight(self._embedding_weight), "reader_weight": self.reader_weight,
                "passages": self.passages}

    def answer(self, questions: Sequence[str]) -> list[DocumentAnswer]:
        """An answer to each question."""
        return list(self.each(questions))

    def each(self, questions: Sequence[str]) -> Iterator[DocumentAnswer]:
        """The answers that ``answer`` gives, as soon as each is there."""
        for question, hits, candidates in self._ranked(questions, least=self.threshold):
            found = bool(candidates) and candidates[0].score >= self.threshold
            most = self._most(hits[0]) if hits else math.inf
            yield DocumentAnswer(question, found, candidates, hits[0] if hits else None,
                                 most if most < self.threshold else None)

    def _ranked(self, questions: Sequence[str], *, without: Sequence[Collection[int]] | None = None,
                least: float = 0.0) -> Iterator[tuple[str, list[Hit], tuple[Candidate, ...]]]:
        """Each question with its passages and what was found in them, the best first. Passages whose answer could not
        have a score of ``least`` are not read."""
        w = self.reader_weight
        for start in range(0, len(questions), _READ_AT_ONCE):
            some = questions[start : start + _READ_AT_ONCE]
            barred = None if without is None else without[start : start + _READ_AT_ONCE]
            hits = self.index.search(some, self.passages, without=barred, embedding_weight=self._embedding_weight)
            read = [[hit for hit in own if self._most(hit) >= least] for own in hits]
            spans = iter(self.reader.answer_all(
                [(question, hit.passage.text) for question, own in zip(some, read, strict=True) for hit in own]))
            for question, found, own in zip(some, hits, read, strict=True):
                candidates = [Candidate(hit, span, (1 - w) * hit.score + w * span.support)
                              for hit, span in zip(own, spans, strict=False) if span.text]
                yield question, found, tuple(sorted(candidates, key=lambda candidate: -candidate.score))

    def _most(self, hit: Hit) -> float:
        """The highest score that an answer in a passage could have."""
        return (1 - self.reader_weight) * hit.score + self.reader_weight

    def choose_threshold(self, questions: Sequence[Question]) -> "AnswerThreshold":
        """The score that best tells questions that the documents answer from such that they do not, as the search's own
        threshold is chosen (``tasks.retrieve.choose_threshold``)."""
        right = right_passages(self.index, questions)
        texts = [question.text for question in questions]
        present = [candidates[:1] for *_, candidates in self._ranked(texts)]
        absent = [candidates[:1] for *_, candidates in self._ranked(texts, without=right)]
        outcomes = [Outcome(there[0].score if there else -math.inf, bool(there) and there[0].hit.number in own,
                            gone[0].score if gone else -math.inf)
                    for there, own, gone in zip(present, right, absent, strict=True)]
        value = best_cut(outcomes)
        return AnswerThreshold(
            **vars(shares(outcomes, [value] * len(outcomes))), value=value, questions=len(questions),
            embedding_weight=self.index.weight(self._embedding_weight), reader_weight=self.reader_weight,
            passages=self.passages, held_out=held_out_shares(outcomes, right))

    def keep_threshold(self, path: Path, threshold: "AnswerThreshold") -> None:
        """Write the threshold into the header of the index in ``path``, for this reader."""
        kept = dict(self.index.header.get("answer_thresholds") or {})
        keep_in_header(path, {"answer_thresholds": kept | {self._kept_as: dataclasses.asdict(threshold)}})


@dataclass(frozen=True)
class AnswerThreshold(Threshold):
    """The lowest score at which an answer counts as found; ``right`` are those from the right passage."""

    reader_weight: float
    passages: int


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
