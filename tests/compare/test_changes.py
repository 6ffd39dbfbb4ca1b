"""A change is the same examples for both, and the time until they pass."""

from pathlib import Path

import pytest

from tickwise.compare.cases import NEW, NOISY, SEEN, Case, Material
from tickwise.compare.changes import change
from tickwise.compare.contestants import Classical, Contestant
from tickwise.compare.learners import Budget, Learner
from tickwise.compare.measure import exact
from tickwise.compare.programs import Sorter

PLAIN = tuple(Case(text, "".join(sorted(text))) for text in ("BAC", "CAB", "BCA"))
OTHER = tuple(Case(case.text.lower(), case.answer) for case in PLAIN)
MATERIAL = Material(PLAIN, PLAIN, {SEEN: PLAIN, NEW: PLAIN, NOISY: OTHER}, OTHER, OTHER, "")


class Learnt(Contestant):
    """Right on plain inputs, and on so many of the others."""

    def __init__(self, n_others, plain=True):
        self.n_others, self.plain = n_others, plain

    def answer(self, text):
        if text.islower():
            return "".join(sorted(text.upper())) if text in [case.text for case in OTHER[: self.n_others]] else "?"
        return "".join(sorted(text)) if self.plain else "?"

    def record(self, texts, folder):
        raise AssertionError

    def memory_bytes(self):
        return 0


class Learns(Learner):
    """Passes in round ``n``, and writes down what it was told."""

    def __init__(self, n, forgets=False):
        self.n, self.forgets, self.told = n, forgets, []

    def train(self, folder, budget):
        raise AssertionError

    def tune(self, before, folder, budget):
        self.told.append((before, folder, budget.seconds))
        return Learnt(3 if len(self.told) >= self.n else 0, plain=not self.forgets)


def changed(contestant, learner=None, folder=Path("job")):
    return change(contestant, MATERIAL, exact, learner=learner, folder=folder, budget=Budget(seconds=16, seed=1),
                  most=9)


def test_a_program_is_edited_and_tested(tmp_path):
    program = Sorter()
    found = changed(Classical(program, program.edited), folder=tmp_path)
    assert (found.before, found.bar, found.after, found.passed) == (0, pytest.approx(0.95), 1, True)
    assert 0 < found.seconds < 1
    assert found.accuracy[NOISY].value == 1


def test_a_model_goes_on_from_where_it_was_until_it_passes(tmp_path):
    learner = Learns(3)
    found = changed(Learnt(0), learner, tmp_path)
    assert found.passed
    assert 0 < found.not_yet_s < found.seconds
    befores, folders, seconds = zip(*learner.told, strict=True)
    assert befores == (tmp_path / "model" / "run", folders[0] / "run", folders[1] / "run")
    assert seconds == (1, 1, 2)


@pytest.mark.parametrize("learner", [Learns(99), Learns(1, forgets=True)], ids=["never", "forgets what was plain"])
def test_a_model_that_does_not_pass_is_given_up_after_its_time(learner, tmp_path):
    learner.told.clear()
    found = changed(Learnt(0), learner, tmp_path)
    assert not found.passed
    assert sum(seconds for _, _, seconds in learner.told) == 16


def test_what_passes_already_needs_none_and_a_given_model_has_none(tmp_path):
    found = changed(Learnt(3), Learns(1), tmp_path)
    assert (found.passed, found.seconds, found.accuracy) == (True, 0, None)
    assert changed(Learnt(0), None, tmp_path) is None
