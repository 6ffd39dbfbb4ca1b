"""Precision, recall and F1 of entities as conlleval and seqeval define them: an entity counts when its first token, its
last token and its type are all right (Tjong Kim Sang & De Meulder 2003)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from tickwise.data.tagged import Span
from tickwise.evaluation.bootstrap import Interval, interval, resample_sums


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
    """All types together (micro average), each type, and the 95 % interval of the micro F1 over sentences (None for
    fewer than two sentences)."""

    overall: TypeScore
    by_type: dict[str, TypeScore]
    f1_interval: Interval | None
    n_sentences: int

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the types that occur in the gold data or the predictions."""
        return float(numpy.mean([score.f1 for score in self.by_type.values()])) if self.by_type else 0.0

    def to_json(self, task: str = "entities") -> dict[str, Any]:
        """In lm-evaluation-harness's layout; each type under ``"types"``."""
        spread = self.f1_interval
        results = {
            "f1,none": self.overall.f1, "f1_stderr,none": spread.stderr if spread else None,
            "precision,none": self.overall.precision, "recall,none": self.overall.recall,
            "macro_f1,none": self.macro_f1,
        }
        types = {name: {"precision": s.precision, "recall": s.recall, "f1": s.f1, "gold": s.gold,
                        "predicted": s.predicted, "correct": s.correct} for name, s in self.by_type.items()}
        return {
            "results": {task: results}, "types": types, "n-samples": {task: {"original": self.n_sentences}},
            "f1_interval": [spread.low, spread.high] if spread else None,
        }


def entity_scores(gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]], *, samples: int = 1000,
                  seed: int = 0) -> EntityScores:
    """Compare the entities of each sentence. ``ValueError`` when the two have not as many sentences."""
    counts: dict[str, list[int]] = {}
    per_sentence = numpy.zeros((len(gold), 3))
    for row, (truth, guess) in enumerate(zip(gold, predicted, strict=True)):
        right = set(truth) & set(guess)
        for column, spans in enumerate((right, set(guess), set(truth))):
            per_sentence[row, column] = len(spans)
            for span in spans:
                counts.setdefault(span.type, [0, 0, 0])[column] += 1
    by_type = {name: TypeScore(*counts[name]) for name in sorted(counts)}
    overall = TypeScore(*(int(total) for total in per_sentence.sum(0)))
    spread = interval(_f1(resample_sums(per_sentence, samples, seed))) if len(gold) > 1 and samples else None
    return EntityScores(overall, by_type, spread, len(gold))


def _f1(sums: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """F1 of rows of (correct, predicted, gold); 0 where there is neither a prediction nor an entity."""
    total = sums[:, 1] + sums[:, 2]
    return numpy.divide(2 * sums[:, 0], total, out=numpy.zeros(len(sums)), where=total > 0)


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
    return "\n".join(lines)
