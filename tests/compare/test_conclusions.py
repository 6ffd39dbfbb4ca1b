"""Conclusions follow from the tests, and turn with them."""

import copy

import pytest

from tickwise.compare.cases import NEW, NOISY
from tickwise.compare.conclusions import conclude, times


def estimate(value, p, low=None, high=None):
    return {"value": value, "low": value if low is None else low, "high": value if high is None else high, "p": p,
            "test": ""}


def contestant(name, new, noisy, training=None):
    return {"name": name, "accuracy": {NEW: {"value": new}, NOISY: {"value": noisy}}, "deterministic": 1.0,
            "training": training}


def changed(passed, before=0.2, seconds=12.0, not_yet=6.0):
    return {"what": "x", "bar": 0.76, "before": before, "after": 0.8, "passed": passed, "seconds": seconds,
            "not_yet_s": not_yet, "accuracy": {NOISY: {"value": 0.7}}}


JOB = {
    "plain": NEW, "given": False, "constant": {"name": "always “x”", "score": 0.1},
    "contestants": [contestant("rules", 1.0, 0.2), contestant("decoder", 0.8, 0.6, {"seconds": 60, "flops": 1})],
    "changes": {"program": changed(True, seconds=2e-3, not_yet=0.0), "model": changed(True)},
    "evidence": {
        "program": "rules", "model": "decoder",
        "differences": {NEW: estimate(-0.2, 1e-6), NOISY: estimate(0.4, 1e-9)},
        "learnt": {"program": estimate(0.9, 1e-9), "model": estimate(0.7, 1e-9)},
        "after_changes": estimate(-0.3, 1e-9),
        "time": estimate(1000.0, 2.0**-19, 900.0, 1100.0), "timed": 20, "memory": 50.0,
        "turning_share": {"value": 1 / 3, "low": 0.28, "high": 0.39},
        "prices": {NOISY: {"value": 2.5e-3, "low": 2e-3, "high": 3e-3}},
    },
}


def concluded(**changes):
    job = copy.deepcopy(JOB)
    for path, value in changes.items():
        place = job
        *parents, last = path.split("__")
        for name in parents:
            place = place[name]
        place[last] = value
    return conclude({"job": job})[0]["job"]


def test_who_wins_by_what_factor_and_where_it_turns():
    found = concluded()
    assert found["better"] == {NEW: "program", NOISY: "model"}
    text = " ".join(found["sentences"])
    assert "The program (rules) scores higher on new inputs (program 100.0 %, model 80.0 %; p < 0.001)" in text
    assert "The model (decoder) scores higher on rephrased or noisy inputs (program 20.0 %, model 60.0 %" in text
    assert "1,000 times the program's processor time (95 % interval 900–1,100)." in text
    assert "The model keeps 50 times the program's memory." in text
    assert "It turns at 33 % of inputs rephrased or noisy (95 % interval 28–39): with more of them the model" in text
    assert "After the changes the program scores higher on rephrased or noisy inputs (program 70.0 %, model 70" in text
    assert "On rephrased or noisy inputs, as long as neither is changed for them, the model's longer time" in text
    assert "longer time pays once a wrong answer costs more than 2.5 ms of processor time (95 % interval 2" in text
    assert "the program passed 2 ms after the request, edited and tested (writing the edit is not counted)" in text
    assert "the model passed 12 s after the request (not yet after 6 s)" in text
    assert "energy" not in text
    assert "operations" not in text


@pytest.mark.parametrize("timed", [4, 6])
def test_too_few_timed_answers_are_not_called_no_difference(timed):
    """Four can never show one; six cannot with as many other tests beside them."""
    found = concluded(evidence__time=estimate(17_575.0, 2.0 ** (1 - timed), 16_448.0, 19_121.0),
                      evidence__timed=timed, evidence__after_changes=estimate(-0.3, 0.04))
    text = " ".join(found["sentences"])
    assert found["too_few_timed"]
    assert found["time"] is None
    assert f"The program was faster in all {timed} timed answers, which are too few to show a difference" in text
    assert "No difference" not in text
    assert "16,448" not in text


def test_what_no_test_shows_is_no_difference_and_nothing_follows_from_it():
    found = concluded(evidence__differences={NEW: estimate(-0.2, 0.2), NOISY: estimate(0.4, 1e-9)},
                      evidence__time=estimate(1.2, 0.3, 0.9, 1.6))
    assert found["better"] == {NEW: None, NOISY: "model"}
    assert (found["turning_share"], found["time"], found["prices"]) == (None, None, {})
    text = " ".join(found["sentences"])
    assert "No difference shown on new inputs" in text
    assert "No difference shown between the processor times of an answer (model over program: 1.2)." in text
    assert not found["too_few_timed"]
    assert "No turning point is shown" in text
    assert "pays once" not in text


def test_the_same_winner_at_both_ends_does_not_turn():
    found = concluded(evidence__differences={NEW: estimate(-0.2, 1e-9), NOISY: estimate(-0.1, 1e-9)},
                      evidence__turning_share=None, evidence__prices={})
    assert any(line.startswith("It does not turn in the range tried") for line in found["sentences"])


@pytest.mark.parametrize(("who", "words"), [
    ("model", "It is not shown that the model has learnt this job at this size and budget: its score on new inputs is "
              "not shown to be above that of always “x” (10.0 %), so there are no factors."),
    ("program", "It is not shown that the program does this job")])
def test_who_is_no_better_than_a_constant_answer_gets_no_factors(who, words):
    learnt = JOB["evidence"]["learnt"] | {who: estimate(0.01, 0.4)}
    found = concluded(evidence__learnt=learnt)
    text = " ".join(found["sentences"])
    assert words in text
    assert (found["time"], found["memory"], found["turning_share"], found["prices"]) == (None, None, None, {})
    assert "times the" not in text
    assert "turn" not in text
    assert f"the {who} passed" not in text
    assert "After the changes" not in text
    worse = concluded(evidence__learnt=JOB["evidence"]["learnt"] | {who: estimate(-0.5, 1e-9)})
    assert worse["able"][who] is False, "clearly below a constant answer is not above it"


def test_tests_of_all_jobs_are_corrected_together():
    alone = copy.deepcopy(JOB)
    alone["evidence"]["differences"][NEW]["p"] = 0.01
    others = {f"job {i}": copy.deepcopy(alone) for i in range(5)}
    assert conclude({"one": alone})[0]["one"]["better"][NEW] == "program"
    found, n_tests = conclude(others)
    assert n_tests == 30
    assert all(one["better"][NEW] is None for one in found.values()), "0.01 of five tests of thirty is chance"


def test_a_change_that_failed_or_was_not_needed_is_called_so():
    found = concluded(changes__model=changed(False, seconds=61.0), changes__program=changed(True) | {"accuracy": None})
    text = " ".join(found["sentences"])
    assert "the model did not pass within 61 s" in text
    assert "the program needs no change: its score on the examples is 20 % already, and 76 % passes" in text
    none = concluded(changes={"program": None, "model": None}, evidence__after_changes=None)
    assert "Asked to answer" not in " ".join(none["sentences"])


def test_what_the_changes_come_to_needs_a_test_too():
    assert concluded()["better_after_changes"] == "program"
    found = concluded(evidence__after_changes=estimate(-0.3, 0.4))
    assert found["better_after_changes"] is None
    assert any(line.startswith("After the changes no difference is shown on") for line in found["sentences"])
    assert not any("After" in line for line in concluded(evidence__after_changes=None)["sentences"])


def test_answers_that_change_are_told():
    found = concluded(contestants=[JOB["contestants"][0], JOB["contestants"][1] | {"deterministic": 0.9}])
    assert "Asked three times, the model repeated 90 % of its answers." in found["sentences"]
    assert "Asked three times, both gave every answer again." in concluded()["sentences"]


def test_factors_in_words():
    assert [times(value) for value in (12345.6, 2.5, 0.5, 0.001)] == ["12,346 times", "2.5 times", "0.5 times",
                                                                      "1/1,000 of"]
