"""Tests fit their data, correct for how many they are, and leave open what chance explains."""

import math

import numpy
import pytest

from tickwise.compare.cases import NEW, NOISY
from tickwise.compare.evidence import adjusted, difference, ratio, turning_share, weigh
from tickwise.compare.measure import Costs, Measured, accuracy


def right(n_right, n=100):
    return (1.0,) * n_right + (0.0,) * (n - n_right)


def measured(new, noisy, seconds, memory=100):
    return Measured(
        kind="", name="", operations="", steps=None, accuracy={NEW: accuracy(new), NOISY: accuracy(noisy)},
        costs=Costs(0.0, 0.0, 0.0, None, None, 0.0, "measured"), memory_bytes=memory, deterministic=1,
        training=None, scores={NEW: new, NOISY: noisy}, answers={}, seconds_each=tuple(seconds))


def test_right_or_wrong_is_tested_by_pairs():
    # 9 cases that only the first, 1 that only the second one gets right: 2 · (1 + 10) / 2^10.
    first = (1.0,) * 9 + (0.0,) + (1.0,) * 90
    second = (0.0,) * 9 + (1.0,) + (1.0,) * 90
    found = difference(first, second, seed=1)
    assert found.p == pytest.approx(22 / 1024)
    assert found.value == pytest.approx(-0.08)
    assert found.low < -0.08 < found.high < 0.0
    assert difference(first, first, seed=1).p == 1


def test_scores_in_between_are_compared_case_by_case():
    rng = numpy.random.default_rng(1)
    hard = rng.uniform(0.2, 0.8, 200)  # cases differ far more than the contestants do
    better = difference(tuple(hard), tuple(hard + rng.normal(0.02, 0.02, 200)), seed=1)
    assert better.test == "paired bootstrap"
    assert 0.01 < better.low < better.value < better.high < 0.03
    assert better.p < 0.001
    assert difference(tuple(hard), tuple(hard + rng.normal(0.0, 0.2, 200)), seed=1).p > 0.05


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_never_reorders():
    found = adjusted({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9})
    assert found == {"a": pytest.approx(0.04), "c": pytest.approx(0.09), "b": pytest.approx(0.09), "d": 0.9}
    assert adjusted({}) == {}


def test_times_that_differ_by_the_same_factor_everywhere_have_a_narrow_interval():
    below = [1e-6 * (1 + i % 5) for i in range(20)]
    found = ratio(below, [1000 * t for t in below], seed=1)
    assert (found.value, found.low, found.high) == (pytest.approx(1000),) * 3
    assert found.p == pytest.approx(2 / 2**20)
    assert ratio(below, below[::-1], seed=1).p > 0.5
    assert ratio(below[:3], [2 * t for t in below[:3]], seed=1).p == pytest.approx(0.25), "three texts show nothing"


def test_the_share_at_which_it_turns_is_where_the_mixtures_cross():
    plain = numpy.array(right(20)) - numpy.array(right(100))  # 0.2 - 1
    noisy = numpy.array(right(60)) - numpy.array(right(20))   # 0.6 - 0.2
    turn = turning_share(plain, noisy, seed=1)
    share = turn.value
    assert (1 - share) * 1.0 + share * 0.2 == pytest.approx((1 - share) * 0.2 + share * 0.6)
    assert 0.55 < turn.low < share < turn.high < 0.8
    assert turning_share(noisy, noisy, seed=1) is None


def test_an_error_s_price_is_the_longer_time_for_the_fewer_errors():
    program, model = measured(right(50), right(20), [1e-3] * 10), measured(right(50), right(60), [5e-3] * 10, 700)
    found = weigh(program, model, right(10), "always x", NEW, seed=1)
    assert found.memory == 7
    assert found.differences[NEW].p == 1
    assert found.learnt["program"].value == pytest.approx(0.4)
    assert set(found.prices) == {NOISY}
    price = found.prices[NOISY]
    assert price.value == pytest.approx(4e-3 / 0.4)
    assert price.low < price.value < price.high
    faster = measured(right(50), right(60), [1e-4] * 10)
    assert weigh(program, faster, right(10), "", NEW, seed=1).prices == {}, "better and faster: nothing to pay"
    assert math.isfinite(price.high)
