"""What it costs to change the behaviour: the time from the request to examples that pass, the same for both.

The change asked for is to answer rephrased or noisy inputs. Examples of such inputs (``change_development``) pass once
their score is 95 % of what the contestant had on plain ones before; plain ones must keep as much. A program is edited
and tested; a model is trained further, in rounds of doubling length with a test after each, until it passes or the time
is over. The edits were written beforehand: a person's time is in no figure.
"""

import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tickwise.compare.cases import Material
from tickwise.compare.contestants import Classical, Contestant
from tickwise.compare.learners import Budget, Learner
from tickwise.compare.measure import Accuracy, Score, accuracy, scores_of

_KEEPS = 0.95
_ROUNDS = (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the time that a model may train."""


@dataclass(frozen=True)
class Changed:
    """How the change went. Seconds are by the clock."""

    what: str
    bar: float
    """What the examples' score must reach."""
    before: float
    """Their score without the change."""
    after: float
    passed: bool
    seconds: float
    """Until they passed, or until it was given up."""
    not_yet_s: float
    """The longest time after which they did not pass."""
    accuracy: Mapping[str, Accuracy] | None
    """Of the job's cases after the change; ``None`` without one."""
    scores: Mapping[str, tuple[float, ...]] | None
    """Likewise, of each case."""

    def as_json(self) -> dict[str, Any]:
        """All but what belongs to single cases."""
        return {name: value for name, value in asdict(self).items() if name != "scores"}


class _Exam:
    """The examples that must pass."""

    def __init__(self, contestant: Contestant, material: Material, score: Score, most: int) -> None:
        self._score = score
        self._parts = [material.development[:most], material.change_development[:most]]
        plain, self.before = self.sit(contestant)
        self.bar = _KEEPS * plain
        self.last = self.before

    def sit(self, contestant: Contestant) -> list[float]:
        return [statistics.fmean(scores_of(contestant, part, self._score)) for part in self._parts]

    def passes(self, contestant: Contestant) -> bool:
        plain, self.last = self.sit(contestant)
        return min(plain, self.last) >= self.bar


def change(contestant: Contestant, material: Material, score: Score, *, learner: Learner | None, folder: Path,
           budget: Budget, most: int) -> Changed | None:
    """Change the contestant, testing on at most ``most`` examples of each kind. A model that was trained into ``folder
    / "model"`` is trained further by ``learner``; ``None`` for one that was given."""
    if learner is None and not isinstance(contestant, Classical):
        return None
    exam = _Exam(contestant, material, score, most)
    if exam.before >= exam.bar:
        return Changed("nothing", exam.bar, exam.before, exam.before, True, 0.0, 0.0, None, None)
    if isinstance(contestant, Classical):
        attempts: Iterator[tuple[Contestant, str]] = (edit() for edit in (contestant.edited,))
    else:
        assert learner is not None
        attempts = _tuned(learner, folder, budget)
    start, not_yet, passed = time.perf_counter(), 0.0, False
    after, what = contestant, ""
    for after, what in attempts:  # noqa: B007 - what was tried last is told
        passed = exam.passes(after)
        if passed:
            break
        not_yet = time.perf_counter() - start
    seconds = time.perf_counter() - start
    scores = {kind: scores_of(after, cases, score) for kind, cases in material.cases.items()}
    return Changed(what, exam.bar, exam.before, exam.last, passed, seconds, not_yet,
                   {kind: accuracy(values) for kind, values in scores.items()}, scores)


def _tuned(learner: Learner, folder: Path, budget: Budget) -> Iterator[tuple[Contestant, str]]:
    """The model of ``folder / "model"`` after each round of further training."""
    shutil.rmtree(folder / "change", ignore_errors=True)  # of a comparison that was stopped: its time is not known
    before = folder / "model" / "run"
    for number, share in enumerate(_ROUNDS, start=1):
        where = folder / "change" / str(number)
        yield (learner.tune(before, where, Budget(seconds=share * budget.seconds, seed=budget.seed + number)),
               "trained further on rephrased or noisy examples and as many plain ones")
        before = where / "run"
