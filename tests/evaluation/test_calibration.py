"""Probabilities that mean what they say."""

import numpy as np
import pytest

from tickwise.evaluation.calibration import (
    cross_entropy,
    decide,
    expected_calibration_error,
    fit_temperature,
    reliability,
    softmax,
    threshold_for,
)


def drawn(n=20_000, seed=1):
    """Logits whose softmax is exactly how the classes were drawn."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, size=(n, 3))
    cumulated = softmax(logits).cumsum(axis=1)
    return logits, (generator.random((n, 1)) > cumulated).sum(axis=1).clip(max=2)


def error(probabilities, classes):
    right = probabilities.argmax(axis=1) == classes
    return expected_calibration_error(reliability(probabilities.max(axis=1), right))


def test_the_temperature_that_was_applied_is_found():
    logits, classes = drawn()
    assert fit_temperature(logits, classes) == pytest.approx(1.0, abs=0.05)
    assert fit_temperature(3.0 * logits, classes) == pytest.approx(3.0, abs=0.15)
    assert fit_temperature(0.25 * logits, classes) == pytest.approx(0.25, abs=0.02)


def test_scaling_lowers_the_calibration_error():
    logits, classes = drawn()
    sure = 4.0 * logits
    before = error(softmax(sure), classes)
    after = error(softmax(sure, fit_temperature(sure, classes)), classes)
    assert before > 0.1
    assert after < 0.02


def test_the_error_by_hand():
    confidence, right = np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, True])
    bins = reliability(confidence, right, n_bins=10)
    assert [b.n for b in bins] == [0, 0, 0, 0, 0, 2, 0, 0, 2, 0]
    assert bins[8].accuracy == 0.5
    assert bins[0].accuracy is None
    assert expected_calibration_error(bins) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)


def test_extreme_logits_stay_finite():
    logits, classes = np.array([[1e4, -1e4], [0.0, 0.0]]), np.array([1, 0])
    assert np.isfinite(softmax(logits)).all()
    assert cross_entropy(logits, classes) == pytest.approx((2e4 + np.log(2)) / 2)
    assert 0.02 <= fit_temperature(logits, classes) <= 50.01


def test_a_threshold_holds_for_new_texts_with_95_percent_confidence():
    chooser = np.random.default_rng(0)
    for share in (0.01, 0.1, 0.5):
        held = [(chooser.random(4000) >= threshold_for(chooser.random(400), share)).mean() <= share + 0.01
                for _ in range(200)]
        assert np.mean(held) >= 0.9


def test_as_many_above_the_threshold_as_clopper_and_pearson_allow():
    # 95 % one-sided bounds by scipy.stats.beta.ppf(.95, k + 1, n - k)
    for n, k, bound in ((3638, 0, 0.00082311), (3638, 3, 0.00212956), (100, 5, 0.10225)):
        others = np.linspace(0, 0.9, n)
        assert (others >= threshold_for(others, bound * 1.01)).sum() == k
        assert (others >= threshold_for(others, bound * 0.99)).sum() == max(0, k - 1)
    few = np.array([0.2, 0.6])
    assert 0.6 < threshold_for(few, 0.001) == pytest.approx(0.6)  # too few to tell: above all that was seen
    tied = np.array([0.9, 0.9, 0.9, 0.1])
    assert (tied >= threshold_for(tied, 0.7)).mean() == 0
    assert 0 < threshold_for(np.array([0.0, 1.0]), 0.0) < 1


def test_a_filter_decides_by_its_threshold():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.2, 0.1, 0.7]])
    assert decide(probabilities, 1, 0.5).tolist() == [1, 2]
    assert decide(probabilities, 1, 0.6).tolist() == [2, 2]
