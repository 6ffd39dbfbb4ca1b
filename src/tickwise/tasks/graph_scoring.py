"""Questions with the answers that they ought to have, put to a graph of facts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tickwise.core.errors import DataError
from tickwise.data.passages import Question, read_questions
from tickwise.data.rows import json_lines, numbered_lines
from tickwise.evaluation.answers import exact_match, f1
from tickwise.evaluation.classification import Score
from tickwise.evaluation.results import mean_score
from tickwise.tasks.graph_answers import GraphAnswer


@dataclass(frozen=True)
class Judged:
    """An answer beside those that are accepted; ``exact``: whether each name given is one of them, ``f1``: the mean of
    theirs. What is not answered has 1 where nothing is accepted, else 0."""

    expected: tuple[str, ...]
    answer: GraphAnswer
    exact: bool
    f1: float

    @property
    def answered(self) -> bool:
        return bool(self.answer.answers)

    @property
    def known(self) -> bool:
        """Whether an answer is expected."""
        return bool(self.expected)

    def to_json(self) -> dict[str, Any]:
        return {**self.answer.to_json(), "expected": list(self.expected), "exact_match": self.exact, "f1": self.f1}


@dataclass(frozen=True)
class GraphScores:
    """Of all questions; exact match and F1 as SQuAD defines them."""

    judged: tuple[Judged, ...]

    def counts(self) -> dict[str, int]:
        """``known``: questions with an expected answer; ``answered`` and ``right``: of those; ``unknown``: questions of
        which nothing is known, and ``silent`` those of them that were not answered."""
        known = [one for one in self.judged if one.known]
        unknown = [one for one in self.judged if not one.known]
        return {"known": len(known), "answered": sum(one.answered for one in known),
                "right": sum(one.exact for one in known), "unknown": len(unknown),
                "silent": sum(not one.answered for one in unknown)}

    def scores(self) -> dict[str, tuple[Score, Score]]:
        """Exact match and F1 of the ``answered`` ones among those with an expected answer, of all those (``known``),
        and of ``all`` questions, where silence is right if nothing is known; without those that have no question."""
        parts = {"answered": [one for one in self.judged if one.known and one.answered],
                 "known": [one for one in self.judged if one.known], "all": list(self.judged)}
        return {name: (mean_score([float(one.exact) for one in part]), mean_score([one.f1 for one in part]))
                for name, part in parts.items() if part}

    def wrong(self) -> list[Judged]:
        """Answered, but not right."""
        return [one for one in self.judged if one.answered and not one.exact]

    def to_json(self) -> dict[str, Any]:
        scores = {name: {"exact_match": _json(exact), "f1": _json(mean_f1)}
                  for name, (exact, mean_f1) in self.scores().items()}
        return {"n": len(self.judged), **self.counts(), "scores": scores,
                "samples": [one.to_json() for one in self.judged]}


def _json(score: Score) -> dict[str, Any]:
    between = score.interval
    return {"value": score.value, "interval": [between.low, between.high] if between else None}


def score_answers(questions: Sequence[Question], ask: Callable[[str], GraphAnswer]) -> GraphScores:
    """The answers that ``ask`` gives, judged."""
    judged = []
    for question in questions:
        answer = ask(question.text)
        expected = tuple(one for one in question.answers if one.strip())
        given = [one.text for one in answer.answers] or [""]
        exact = all(exact_match(text, expected) for text in given)
        judged.append(Judged(expected, answer, exact, sum(f1(text, expected) for text in given) / len(given)))
    return GraphScores(tuple(judged))


def read_expected(sources: Sequence[str]) -> list[Question]:
    """Questions with their accepted answers. ``.jsonl``: rows with ``question`` and ``answers`` (or ``answer``; a text
    or several); ``.json``: SQuAD's format; others: a question and its answers between tabs. No answer, or an empty one,
    means that nothing is known. ``DataError`` with the line of what is not so."""
    found: list[Question] = []
    for source in sources:
        path = Path(source)
        if path.suffix.lower() == ".json":
            found += read_questions([source])
        elif path.suffix.lower() == ".jsonl":
            found += [_of_row(row, f"{source}, row {number}") for number, row in enumerate(json_lines([path]), start=1)]
        else:
            found += _of_table(path)
    if not found:
        raise DataError(f"{', '.join(sources)}: no questions in it")
    return found


def _of_row(row: Any, where: str) -> Question:
    question = row.get("question") if isinstance(row, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{where}: no text 'question' in it")
    names = [name for name in ("answers", "answer") if name in row]
    if len(names) != 1:
        raise DataError(f"{where}: needs either 'answers' or 'answer'; an empty one where nothing is known")
    answers = row[names[0]]
    answers = [answers] if isinstance(answers, str) else [] if answers is None else answers
    if not isinstance(answers, list) or not all(isinstance(one, str) for one in answers):
        raise DataError(f"{where}: its {names[0]} must be a text or a list of texts")
    return Question(question, "", tuple(answers), str(row.get("id", "")))


def _of_table(path: Path) -> list[Question]:
    found = []
    for _, number, line in numbered_lines([path]):
        if not line.strip():
            continue
        question, *answers = (cell.strip() for cell in line.rstrip("\r\n").split("\t"))
        if number == 1 and question.lower() == "question":
            continue
        if not question or not answers:
            raise DataError(f"{path}, line {number}: needs a question and, behind a tab, its answer (nothing where "
                            "nothing is known); mend that line")
        found.append(Question(question, "", tuple(filter(None, answers)), ""))
    return found
