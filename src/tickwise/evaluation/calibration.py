"""Whether probabilities mean what they say: temperature scaling, expected calibration error, reliability.

Source: Guo et al. 2017, "On calibration of modern neural networks".
"""

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


def threshold_for(false_probabilities: NDArray[numpy.float64], max_share: float) -> float:
    """The lowest threshold at which at most ``max_share`` of the texts that are not of the class looked for, whose
    probabilities of it these are, would be taken for it; half way to the next one that is let through, so that it is
    no text's own probability."""
    ranked = numpy.sort(false_probabilities)[::-1]
    allowed = int(max_share * len(ranked) + 1e-9)
    if allowed >= len(ranked):
        return float(_LOWEST_THRESHOLD)
    above = ranked[allowed - 1] if allowed else 1.0
    between = (above + ranked[allowed]) / 2
    if between <= ranked[allowed]:  # a tie: beyond both
        between = numpy.nextafter(above, 2.0)
    return float(min(max(between, _LOWEST_THRESHOLD), 1 - 1e-9))


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
