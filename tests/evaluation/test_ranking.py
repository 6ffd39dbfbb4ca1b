import pytest

from tickwise.core.errors import ConfigError, DataError
from tickwise.evaluation.ranking import ranking_scores, recall_at, reciprocal_rank


def test_recall_is_the_share_of_right_items_among_the_first():
    assert recall_at([3, 1, 2], {1, 9}, 1) == 0
    assert recall_at([3, 1, 2], {1, 9}, 2) == 0.5
    assert recall_at([3, 1, 9], {1, 9}, 3) == 1


def test_reciprocal_rank():
    assert reciprocal_rank(["a", "b", "c"], {"c", "b"}) == 0.5
    assert reciprocal_rank(["a"], {"z"}) == 0


def test_means():
    scores = ranking_scores([[1, 2], [2, 1]], [{1}, {1}], ks=(1, 2))
    assert scores["recall@1"].value == 0.5
    assert scores["recall@2"].value == 1
    assert scores["mrr@2"].value == 0.75
    assert "mrr" not in scores
    assert ranking_scores([[1, 2, 3]], [{3}], ks=(1, 2))["mrr@2"].value == 0


def test_mistakes():
    with pytest.raises(ConfigError, match="at least 1"):
        recall_at([1], {1}, 0)
    with pytest.raises(DataError, match="no right item"):
        recall_at([1], set(), 1)
    with pytest.raises(DataError, match="each query needs one"):
        ranking_scores([], [])
