"""Minimal pairs: how often a language model finds the grammatical one of two sentences likelier.

Source: Warstadt et al. 2020 (BLiMP). A set is a ``.jsonl`` file of rows with ``sentence_good`` and ``sentence_bad``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from tickwise.core.console import progress
from tickwise.core.errors import ConfigError, DataError
from tickwise.data import catalogue
from tickwise.data.rows import json_lines
from tickwise.engine.language_model import LanguageModel
from tickwise.evaluation.bootstrap import interval, resample_sums
from tickwise.evaluation.classification import Score
from tickwise.evaluation.likelihood import score_rows, text_row
from tickwise.evaluation.results import mean_score, results_json

_NO_SET = frozenset({"models_summary"})
"""A file that BLiMP keeps beside its sets."""


@dataclass(frozen=True)
class PairSet:
    """Pairs (good, bad) of one paradigm."""

    name: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PairScores:
    """``sets``: share of pairs of which the good sentence is likelier, by set; ``mean``: of the sets, each weighing the
    same. Its interval is over pairs drawn anew within each set."""

    sets: dict[str, Score]
    mean: Score
    n: dict[str, int]
    ties: int
    """Pairs of equally likely sentences; they count as wrong."""
    samples: int
    seed: int

    def to_json(self, model: str = "") -> dict[str, Any]:
        """Tasks named as lm-evaluation-harness names them."""
        scores = {"blimp": {"acc": self.mean}} | {f"blimp_{name}": {"acc": s} for name, s in self.sets.items()}
        n = {"blimp": sum(self.n.values())} | {f"blimp_{name}": count for name, count in self.n.items()}
        return results_json(scores, n, model=model, samples=self.samples, seed=self.seed,
                            output_type="multiple_choice") | {"ties": self.ties}


def read_pair_sets(data: str | Path | None = None) -> list[PairSet]:
    """The sets of a file, of a folder's ``.jsonl`` files, or (None) of the known data set ``blimp``."""
    if data is None:
        files = catalogue.DATA_SETS["blimp"].local_files(None, "test")
        if files is None:
            raise DataError("blimp: its files are not here (see tickwise data ls); give their folder with --data")
    elif Path(data).is_dir():
        files = sorted(path for path in Path(data).glob("*.jsonl") if path.stem not in _NO_SET)
        if not files:
            raise DataError(f"{data}: no .jsonl files in this folder; each set of pairs is one")
    else:
        files = [Path(data)]
    return [_read_set(file) for file in files]


def _read_set(file: Path) -> PairSet:
    pairs = []
    for number, row in enumerate(json_lines([file]), start=1):
        good, bad = (row.get(key) if isinstance(row, dict) else None for key in ("sentence_good", "sentence_bad"))
        if not (isinstance(good, str) and good.strip() and isinstance(bad, str) and bad.strip()):
            raise DataError(f"{file}, row {number}: needs the texts sentence_good and sentence_bad")
        pairs.append((good, bad))
    if not pairs:
        raise DataError(f"{file}: no pairs in it")
    return PairSet(file.stem, tuple(pairs))


def evaluate_pairs(model: LanguageModel, sets: Sequence[PairSet], *, samples: int = 1000,
                   seed: int = 0) -> PairScores:
    """Score every sentence as a text of its own, by the sum of its tokens' log-probabilities."""
    if samples < 2 or seed < 0:
        raise ConfigError(f"--bootstrap-samples {samples}, --seed {seed}: at least 2 samples, and a seed of at least 0")
    values: dict[str, list[float]] = {}
    ties = 0
    with progress("minimal pairs", sum(2 * len(one.pairs) for one in sets), "sentences") as bar:
        for one in sets:
            rows = [text_row(model, sentence) for pair in one.pairs for sentence in pair]
            scores = [row.log_probability for row in score_rows(model, rows, on_scored=bar.advance)]
            values[one.name] = [float(good > bad) for good, bad in zip(scores[::2], scores[1::2], strict=True)]
            ties += sum(good == bad for good, bad in zip(scores[::2], scores[1::2], strict=True))
    return PairScores(
        {name: mean_score(right, samples, seed) for name, right in values.items()},
        _mean_of_sets(values, samples, seed), {name: len(right) for name, right in values.items()}, ties, samples, seed,
    )


def _mean_of_sets(values: dict[str, list[float]], samples: int, seed: int) -> Score:
    drawn = numpy.zeros(samples)
    for number, right in enumerate(values.values()):
        column = numpy.asarray(right)[:, None]
        drawn += resample_sums(column, samples, seed + number)[:, 0] / len(right) / len(values)
    mean = float(numpy.mean([numpy.mean(right) for right in values.values()]))
    return Score(mean, interval(drawn) if sum(map(len, values.values())) > len(values) else None)


def table(scores: PairScores) -> str:
    """The shares for people, in per cent."""
    width = max(map(len, scores.sets))
    lines = [f"{'set':<{width}}  {'pairs':>6}  {'right':>6}   95 % interval"]
    rows = [(name, scores.n[name], score) for name, score in scores.sets.items()]
    for name, n, score in [*rows, ("mean of the sets", sum(scores.n.values()), scores.mean)]:
        known = score.interval
        between = f"{100 * known.low:.1f} to {100 * known.high:.1f}" if known else "n/a"
        lines.append(f"{name:<{width}}  {n:>6,}  {100 * score.value:>5.1f}%   {between}")
    if scores.ties:
        lines.append(f"{scores.ties:,} pairs of equally likely sentences count as wrong")
    return "\n".join(lines)
