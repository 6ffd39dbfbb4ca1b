"""How well vectors of texts tell which texts are alike: correlation with people's judgements of pairs, and how high a
text's partner stands among all.

Sources: Pearson's and Spearman's correlation as in the tasks of semantic textual similarity (Agirre et al. 2012, Cer et
al. 2017); mean reciprocal rank (Voorhees 1999).
Shapes: N pairs, M texts to choose among, R resamples.
"""

from collections.abc import Sequence

import numpy
from numpy.typing import NDArray

from tickwise.core.errors import DataError
from tickwise.evaluation.bootstrap import interval
from tickwise.evaluation.classification import Score
from tickwise.evaluation.results import mean_score, share_score

Numbers = NDArray[numpy.float64]
_FEWEST = 3


def pearson(first: Numbers, second: Numbers) -> float:
    """The correlation of two columns (N,); NaN where one of them is all the same number."""
    a, b = first - first.mean(), second - second.mean()
    spread = numpy.sqrt((a * a).sum() * (b * b).sum())
    # A column of one number may leave a rounding error behind.
    if spread == 0 or numpy.ptp(first) == 0 or numpy.ptp(second) == 0:
        return float("nan")
    return float(numpy.clip((a * b).sum() / spread, -1, 1))


def ranks(column: Numbers) -> Numbers:
    """(N,): the place of each number, the smallest first and from 1; equal ones have the mean of their places."""
    _, number, count = numpy.unique(column, return_inverse=True, return_counts=True)
    places: Numbers = numpy.cumsum(count) - (count - 1) / 2
    return places[number]


def spearman(first: Numbers, second: Numbers) -> float:
    """Pearson's correlation of the ranks; NaN as ``pearson``."""
    return pearson(ranks(first), ranks(second))


def correlation_scores(found: Sequence[float], judged: Sequence[float], samples: int = 1000,
                       seed: int = 0) -> dict[str, Score]:
    """``spearman`` and ``pearson`` of the cosines of N pairs with what people judged of them, and their intervals over
    resampled pairs; resamples of which one side is all the same have no part in these. Cosines that are all the same
    have a correlation of 0 with anything.

    ``DataError`` for fewer than three pairs, and for judgements that are all the same."""
    a, b = (numpy.asarray(side, dtype=numpy.float64) for side in (found, judged))
    if len(a) != len(b) or len(a) < _FEWEST:
        raise DataError(f"{len(a):,} pairs with a judgement; a correlation needs at least {_FEWEST}")
    if numpy.ptp(b) == 0:
        raise DataError(f"the judgements of all {len(b):,} pairs are {b[0]:g}; a correlation needs different ones")
    measures = {"spearman": spearman, "pearson": pearson}
    generator = numpy.random.default_rng(seed)
    resampled = numpy.empty((samples, len(measures)))
    for row in range(samples):
        drawn = generator.integers(0, len(a), size=len(a))
        resampled[row] = [measure(a[drawn], b[drawn]) for measure in measures.values()]
    scores = {}
    for (name, measure), column in zip(measures.items(), resampled.T, strict=True):
        value, known = measure(a, b), column[~numpy.isnan(column)]
        scores[name] = (Score(0.0, None) if numpy.isnan(value) else
                        Score(value, interval(known) if len(known) > 1 else None))
    return scores


def partner_scores(places: Sequence[int], ks: Sequence[int] = (1, 10), samples: int = 1000,
                   seed: int = 0) -> dict[str, Score]:
    """``mrr``, the mean of 1 / place, and for each k ``recall@k``, the share of places up to k, of the places (from 1)
    at which the partner of each text was found."""
    at = numpy.asarray(places, dtype=numpy.float64)
    scores = {"mrr": mean_score((1 / at).tolist(), samples, seed)}
    return scores | {f"recall@{k}": share_score((at <= k).tolist(), samples, seed) for k in ks}


def partner_places(cosines_NM: NDArray[numpy.float32], right_NM: NDArray[numpy.bool_]) -> list[int]:
    """(N,): the place, from 1, of the best right text for each of N; others with the same cosine come before it."""
    best_N1 = numpy.where(right_NM, cosines_NM, -numpy.inf).max(1, keepdims=True)
    ahead_N = ((cosines_NM >= best_N1) & ~right_NM).sum(1)
    return [int(n) + 1 for n in ahead_N]
