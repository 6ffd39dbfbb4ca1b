"""Whether probabilities mean what they say: temperature scaling, expected calibration error, reliability.

Source: Guo et al. 2017, "On calibration of modern neural networks".
"""

import math
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

_LOWEST, _HIGHEST = 0.02, 50.0
_LOWEST_THRESHOLD = 1e-9


@dataclass(frozen=True)
class ReliabilityBin:
    """The predictions whose confidence lies in (low, high]."""

    low: float
    high: float
    n: int
    confidence: float | None
    """Mean probability of the predicted class; None for an empty bin."""
    accuracy: float | None


def softmax(logits: NDArray[numpy.float64], temperature: float = 1.0) -> NDArray[numpy.float64]:
    """(N, C) probabilities."""
    scaled = logits / temperature
    exponentials = numpy.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def cross_entropy(logits: NDArray[numpy.float64], classes: NDArray[numpy.int64], temperature: float = 1.0) -> float:
    """Mean nats of the right class."""
    scaled = logits / temperature
    highest = scaled.max(axis=1)
    log_total = highest + numpy.log(numpy.exp(scaled - highest[:, None]).sum(axis=1))
    return float((log_total - scaled[numpy.arange(len(classes)), classes]).mean())


def fit_temperature(logits: NDArray[numpy.float64], classes: NDArray[numpy.int64]) -> float:
    """The temperature in [0.02, 50] with the lowest cross-entropy, by golden-section search over its logarithm (the
    loss is convex in the inverse temperature, so there is one minimum)."""
    shrink = (5**0.5 - 1) / 2
    low, high = numpy.log(_LOWEST), numpy.log(_HIGHEST)
    left, right = high - shrink * (high - low), low + shrink * (high - low)
    at_left, at_right = (cross_entropy(logits, classes, float(numpy.exp(t))) for t in (left, right))
    while high - low > 1e-4:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - shrink * (high - low)
            at_left = cross_entropy(logits, classes, float(numpy.exp(left)))
        else:
            low, left, at_left = left, right, at_right
            right = low + shrink * (high - low)
            at_right = cross_entropy(logits, classes, float(numpy.exp(right)))
    return float(numpy.exp((low + high) / 2))


def decide(probabilities: NDArray[numpy.float64], positive: int, threshold: float) -> NDArray[numpy.int64]:
    """(N,) what a filter decides: ``positive`` from ``threshold`` on, else the likeliest other class."""
    others = probabilities.copy()
    others[:, positive] = -1.0
    return numpy.where(probabilities[:, positive] >= threshold, positive, others.argmax(axis=1))


def threshold_for(false_probabilities: NDArray[numpy.float64], max_share: float, confidence: float = 0.95) -> float:
    """The lowest threshold at which, with this confidence, at most ``max_share`` of new texts that are not of the class
    looked for would be taken for it. ``false_probabilities``: (N,) what a model that did not see such texts gives
    them. As many of them may lie above the threshold as Clopper and Pearson's one-sided bound on the share allows, or
    none where N is too small for any. Half way to the next one that is let through, or just above all of them."""
    ranked = numpy.sort(false_probabilities)[::-1]
    allowed = most_above(len(ranked), max_share, confidence)
    between = (ranked[allowed - 1] + ranked[allowed]) / 2 if allowed else ranked[0]
    if between <= ranked[allowed]:  # a tie, or none above: beyond it
        between = numpy.nextafter(ranked[allowed], 2.0)
    return float(min(max(between, _LOWEST_THRESHOLD), 1 - 1e-9))


def most_above(n: int, share: float, confidence: float = 0.95) -> int:
    """The largest k for which at most k of ``n`` above the threshold tell that at most ``share`` of all are: so few
    would be seen in 1 - confidence of cases if ``share`` were above it (Clopper and Pearson 1934); 0 if none."""
    if not 0 < share < 1:
        return 0
    seen, k = 0.0, 0
    while k < n:
        log_ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        seen += math.exp(log_ways + k * math.log(share) + (n - k) * math.log1p(-share))
        if seen > 1 - confidence:
            break
        k += 1
    return max(0, k - 1)


def reliability(confidence: NDArray[numpy.float64], right: NDArray[numpy.bool_],
                n_bins: int = 15) -> list[ReliabilityBin]:
    """The predictions in bins of equal width. confidence: (N,) probability of each predicted class; right: (N,)
    whether it was the true one."""
    number = numpy.clip(numpy.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    bins = []
    for i in range(n_bins):
        inside = number == i
        n = int(inside.sum())
        bins.append(ReliabilityBin(i / n_bins, (i + 1) / n_bins, n, float(confidence[inside].mean()) if n else None,
                                   float(right[inside].mean()) if n else None))
    return bins


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Mean distance between confidence and accuracy of the bins, weighted by their predictions."""
    total = sum(b.n for b in bins)
    return sum(b.n * abs(b.confidence - b.accuracy) for b in bins
               if b.confidence is not None and b.accuracy is not None) / max(total, 1)
