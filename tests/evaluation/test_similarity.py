"""Correlation with judgements, and places of partners."""

import math
import tracemalloc

import numpy
import pytest

from tickwise.core.errors import DataError
from tickwise.evaluation.similarity import (
    correlation_scores,
    partner_places,
    partner_scores,
    pearson,
    ranks,
    spearman,
)


def columns(n=200, seed=0):
    draws = numpy.random.default_rng(seed)
    judged = draws.integers(0, 6, n).astype(float)
    return judged + draws.normal(0, 1.5, n), judged


def test_pearson_is_numpy_s_and_spearman_sees_the_order_only():
    found, judged = columns()
    assert pearson(found, judged) == pytest.approx(numpy.corrcoef(found, judged)[0, 1])
    assert spearman(numpy.exp(found), judged) == pytest.approx(spearman(found, judged))
    assert pearson(numpy.exp(found), judged) < spearman(found, judged) - 0.1
    assert spearman(numpy.array([1.0, 2, 3]), numpy.array([9.0, 4, 1])) == -1


def test_equal_numbers_share_their_places():
    assert ranks(numpy.array([5.0, 1.0, 5.0, 0.0])).tolist() == [3.5, 2.0, 3.5, 1.0]
    # By hand: ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert spearman(numpy.array([0.0, 1, 1, 2]), numpy.array([0.0, 1, 2, 3])) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_an_interval_holds_the_value_and_narrows_with_more_pairs():
    few, many = (correlation_scores(*columns(n), samples=300) for n in (30, 3000))
    for name in ("spearman", "pearson"):
        for scores in (few, many):
            assert scores[name].interval.low < scores[name].value < scores[name].interval.high
        assert 3 * many[name].interval.stderr < few[name].interval.stderr


def test_what_has_no_correlation():
    assert correlation_scores([0.5] * 4, [1, 2, 3, 4])["spearman"].value == 0
    with pytest.raises(DataError, match="all 4 pairs are 2"):
        correlation_scores([1, 2, 3, 4], [2] * 4)
    with pytest.raises(DataError, match="2 pairs"):
        correlation_scores([1, 2], [1, 2])


def test_a_partner_stands_behind_those_that_are_as_near():
    cosines = numpy.array([[0.9, 0.5, 0.1], [0.4, 0.4, 0.4], [0.1, 0.2, 0.3]], dtype=numpy.float32)
    right = numpy.array([[True, False, False], [False, True, False], [True, True, False]])
    places = partner_places(cosines, right)
    assert places == [1, 3, 2]
    scores = partner_scores(places, ks=(1, 2))
    assert scores["mrr"].value == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    assert (scores["recall@1"].value, scores["recall@2"].value) == pytest.approx((1 / 3, 2 / 3))


def test_few_partners_that_are_all_found_prove_little():
    scores = partner_scores([1, 1, 1, 2], ks=(1, 2))
    assert (scores["recall@2"].value, scores["recall@2"].interval.high) == (1, 1)
    assert scores["recall@2"].interval.low == pytest.approx(0.025 ** (1 / 4))
    assert partner_scores([3, 4], ks=(1,))["recall@1"].interval.high > 0.8


def test_resampling_many_pairs_takes_little_memory():
    found, judged = columns(20_000)
    tracemalloc.start()
    scores = correlation_scores(found, judged, samples=40)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20 * 8 * len(found)  # 40 draws would be twice as much
    assert scores["spearman"].interval.low < scores["spearman"].value < scores["spearman"].interval.high
