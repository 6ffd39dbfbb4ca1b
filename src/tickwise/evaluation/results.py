"""Means of per-example scores with 95 % intervals, in lm-evaluation-harness's result layout."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy

from tickwise import __version__
from tickwise.evaluation.bootstrap import all_alike, interval, resample_sums
from tickwise.evaluation.classification import Score


def mean_score(values: Sequence[float], samples: int = 1000, seed: int = 0) -> Score:
    """The mean of one value per example, and its interval over resampled examples."""
    column = numpy.asarray(values, dtype=numpy.float64)[:, None]
    spread = interval(resample_sums(column, samples, seed)[:, 0] / len(column)) if len(column) > 1 else None
    return Score(float(column.mean()), spread)


def share_score(right: Sequence[bool], samples: int = 1000, seed: int = 0) -> Score:
    """The share of examples that is right, and its interval over resampled examples; where all or none are, of which
    resampling shows no spread, that of ``all_alike``."""
    score = mean_score([float(one) for one in right], samples, seed)
    return Score(score.value, all_alike(bool(right[0]), len(right))) if len(set(right)) == 1 else score


def results_json(scores: Mapping[str, Mapping[str, Score]], n: Mapping[str, int], *, model: str = "",
                 samples: int = 1000, seed: int = 0, output_type: str = "generate_until",
                 settings: Mapping[str, Any] | None = None, original: Mapping[str, int] | None = None,
                 lower_is_better: Collection[str] = ()) -> dict[str, Any]:
    """``scores``: task → metric → score, larger being better but for ``lower_is_better``; ``n``: the examples of each
    task that were scored, of ``original`` ones (as many). ``output_type`` says what is asked of the model, in
    lm-evaluation-harness's words where it has one; ``settings`` are further ones of every task."""
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
        "results": results, "intervals": intervals,
        "configs": {task: {"task": task, "output_type": output_type, "num_fewshot": 0, **(settings or {})}
                    for task in scores},
        "versions": dict.fromkeys(scores, 1),
        "n-shot": dict.fromkeys(scores, 0),
        "higher_is_better": {task: {name: name not in lower_is_better for name in metrics}
                             for task, metrics in scores.items()},
        "n-samples": {task: {"original": (original or n)[task], "effective": n[task]} for task in scores},
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
