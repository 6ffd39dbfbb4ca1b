"""How well an index finds the passages that questions are about, and from which score on it may say that it did."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from tickwise.core.errors import ConfigError, DataError
from tickwise.core.paths import write_text_atomic
from tickwise.data.passages import Question
from tickwise.evaluation.classification import Score
from tickwise.evaluation.ranking import ranking_scores
from tickwise.tasks.passage_index import Hit, PassageIndex

THRESHOLD = 0.26
"""Where an index has none of its own, for BM25 alone. The mean of what ``choose_threshold`` chose on the questions of
CMRC 2018 (its development part, 0.27) and on the first half of XQuAD's paragraphs in English (0.29) and Chinese (0.20):
it depends on the texts."""
_DEEPEST = 10


@dataclass(frozen=True)
class Threshold:
    """The lowest score at which a passage counts as found, and what it did on the questions that it was chosen on."""

    value: float
    found: float
    """Share of questions that were answered with a passage."""
    right: float
    """Share of these whose passage was the right one."""
    refused: float
    """Share of questions answered with "not found" when their passage was taken away."""
    questions: int
    embedding_weight: float
    """The share of the embeddings in the scores."""


def right_passages(index: PassageIndex, questions: Sequence[Question]) -> list[frozenset[int]]:
    """The numbers of the passages that are each question's paragraph, or pieces of it.

    ``DataError`` for a question without a paragraph, or with one that is not in the index.
    """
    numbers: dict[str, list[int]] = {}
    for number, passage in index.passages():
        numbers.setdefault(passage.text.strip(), []).append(number)
    pieces: dict[str, frozenset[int]] = {}
    for row, question in enumerate(questions, start=1):
        context = question.context.strip()
        if context in pieces:
            continue
        if not context:
            raise DataError(f"question {row} ({question.text[:40]!r}) has no paragraph to be found")
        whole = numbers.get(context)
        found = whole or [n for text, own in numbers.items() if text in context for n in own]
        if not found:
            raise DataError(f"question {row} ({question.text[:40]!r}): its paragraph is not in the index")
        pieces[context] = frozenset(found)
    return [pieces[question.context.strip()] for question in questions]


def evaluate_retrieval(index: PassageIndex, questions: Sequence[Question], *, ks: Sequence[int] = (1, 5, 10),
                       embedding_weight: float | None = None, samples: int = 1000, seed: int = 0) -> dict[str, Score]:
    """recall@k and mean reciprocal rank (of the first ``max(ks)``) of each question's paragraph."""
    right = right_passages(index, questions)
    found = index.search([q.text for q in questions], max(ks), embedding_weight=embedding_weight)
    return ranking_scores([_paragraphs(hits, own) for hits, own in zip(found, right, strict=True)],
                          [(-1,)] * len(questions), ks, samples, seed)


def _paragraphs(hits: Sequence[Hit], right: Collection[int]) -> list[int]:
    """The ranking with -1 for every piece of the right paragraph."""
    return [-1 if hit.number in right else hit.number for hit in hits]


def choose_threshold(index: PassageIndex, questions: Sequence[Question],
                     embedding_weight: float | None = None) -> Threshold:
    """The score that best tells questions that the documents answer from such that they do not: the mean of two shares
    is highest, of questions answered as they are, and of questions refused when their own paragraph is taken away (the
    rest of the documents stays, which makes it hard)."""
    right = right_passages(index, questions)
    texts = [question.text for question in questions]
    present = index.search(texts, 1, embedding_weight=embedding_weight)
    absent = index.search(texts, 1, without=right, embedding_weight=embedding_weight)
    there, gone = ([hits[0].score if hits else 0.0 for hits in found] for found in (present, absent))
    return measure_threshold(best_cut(there, gone), present, absent, right, index.weight(embedding_weight))


def best_cut(there: Sequence[float], gone: Sequence[float]) -> float:
    """The score from which on questions are best said to be answered: the mean of two shares is highest, of the scores
    ``there`` (the documents have the answer) that reach it, and of the scores ``gone`` that do not."""
    candidates = numpy.unique(numpy.concatenate([there, gone]))
    answered = 1 - numpy.searchsorted(numpy.sort(there), candidates, side="left") / len(there)
    refused = numpy.searchsorted(numpy.sort(gone), candidates, side="left") / len(gone)
    return float(candidates[int(numpy.argmax(answered + refused))])


def evaluate_threshold(index: PassageIndex, questions: Sequence[Question], value: float,
                       embedding_weight: float | None = None) -> Threshold:
    """What a threshold does on questions that it was not chosen on."""
    right = right_passages(index, questions)
    texts = [question.text for question in questions]
    return measure_threshold(value, index.search(texts, 1, embedding_weight=embedding_weight),
                             index.search(texts, 1, without=right, embedding_weight=embedding_weight), right,
                             index.weight(embedding_weight))


def measure_threshold(value: float, present: Sequence[Sequence[Hit]], absent: Sequence[Sequence[Hit]],
                      right: Sequence[Collection[int]], embedding_weight: float) -> Threshold:
    """From the best hits of questions with their paragraph in the index, and without it."""
    answered = [(hits[0].number in own) for hits, own in zip(present, right, strict=True)
                if hits and hits[0].score >= value]
    refused = sum(not hits or hits[0].score < value for hits in absent)
    return Threshold(value, len(answered) / len(present), sum(answered) / max(len(answered), 1),
                     refused / len(absent), len(present), embedding_weight)


def keep_threshold(path: Path, threshold: Threshold) -> None:
    """Write the threshold into the header of the index in ``path``, which uses it from then on."""
    keep_in_header(path, {"threshold": dataclasses.asdict(threshold)})


def keep_in_header(path: Path, values: Mapping[str, Any]) -> None:
    """Write ``values`` into the header of the index in ``path``, beside what it has."""
    file = path / "index.json"
    header = json.loads(file.read_text(encoding="utf-8"))
    write_text_atomic(file, json.dumps(header | dict(values), ensure_ascii=False, indent=2) + "\n")


def threshold_of(index: PassageIndex, embedding_weight: float | None = None) -> float:
    """The one that was chosen for this index; else the one that was chosen on other data for BM25 alone, times the
    share of BM25 in the score (a cosine can only add to that).

    ``ConfigError`` when the index's threshold was chosen with another share of the embeddings.
    """
    weight, kept = index.weight(embedding_weight), index.header.get("threshold")
    if not isinstance(kept, dict):
        return (1 - weight) * THRESHOLD
    if kept["embedding_weight"] != weight:
        raise ConfigError(f"--embedding-weight {weight:g}: the threshold of this index was chosen with "
                          f"{kept['embedding_weight']:g}; leave it out, --calibrate anew, or give --threshold")
    return float(kept["value"])
