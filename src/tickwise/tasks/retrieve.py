"""How well an index finds the passages that questions are about, and from which score on it may say that it did."""

import dataclasses
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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
_FOLDS = 5


class Outcome(NamedTuple):
    """What a search found for a question of which it is known which paragraph answers it."""

    there: float
    """The best score among the documents; -inf where nothing was found."""
    right: bool
    """Whether that is of the question's own paragraph."""
    gone: float
    """The best score when that paragraph is taken away; -inf where nothing was found."""


@dataclass(frozen=True)
class Shares:
    """What a threshold does on questions."""

    found: float
    """Share of questions that are answered."""
    right: float
    """Share of these whose passage is the right one."""
    refused: float
    """Share of questions answered with "not found" when their passage is taken away."""


@dataclass(frozen=True)
class Threshold(Shares):
    """The lowest score at which a passage counts as found, and what it did on the questions that it was chosen on."""

    value: float
    questions: int
    embedding_weight: float
    """The share of the embeddings in the scores."""
    held_out: Shares | None = field(default=None, kw_only=True)
    """On the same questions, each answered with a threshold that was chosen on those about other paragraphs (in
    ``_FOLDS`` parts); None where there are too few for that."""


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
    """The score that best tells questions that the documents answer from such that they do not (``best_cut``): as they
    are, and when the question's own paragraph is taken away (the rest of the documents stays, which makes it hard)."""
    right = right_passages(index, questions)
    texts = [question.text for question in questions]
    present = index.search(texts, 1, embedding_weight=embedding_weight)
    absent = index.search(texts, 1, without=right, embedding_weight=embedding_weight)
    outcomes = [Outcome(there[0].score if there else -math.inf, bool(there) and there[0].number in own,
                        gone[0].score if gone else -math.inf)
                for there, own, gone in zip(present, right, absent, strict=True)]
    value = best_cut(outcomes)
    return Threshold(**vars(shares(outcomes, [value] * len(outcomes))), value=value, questions=len(outcomes),
                     embedding_weight=index.weight(embedding_weight), held_out=held_out_shares(outcomes, right))


def best_cut(outcomes: Sequence[Outcome]) -> float:
    """The score from which on questions are best said to be answered. The mean of two shares is highest: of the right
    answers those that reach it, and of the questions without their paragraph those that do not. Of cuts that are as
    good it is the highest, and it lies halfway between the two scores that it divides.

    ``DataError`` where no answer is right, so that any cut is as good as another."""
    right = numpy.sort([outcome.there for outcome in outcomes if outcome.right])
    if not len(right):
        raise DataError("no question is answered from its own paragraph, so that no threshold tells right answers from "
                        "others; give more questions, or other documents")
    gone = numpy.sort([outcome.gone for outcome in outcomes])
    known = numpy.unique([score for outcome in outcomes for score in (outcome.there, outcome.gone)
                          if math.isfinite(score)])
    lowest = known[known <= right[-1]]  # candidates for the lowest score that is answered
    answered = 1 - numpy.searchsorted(right, lowest, side="left") / len(right)
    refused = numpy.searchsorted(gone, lowest, side="left") / len(gone)
    at = len(lowest) - 1 - int(numpy.argmax((answered + refused)[::-1]))
    above = float(lowest[at])
    below = float(lowest[at - 1]) if at else above
    halfway = (below + above) / 2
    return halfway if halfway > below else above


def shares(outcomes: Sequence[Outcome], cuts: Sequence[float]) -> Shares:
    """What happens when each question is answered from its own cut on."""
    answered = [outcome.right for outcome, cut in zip(outcomes, cuts, strict=True) if outcome.there >= cut]
    refused = sum(outcome.gone < cut for outcome, cut in zip(outcomes, cuts, strict=True))
    n = len(outcomes)
    return Shares(len(answered) / n, sum(answered) / max(len(answered), 1), refused / n)


def held_out_shares(outcomes: Sequence[Outcome], right: Sequence[frozenset[int]]) -> Shares | None:
    """``shares`` of cuts that were each chosen on the questions of other parts. Questions about the same paragraph
    (``right``) are in one part; None for fewer than two paragraphs, and where the others of a part have no right
    answer."""
    paragraphs = {paragraph: number for number, paragraph in enumerate(dict.fromkeys(right))}
    n_parts = min(_FOLDS, len(paragraphs))
    parts = [paragraphs[paragraph] % n_parts for paragraph in right]
    others = [[outcome for outcome, part in zip(outcomes, parts, strict=True) if part != left_out]
              for left_out in range(n_parts)]
    if n_parts < 2 or not all(any(outcome.right for outcome in own) for own in others):
        return None
    cuts = [best_cut(own) for own in others]
    return shares(outcomes, [cuts[part] for part in parts])


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
