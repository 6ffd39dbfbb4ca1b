"""Precision, recall and F1 of entities as conlleval and seqeval define them: an entity counts when its first token, its
last token and its type are all right (Tjong Kim Sang & De Meulder 2003)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from tickwise.data.tagged import Span
from tickwise.evaluation.bootstrap import Interval, interval, resample_sums, two_sided
from tickwise.evaluation.calibration import ReliabilityBin, expected_calibration_error, reliability
from tickwise.evaluation.classification import Score
from tickwise.evaluation.results import results_json


@dataclass(frozen=True)
class TypeScore:
    """Counts of one type of entity, or of all of them, and what follows from them. A share of nothing is 0, as
    conlleval has it."""

    correct: int
    predicted: int
    gold: int

    @property
    def precision(self) -> float:
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.correct / (self.predicted + self.gold) if self.correct else 0.0


@dataclass(frozen=True)
class EntityScores:
    """All types together (micro average), each type, and over resampled sentences the 95 % intervals of the metrics
    (None for fewer than two sentences)."""

    overall: TypeScore
    by_type: dict[str, TypeScore]
    intervals: dict[str, Interval | None]
    """Of ``f1``, ``precision``, ``recall`` and ``macro_f1``."""
    n_sentences: int
    bootstrap_samples: int
    seed: int
    bins: tuple[ReliabilityBin, ...] = ()
    """The entities that were found, by how likely the tagger found each; empty where it did not say."""

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the types that occur in the gold data or the predictions."""
        return float(numpy.mean([score.f1 for score in self.by_type.values()])) if self.by_type else 0.0

    @property
    def f1_interval(self) -> Interval | None:
        return self.intervals["f1"]

    @property
    def calibration_error(self) -> float | None:
        """Mean distance between the probability of what was found and the share of it that is right."""
        return expected_calibration_error(list(self.bins)) if self.bins else None

    @property
    def metrics(self) -> dict[str, Score]:
        """The metrics by name; ``ece`` where the tagger said how likely its entities are."""
        overall = self.overall
        values = {"f1": overall.f1, "precision": overall.precision, "recall": overall.recall, "macro_f1": self.macro_f1}
        found = {name: Score(value, self.intervals[name]) for name, value in values.items()}
        error = self.calibration_error
        return found if error is None else found | {"ece": Score(error, None)}

    def to_json(self, task: str = "entities", model: str = "") -> dict[str, Any]:
        """In lm-evaluation-harness's layout, with intervals and each type besides."""
        types = {name: {"precision": s.precision, "recall": s.recall, "f1": s.f1, "gold": s.gold,
                        "predicted": s.predicted, "correct": s.correct} for name, s in self.by_type.items()}
        return results_json(
            {task: self.metrics}, {task: self.n_sentences}, model=model, samples=self.bootstrap_samples, seed=self.seed,
            output_type="tagging", settings={"matching": "exact span and type"}, lower_is_better=("ece",),
        ) | {"types": {task: types}}


def entity_scores(gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]], *,
                  probabilities: Sequence[Sequence[float]] | None = None, samples: int = 1000,
                  seed: int = 0) -> EntityScores:
    """Compare the entities of each sentence; ``probabilities`` are those of the predicted ones. ``ValueError`` when
    there are not as many of each."""
    counted = list(_counted(gold, predicted))
    names = sorted({span.type for found in counted for spans in found for span in spans})
    row_of = {name: 3 * (number + 1) for number, name in enumerate(names)}
    # Right, predicted and true entities of a sentence: of all types, then of each.
    per_sentence = numpy.zeros((len(gold), 3 * (1 + len(names))))
    for row, found in enumerate(counted):
        for column, spans in enumerate(found):
            per_sentence[row, column] = len(spans)
            for span in spans:
                per_sentence[row, row_of[span.type] + column] += 1
    totals = per_sentence.sum(0).astype(int).tolist()
    by_type = {name: TypeScore(*totals[at : at + 3]) for name, at in row_of.items()}
    intervals: dict[str, Interval | None] = dict.fromkeys(("f1", "precision", "recall", "macro_f1"))
    if len(gold) > 1 and samples:
        drawn = resample_sums(per_sentence, samples, seed)
        values = {"f1": _f1(drawn[:, :3]), "precision": _share(drawn[:, 0], drawn[:, 1]),
                  "recall": _share(drawn[:, 0], drawn[:, 2]), "macro_f1": _macro_f1(drawn[:, 3:])}
        intervals = {name: interval(value) for name, value in values.items()}
    return EntityScores(TypeScore(*totals[:3]), by_type, intervals, len(gold), samples, seed,
                        _reliability(gold, predicted, probabilities) if probabilities is not None else ())


def _reliability(gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]],
                 probabilities: Sequence[Sequence[float]]) -> tuple[ReliabilityBin, ...]:
    """Of the predicted entities, whose probability is that of their span and type."""
    judged = [(sure, span in set(truth)) for truth, spans, own in zip(gold, predicted, probabilities, strict=True)
              for span, sure in zip(spans, own, strict=True)]
    if not judged:
        return ()
    return tuple(reliability(numpy.array([sure for sure, _ in judged]), numpy.array([right for _, right in judged])))


def _counted(gold: Sequence[Sequence[Span]],
             predicted: Sequence[Sequence[Span]]) -> Iterator[tuple[set[Span], set[Span], set[Span]]]:
    """Of each sentence the entities that are right, predicted, and true."""
    for truth, guess in zip(gold, predicted, strict=True):
        yield set(truth) & set(guess), set(guess), set(truth)


@dataclass(frozen=True)
class EntityComparison:
    """Two taggers on the same sentences."""

    f1: tuple[float, float]
    """Micro F1 of ``model`` and of ``against``."""
    difference: Interval | None
    """Of the first F1 less the second, over resampled sentences; None for fewer than two sentences."""
    p: float | None
    """Two-sided paired bootstrap, that there is no difference."""
    only_model: int
    """Entities that only the first one finds rightly."""
    only_against: int
    n_sentences: int

    def to_json(self) -> dict[str, Any]:
        spread = self.difference
        return {"f1": list(self.f1), "difference": self.f1[0] - self.f1[1],
                "interval": [spread.low, spread.high] if spread else None, "p": self.p,
                "only_model": self.only_model, "only_against": self.only_against, "sentences": self.n_sentences}


def compare_entities(gold: Sequence[Sequence[Span]], model: Sequence[Sequence[Span]],
                     against: Sequence[Sequence[Span]], *, samples: int = 10_000, seed: int = 0) -> EntityComparison:
    """Whether two taggers' F1 differs, sentence by sentence: sentences are drawn with what both found in them.
    ``ValueError`` when there are not as many of each."""
    both = numpy.array([[len(spans) for counted in row for spans in counted]
                        for row in zip(_counted(gold, model), _counted(gold, against), strict=True)]).reshape(-1, 6)
    only_model, only_against = (
        sum(len((set(a) - set(b)) & set(truth)) for truth, a, b in zip(gold, *pair, strict=True))
        for pair in ((model, against), (against, model)))
    first, second = (float(_f1(both[:, part].sum(0, keepdims=True))[0]) for part in (slice(0, 3), slice(3, 6)))
    differences = None
    if len(gold) > 1:
        drawn = resample_sums(both.astype(float), samples, seed)
        differences = _f1(drawn[:, :3]) - _f1(drawn[:, 3:])
    spread, p = (None, None) if differences is None else (interval(differences), two_sided(differences))
    return EntityComparison((first, second), spread, p, only_model, only_against, len(gold))


def comparison_lines(found: EntityComparison, model: str, against: str) -> str:
    """The comparison for people, F1 in per cent."""
    first, second = (100 * value for value in found.f1)
    line = f"{model}: F1 {first:.2f}; {against}: {second:.2f}; difference {first - second:+.2f}"
    if found.difference is None or found.p is None:
        return f"{line}; too few sentences to test it"
    verdict = "they differ" if found.p < 0.05 else "they do not differ at the 5 % level"
    return (f"{line} ({100 * found.difference.low:+.2f} to {100 * found.difference.high:+.2f})\n"
            f"right in only one of them: {found.only_model:,} and {found.only_against:,} entities; paired bootstrap "
            f"over {found.n_sentences:,} sentences p = {found.p:.3g}: {verdict}")


def _f1(sums: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """F1 of rows of (correct, predicted, gold); 0 where there is neither a prediction nor an entity."""
    return _share(2 * sums[:, 0], sums[:, 1] + sums[:, 2])


def _macro_f1(sums: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Of rows of (correct, predicted, gold) of each type the mean F1 of those types of which there is an entity, true
    or predicted; 0 where there is none of any."""
    rows, n_types = len(sums), sums.shape[1] // 3
    of_types = _f1(sums.reshape(-1, 3)).reshape(rows, n_types)
    there = sums.reshape(rows, n_types, 3)[..., 1:].sum(-1) > 0
    return _share(of_types.sum(1), there.sum(1).astype(float))  # the F1 of what is not there is 0


def _share(part: NDArray[numpy.float64], whole: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Shares of nothing are 0."""
    return numpy.divide(part, whole, out=numpy.zeros(len(part)), where=whole > 0)


def table(scores: EntityScores) -> str:
    """The scores for people, in per cent as conlleval prints them."""
    lines = [f"{'type':<16} {'precision':>9} {'recall':>7} {'F1':>7} {'entities':>9}"]
    for name, score in [*scores.by_type.items(), ("all", scores.overall)]:
        lines.append(f"{name:<16} {100 * score.precision:>8.2f}% {100 * score.recall:>6.2f}% {100 * score.f1:>7.2f} "
                     f"{score.gold:>9,}")
    spread = scores.f1_interval
    if spread is not None:
        lines.append(f"F1 of all: 95 % interval {100 * spread.low:.2f} to {100 * spread.high:.2f} (resampled over "
                     f"{scores.n_sentences:,} sentences)")
    error = scores.calibration_error
    if error is not None:
        lines.append(f"calibration error of the probabilities of what was found: {error:.4f}")
    return "\n".join(lines)
