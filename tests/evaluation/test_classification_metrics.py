"""Metrics of classification against figures worked out by hand or published."""

import json
import math

import numpy as np
import pytest

from tickwise.core.errors import DataError
from tickwise.evaluation.classification import Judged, compare, evaluate_classes, evaluate_judged
from tickwise.report.classification import ClassificationPage, classification_page

TRUE = np.array([0, 0, 0, 1, 1, 2])
GUESSED = np.array([0, 0, 1, 1, 2, 2])


def certain(classes, n=3):
    return np.eye(n)[classes]


def evaluated(**options):
    return evaluate_classes(certain(GUESSED), TRUE, ("a", "b", "c"), task="t", **options)


def test_figures_by_hand():
    result = evaluated()
    assert result.confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert [(c.precision, c.recall) for c in result.classes] == [(1.0, pytest.approx(2 / 3)), (0.5, 0.5), (0.5, 1.0)]
    value = {name: score.value for name, score in result.metrics.items()}
    assert value["acc"] == value["f1_micro"] == pytest.approx(4 / 6)
    assert value["f1_macro"] == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    # Gorodkin's R_K: (4·6 − (3·2 + 2·2 + 1·2)) / sqrt((36 − 14)(36 − 12))
    assert value["mcc"] == pytest.approx(12 / math.sqrt(22 * 24))
    assert value["ece"] == pytest.approx(2 / 6)


def test_many_classes_take_no_matrix():
    labels = tuple(map(str, range(300_000)))  # their matrix would have 90 thousand million cells
    probabilities = np.zeros((3, len(labels)))
    probabilities[[0, 1, 2], [5, 5, 299_999]] = 1.0
    result = evaluate_classes(probabilities, np.array([5, 5, 7]), labels, task="t", bootstrap_samples=2)
    assert result.pairs.tolist() == [[5, 5, 2], [7, 299_999, 1]]
    assert result.classes[5].f1 == 1.0
    assert result.classes[7].n == 1
    assert result.to_json()["confusion"] == {}
    page = classification_page(ClassificationPage(title="t", labels=labels, confusion=((5, 5, 2), (7, 299_999, 1))))
    assert '<tr><th scope="row">7</th><td>299999</td><td>1</td></tr>' in page
    assert ">5<" not in page


def test_parts_of_texts_are_judged_as_all_of_them():
    chooser = np.random.default_rng(0)
    probabilities, classes = chooser.dirichlet(np.ones(4), 30), chooser.integers(0, 4, 30)
    together = evaluate_classes(probabilities, classes, tuple("abcd"), task="t", bootstrap_samples=20)
    parts = Judged.joined([Judged.of(probabilities[part], classes[part]) for part in (slice(0, 7), slice(7, 30))])
    assert evaluate_judged(parts, classes, tuple("abcd"), task="t", bootstrap_samples=20) == together


def test_a_filter_s_figures():
    result = evaluate_classes(certain([1, 1, 0, 0, 0], 2), np.array([1, 0, 1, 0, 0]), ("ham", "spam"), task="t",
                              positive="spam")
    value = {name: score.value for name, score in result.metrics.items()}
    assert (value["precision"], value["recall"], value["f1"]) == (0.5, 0.5, 0.5)
    assert result.false_alarms == pytest.approx(1 / 3)
    # With two classes it is the phi coefficient: (1·2 − 1·1) / sqrt(2·2·3·3).
    assert value["mcc"] == pytest.approx(1 / 6)


def test_intervals_cover_the_value_and_shrink_with_more_texts():
    generator = np.random.default_rng(0)
    widths = []
    for n in (100, 1600):
        true = generator.integers(0, 2, n)
        guessed = np.where(generator.random(n) < 0.8, true, 1 - true)
        score = evaluate_classes(certain(guessed, 2), true, ("a", "b"), task="t").metrics["acc"]
        assert score.interval.low <= score.value <= score.interval.high
        assert score.interval.stderr == pytest.approx(math.sqrt(0.16 / n), rel=0.25)
        widths.append(score.interval.high - score.interval.low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.35)


def test_texts_that_are_all_right_leave_room_for_others():
    classes = np.array([0] * 30 + [1] * 20)
    metrics = evaluate_classes(certain(classes, 2), classes, ("ham", "spam"), task="t", positive="spam").metrics
    assert metrics["acc"].interval.low == pytest.approx(0.025 ** (1 / 50))  # Clopper & Pearson
    assert metrics["precision"].interval.low == metrics["recall"].interval.low == pytest.approx(0.025 ** (1 / 20))
    assert metrics["acc"].interval.high == 1
    assert metrics["f1_macro"].interval is None
    wrong = evaluate_classes(certain(1 - classes, 2), classes, ("ham", "spam"), task="t").metrics["acc"]
    assert (wrong.interval.low, wrong.interval.high) == (0, pytest.approx(1 - 0.025 ** (1 / 50)))


def test_json_has_the_harness_s_layout():
    shown = json.loads(json.dumps(evaluated(bootstrap_samples=20).to_json("out/m")))
    assert shown["results"]["t"]["acc,none"] == pytest.approx(4 / 6)
    assert shown["results"]["t"]["acc_stderr,none"] > 0
    assert shown["n-samples"]["t"] == {"original": 6, "effective": 6}
    assert shown["higher_is_better"]["t"]["ece"] is False
    assert shown["config"]["model_args"]["path"] == "out/m"


def test_one_text_has_no_interval_and_none_cannot_be_evaluated():
    one = evaluate_classes(certain([0]), np.array([0]), ("a", "b", "c"), task="t")
    assert one.metrics["acc"].interval is None
    with pytest.raises(DataError, match="no texts"):
        evaluate_classes(np.empty((0, 2)), np.empty(0, dtype=np.int64), ("a", "b"), task="t")


def test_mcnemar_by_hand():
    first = np.array([True] * 8 + [False] * 2 + [True] * 90)
    second = np.array([False] * 8 + [True] * 2 + [True] * 90)
    comparison = compare(first, second)
    assert (comparison.only_first, comparison.only_second) == (8, 2)
    assert comparison.mcnemar_p == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert comparison.difference.low < -0.06 < comparison.difference.high


def test_equal_models_do_not_differ_and_unequal_ones_do():
    generator = np.random.default_rng(2)
    good, same = generator.random(2000) < 0.9, generator.random(2000) < 0.9
    bad = generator.random(2000) < 0.8
    assert compare(good, good).mcnemar_p == compare(good, good).bootstrap_p == 1.0
    assert compare(good, same).mcnemar_p > 0.01
    worse = compare(good, bad)
    assert worse.mcnemar_p < 1e-6
    assert worse.bootstrap_p < 1e-3
    assert worse.difference.high < 0
    with pytest.raises(DataError, match="same texts"):
        compare(good, bad[:-1])


def test_no_p_value_of_resamples_is_0():
    """The texts themselves count as one resample."""
    worse, better = np.zeros(400, dtype=bool), np.ones(400, dtype=bool)
    assert compare(worse, better, bootstrap_samples=99).bootstrap_p == pytest.approx(2 / 100)
