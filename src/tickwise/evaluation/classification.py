"""How well texts were classified, with 95 % bootstrap intervals, and whether two models differ."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from tickwise import __version__
from tickwise.core.errors import DataError
from tickwise.evaluation.bootstrap import Interval, all_alike, interval
from tickwise.evaluation.calibration import ReliabilityBin, expected_calibration_error, reliability

Counts = NDArray[numpy.float64]


@dataclass(frozen=True)
class Score:
    """A value with its 95 % interval, None for fewer than two texts."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class ClassScore:
    """One class. Shares of nothing are 0."""

    label: str
    precision: float
    recall: float
    f1: float
    n: int
    """Texts of this class."""


@dataclass(frozen=True)
class ClassificationResult:
    """``pairs``: (P, 3), a true class's number, a predicted one's, and how many texts have both, if any has."""

    task: str
    labels: tuple[str, ...]
    metrics: dict[str, Score]
    classes: tuple[ClassScore, ...]
    pairs: NDArray[numpy.int64] = dataclasses.field(repr=False, compare=False)
    bins: tuple[ReliabilityBin, ...]
    n: int
    bootstrap_samples: int
    seed: int
    false_alarms: float | None = None
    """Of a two-class filter: the share of the other class that was taken for the class looked for."""
    fitted: bool = False
    """The probabilities were calibrated on these very texts: calibration error, loss and Brier score are too good."""

    @property
    def confusion(self) -> NDArray[numpy.int64]:
        """(C, C), rows are the true classes, columns the predicted ones; for few classes."""
        matrix = numpy.zeros((len(self.labels), len(self.labels)), dtype=numpy.int64)
        true, predicted, n = self.pairs.T
        matrix[true, predicted] = n
        return matrix

    def to_json(self, model: str = "") -> dict[str, Any]:
        """lm-evaluation-harness's result layout, with intervals and each class besides."""
        results: dict[str, Any] = {"alias": self.task}
        intervals: dict[str, Any] = {}
        for name, score in self.metrics.items():
            results[f"{name},none"] = score.value
            results[f"{name}_stderr,none"] = score.interval.stderr if score.interval else None
            intervals[name] = [score.interval.low, score.interval.high] if score.interval else None
        if self.false_alarms is not None:
            results["false_alarms,none"] = self.false_alarms
        lower_is_better = ("ece", "loss", "brier")
        return {
            "results": {self.task: results},
            "intervals": {self.task: intervals},
            "classes": {self.task: {c.label: {"precision": c.precision, "recall": c.recall, "f1": c.f1, "n": c.n}
                                    for c in self.classes}},
            "confusion": {self.task: self.confusion.tolist()} if len(self.labels) <= 100 else {},
            "configs": {self.task: {"task": self.task, "output_type": "multiple_choice",
                                    "calibrated_on_these_texts": self.fitted}},
            "versions": {self.task: 1},
            "n-shot": {self.task: 0},
            "higher_is_better": {self.task: {name: name not in lower_is_better for name in self.metrics}},
            "n-samples": {self.task: {"original": self.n, "effective": self.n}},
            "config": {"model": "tickwise", "model_args": {"path": model}, "bootstrap_iters": self.bootstrap_samples,
                       "random_seed": self.seed},
            "tickwise_version": __version__,
        }


def _scores(true: Counts, predicted: Counts, right: Counts) -> dict[str, float]:
    """All metrics that follow from each class's texts, predictions and right predictions (C,)."""
    n, n_right = true.sum(), right.sum()
    seen = (true + predicted) > 0
    with numpy.errstate(divide="ignore", invalid="ignore"):
        precision = numpy.where(predicted > 0, right / predicted, 0.0)
        recall = numpy.where(true > 0, right / true, 0.0)
        f1 = numpy.where(right > 0, 2 * right / (true + predicted), 0.0)
    # Matthews' correlation for many classes (Gorodkin 2004).
    spread = (n * n - (true * true).sum()) * (n * n - (predicted * predicted).sum())
    mcc = (n_right * n - (true * predicted).sum()) / math.sqrt(spread) if spread > 0 else 0.0
    return {
        "acc": n_right / n, "f1_macro": f1[seen].mean(), "precision_macro": precision[seen].mean(),
        "recall_macro": recall[seen].mean(),
        # Every text has one true and one predicted class, so micro-averaged precision, recall and F1 are the accuracy.
        "f1_micro": n_right / n, "mcc": mcc,
    }


@dataclass(frozen=True)
class Judged:
    """What the metrics need of the probabilities of N texts. Of each text: the predicted class, the true class's
    probability, the predicted one's, and the sum of all squares."""

    predicted: NDArray[numpy.int64]
    true_probability: Counts
    confidence: Counts
    squares: Counts

    @classmethod
    def of(cls, probabilities: NDArray[numpy.float64], classes: NDArray[numpy.int64],
           predicted: NDArray[numpy.int64] | None = None) -> "Judged":
        """Of probabilities (N, C) and true classes (N,); ``predicted`` defaults to the likeliest class."""
        predicted = probabilities.argmax(axis=1) if predicted is None else predicted
        rows = numpy.arange(len(classes))
        return cls(predicted, probabilities[rows, classes], probabilities[rows, predicted],
                   numpy.einsum("nc,nc->n", probabilities, probabilities))

    @classmethod
    def joined(cls, parts: Sequence["Judged"]) -> "Judged":
        """The texts of all parts, in order."""
        return cls(*(numpy.concatenate([getattr(part, field.name) for part in parts])
                     for field in dataclasses.fields(cls)))


def evaluate_classes(
    probabilities: NDArray[numpy.float64], classes: NDArray[numpy.int64], labels: Sequence[str], *, task: str,
    predicted: NDArray[numpy.int64] | None = None, positive: str | None = None, bootstrap_samples: int = 1000,
    seed: int = 0, fitted: bool = False,
) -> ClassificationResult:
    """Measure ``probabilities`` (N, C) against the true ``classes`` (N,), as ``evaluate_judged`` does; ``predicted``
    defaults to the likeliest class."""
    return evaluate_judged(Judged.of(probabilities, classes, predicted), classes, labels, task=task, positive=positive,
                           bootstrap_samples=bootstrap_samples, seed=seed, fitted=fitted)


def evaluate_judged(judged: Judged, classes: NDArray[numpy.int64], labels: Sequence[str], *, task: str,
                    positive: str | None = None, bootstrap_samples: int = 1000, seed: int = 0,
                    fitted: bool = False) -> ClassificationResult:
    """The metrics of texts whose true ``classes`` are (N,).

    ``positive`` is the class that a filter looks for: its precision, recall and F1 and the share of false alarms are
    added. ``fitted``: the probabilities were calibrated on these texts. Intervals: 2.5 % and 97.5 % quantiles over
    resampled texts.
    """
    n, n_classes = len(classes), len(labels)
    if n == 0:
        raise DataError(f"{task}: no texts to evaluate on")
    predicted, confidence = judged.predicted, judged.confidence
    right = predicted == classes
    loss = -numpy.log(numpy.maximum(judged.true_probability, 1e-300))
    squares = judged.squares - 2 * judged.true_probability + 1
    wanted = list(labels).index(positive) if positive is not None and positive in labels else None

    def counts(own: slice | NDArray[numpy.int64]) -> tuple[Counts, ...]:
        t, p, r = classes[own], predicted[own], right[own]
        return tuple(numpy.bincount(c, minlength=n_classes).astype(float) for c in (t, p, t[r]))

    def measure(drawn: NDArray[numpy.int64] | None) -> dict[str, float]:
        own = slice(None) if drawn is None else drawn
        true, guessed, hits = counts(own)
        scores = _scores(true, guessed, hits)
        if wanted is not None:
            scores |= {"precision": hits[wanted] / guessed[wanted] if guessed[wanted] else 0.0,
                       "recall": hits[wanted] / true[wanted] if true[wanted] else 0.0,
                       "f1": 2 * hits[wanted] / (true[wanted] + guessed[wanted]) if hits[wanted] else 0.0}
        bins = reliability(confidence[own], right[own])
        return scores | {"ece": expected_calibration_error(bins), "loss": loss[own].mean(),
                         "brier": squares[own].mean()}

    values = measure(None)
    spread: dict[str, Interval | None] = dict(_resampled(measure, n, bootstrap_samples, seed)) if n > 1 else {}
    true, guessed, hits = counts(slice(None))
    judged_by = {"acc": n, "f1_micro": n}
    if wanted is not None:
        judged_by |= {"precision": int(guessed[wanted]), "recall": int(true[wanted])}
    # Of texts that are all alike no resample differs, and still the next one may.
    spread |= {name: all_alike(values[name] == 1, judged_by.get(name, 0)) for name, own in spread.items()
               if own is not None and own.low == own.high and values[name] in (0, 1)}
    others = n - true[wanted] if wanted is not None else 0
    pairs, texts = numpy.unique(classes * n_classes + predicted, return_counts=True)
    return ClassificationResult(
        task=task, labels=tuple(labels),
        metrics={name: Score(float(value), spread.get(name)) for name, value in values.items()},
        classes=tuple(map(_class_score, labels, hits.astype(int).tolist(), true.astype(int).tolist(),
                          guessed.astype(int).tolist())),
        pairs=numpy.stack([pairs // n_classes, pairs % n_classes, texts], axis=1),
        bins=tuple(reliability(confidence, right)), n=n, bootstrap_samples=bootstrap_samples, seed=seed,
        false_alarms=float((guessed[wanted] - hits[wanted]) / others) if others else None, fitted=fitted,
    )


def _resampled(measure: Callable[[NDArray[numpy.int64]], dict[str, float]], n: int, samples: int,
               seed: int) -> dict[str, Interval]:
    generator = numpy.random.default_rng(seed)
    drawn = [measure(generator.integers(0, n, size=n)) for _ in range(samples)]
    return {name: interval(numpy.array([one[name] for one in drawn])) for name in drawn[0]}


def _class_score(label: str, hits: int, true: int, predicted: int) -> ClassScore:
    return ClassScore(label, hits / predicted if predicted else 0.0, hits / true if true else 0.0,
                      2 * hits / (true + predicted) if hits else 0.0, true)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same texts."""

    accuracy: tuple[float, float]
    only_first: int
    """Texts that only the first model got right."""
    only_second: int
    mcnemar_p: float
    """Two-sided exact binomial test that both kinds are equally frequent (McNemar 1947)."""
    difference: Interval
    """Of second less first accuracy, over resampled texts."""
    bootstrap_p: float
    """Two-sided: twice the smaller share of resamples on one side of no difference, the texts themselves counted as one
    of the resamples on either side (Davison & Hinkley 1997, section 4.2): never 0."""
    n: int


def compare(first_right: NDArray[numpy.bool_], second_right: NDArray[numpy.bool_], *, bootstrap_samples: int = 10_000,
            seed: int = 0) -> Comparison:
    """Whether the second model's accuracy differs from the first's, text by text. ``first_right``, ``second_right``:
    (N,) whether each got each text right."""
    if len(first_right) != len(second_right) or not len(first_right):
        raise DataError(f"two models are compared on the same texts; these are {len(first_right):,} and "
                        f"{len(second_right):,} predictions")
    n = len(first_right)
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    # A resample is a draw of how many texts of each of the three kinds it has.
    shares = numpy.array([only_first, only_second, n - only_first - only_second]) / n
    drawn = numpy.random.default_rng(seed).multinomial(n, shares, size=bootstrap_samples)
    differences = (drawn[:, 1] - drawn[:, 0]) / n
    below, above = (int(side.sum() + 1) / (bootstrap_samples + 1) for side in (differences <= 0, differences >= 0))
    return Comparison(
        accuracy=(float(first_right.mean()), float(second_right.mean())), only_first=only_first,
        only_second=only_second, mcnemar_p=_binomial_p(only_first, only_first + only_second),
        difference=interval(differences), bootstrap_p=min(1.0, 2 * min(below, above)), n=n,
    )


def _binomial_p(k: int, n: int) -> float:
    """Two-sided exact p of ``k`` heads in ``n`` tosses of a fair coin."""
    if n == 0:
        return 1.0
    tail = min(k, n - k)
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
            for i in range(tail + 1)]
    return min(1.0, 2 * math.fsum(math.exp(value) for value in logs))
