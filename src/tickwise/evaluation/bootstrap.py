"""Confidence intervals by resampling blocks (Efron 1979; blocks for dependent data: Künsch 1989)."""

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

# Bounds the memory of one draw: this many block indices at a time.
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and the standard error, both from the same resamples."""

    low: float
    high: float
    stderr: float


def resample_sums(
    blocks: NDArray[numpy.float64], samples: int, seed: int
) -> NDArray[numpy.float64]:
    """Draw ``len(blocks)`` blocks with replacement, ``samples`` times, and add them up.

    ``blocks`` is (n_blocks, n_columns): what one block contributes to each total, e.g. its loss, its words
    and its bytes, so that a ratio of totals keeps loss and length of the same block together. Returns
    (samples, n_columns).
    """
    n_blocks = len(blocks)
    generator = numpy.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // n_blocks)
    sums = []
    for start in range(0, samples, at_once):
        n = min(at_once, samples - start)
        drawn = generator.integers(0, n_blocks, size=(n, n_blocks))
        counts = numpy.zeros((n, n_blocks))
        for row, indices in enumerate(drawn):
            counts[row] = numpy.bincount(indices, minlength=n_blocks)
        sums.append(counts @ blocks)
    return numpy.concatenate(sums)


def two_sided(values: NDArray[numpy.float64]) -> float:
    """Of resampled differences: how easily there is none, twice the smaller share on one side of 0. What was resampled
    counts as a resample on either side, so it is never 0 (Davison & Hinkley 1997, section 4.2)."""
    below, above = (int(side.sum() + 1) / (len(values) + 1) for side in (values <= 0, values >= 0))
    return min(1.0, 2 * min(below, above))


def interval(values: NDArray[numpy.float64]) -> Interval:
    """The percentile interval of resampled values: their 2.5 % and 97.5 % quantiles."""
    low, high = numpy.quantile(values, (0.025, 0.975))
    return Interval(float(low), float(high), float(values.std(ddof=1)))


def all_alike(right: bool, n: int) -> Interval | None:
    """The 95 % interval of a share of which all ``n`` (``right``), or none, were seen, where resampling shows no spread
    (Clopper & Pearson 1934), and the standard error that a normal one so wide would have; None where ``n`` is 0."""
    if n == 0:
        return None
    width = 1 - 0.025 ** (1 / n)
    return Interval(1 - width, 1.0, width / 3.92) if right else Interval(0.0, width, width / 3.92)
