"""How high the right results stand in rankings: recall@k and mean reciprocal rank (Voorhees 1999)."""

from collections.abc import Collection, Sequence
from typing import TypeVar

from tickwise.core.errors import ConfigError, DataError
from tickwise.evaluation.classification import Score
from tickwise.evaluation.results import mean_score

Item = TypeVar("Item")


def recall_at(ranking: Sequence[Item], right: Collection[Item], k: int) -> float:
    """The share of the right items that are among the first ``k``."""
    if k < 1:
        raise ConfigError(f"recall@{k}: k must be at least 1")
    if not right:
        raise DataError("recall: there is no right item")
    return len(set(ranking[:k]) & set(right)) / len(set(right))


def reciprocal_rank(ranking: Sequence[Item], right: Collection[Item]) -> float:
    """1 / the place of the first right item, counted from 1; 0 when none is in the ranking."""
    return next((1 / place for place, item in enumerate(ranking, start=1) if item in right), 0.0)


def ranking_scores(rankings: Sequence[Sequence[Item]], right: Sequence[Collection[Item]],
                   ks: Sequence[int] = (1, 5, 10), samples: int = 1000, seed: int = 0) -> dict[str, Score]:
    """Means over queries: ``recall@k`` for each k, and the reciprocal rank among the first of the largest k
    (``mrr@k``)."""
    if len(rankings) != len(right) or not rankings:
        raise DataError(f"{len(rankings):,} rankings for {len(right):,} queries; each query needs one")
    pairs = list(zip(rankings, right, strict=True))
    scores = {f"recall@{k}": mean_score([recall_at(ranking, own, k) for ranking, own in pairs], samples, seed)
              for k in ks}
    ranks = [reciprocal_rank(ranking[: max(ks)], own) for ranking, own in pairs]
    return scores | {f"mrr@{max(ks)}": mean_score(ranks, samples, seed)}
