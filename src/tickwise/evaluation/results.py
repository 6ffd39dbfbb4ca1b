"""Means of per-example scores with 95 % intervals, in lm-evaluation-harness's result layout."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from tickwise import __version__
from tickwise.evaluation.bootstrap import interval, resample_sums
from tickwise.evaluation.classification import Score


def mean_score(values: Sequence[float], samples: int = 1000, seed: int = 0) -> Score:
    """The mean of one value per example, and its interval over resampled examples."""
    column = numpy.asarray(values, dtype=numpy.float64)[:, None]
    spread = interval(resample_sums(column, samples, seed)[:, 0] / len(column)) if len(column) > 1 else None
    return Score(float(column.mean()), spread)


def results_json(scores: Mapping[str, Mapping[str, Score]], n: Mapping[str, int], *, model: str = "",
                 samples: int = 1000, seed: int = 0, higher_is_better: bool = True) -> dict[str, Any]:
    """``scores``: task → metric → score, all of which are better when larger, or smaller; ``n``: the examples of each
    task."""
    results: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    for task, metrics in scores.items():
        results[task] = {"alias": task}
        intervals[task] = {}
        for name, score in metrics.items():
            known = score.interval
            results[task][f"{name},none"] = score.value
            results[task][f"{name}_stderr,none"] = known.stderr if known else None
            intervals[task][name] = [known.low, known.high] if known else None
    return {
        "results": results, "intervals": intervals, "n-samples": {task: {"original": n[task]} for task in scores},
        "higher_is_better": {task: dict.fromkeys(metrics, higher_is_better) for task, metrics in scores.items()},
        "config": {"model": "tickwise", "model_args": {"path": model}, "bootstrap_iters": samples,
                   "random_seed": seed},
        "tickwise_version": __version__,
    }


def table(scores: Mapping[str, Score], unit: str = "examples", n: int | None = None) -> str:
    """The scores for people, in per cent."""
    width = max(map(len, scores), default=0)
    lines = [f"{'metric':<{width}}  {'value':>6}   95 % interval"]
    for name, score in scores.items():
        known = score.interval
        between = f"{100 * known.low:.2f} to {100 * known.high:.2f}" if known else "n/a"
        lines.append(f"{name:<{width}}  {100 * score.value:>6.2f}   {between}")
    return "\n".join(lines if n is None else [*lines, f"{n:,} {unit}"])
