"""Reads a run's ``metrics.jsonl``."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

from tickwise.core.errors import DataError


@dataclasses.dataclass(frozen=True)
class Metric:
    """One line of ``metrics.jsonl``; what a line does not say is ``None``."""

    step: int
    tokens: int | None = None
    seconds: float | None = None
    loss: float | None = None
    validation_loss: float | None = None
    lr: float | None = None
    tokens_per_s: float | None = None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def read_metrics(path: Path) -> list[Metric]:
    """The metrics in order of steps; a step that was run again after a resume counts once, as last written.

    A cut-off last line, as a killed run leaves it, is skipped. ``DataError`` when the file is missing, a
    line before the last is not JSON, or no line has a step.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: no metrics file; train first, or name a run directory's metrics.jsonl") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: cannot read the metrics: {problem}") from None
    by_step: dict[int, Metric] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            raise DataError(f"{path}: line {number} is not valid JSON") from None
        step = _number(entry.get("step")) if isinstance(entry, dict) else None
        if step is None:
            continue
        tokens = _number(entry.get("tokens"))
        found = Metric(
            step=int(step),
            tokens=None if tokens is None else int(tokens),
            **{
                name: _number(entry.get(name))
                for name in ("seconds", "loss", "validation_loss", "lr", "tokens_per_s")
            },
        )
        before = by_step.get(found.step)
        if before is not None:  # a validation line beside the training line of the same step
            found = Metric(**{
                field.name: new if (new := getattr(found, field.name)) is not None else getattr(before, field.name)
                for field in dataclasses.fields(Metric)
            })
        by_step[found.step] = found
    if not by_step:
        raise DataError(f"{path}: no line with a step; the run has not logged anything yet")
    return [by_step[step] for step in sorted(by_step)]


def loss_series(metrics: list[Metric]) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """``(step, loss)`` points of training and of validation."""
    training = [(m.step, m.loss) for m in metrics if m.loss is not None]
    validation = [(m.step, m.validation_loss) for m in metrics if m.validation_loss is not None]
    return training, validation


def smoothed(points: list[tuple[int, float]], window: int) -> list[tuple[int, float]]:
    """Centred moving average over about ``window`` points, narrower at the ends.

    Centred, because a trailing average lags behind a falling loss and would draw it too high.
    """
    half = max(0, window // 2)
    sums = [0.0, *itertools.accumulate(value for _, value in points)]
    result = []
    for index, (step, _) in enumerate(points):
        reach = min(half, index, len(points) - 1 - index)
        total = sums[index + reach + 1] - sums[index - reach]
        result.append((step, total / (2 * reach + 1)))
    return result
