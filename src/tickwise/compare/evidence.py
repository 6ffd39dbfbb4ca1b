"""What of a job's figures is more than chance: paired tests, intervals, and the points at which it turns.

Everything is paired by case. Right or wrong: McNemar's exact test. Scores in between: twice the smaller share of
bootstrap resamples on one side of no difference. Times: a sign test of which one was faster. Intervals are those of
resampled cases. p-values are not corrected here: ``conclusions`` does that for all tests of a report together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from tickwise.compare.cases import NOISY
from tickwise.compare.measure import Measured
from tickwise.evaluation.bootstrap import interval, resample_sums, two_sided
from tickwise.evaluation.classification import compare

SIGNIFICANT = 0.05
_SAMPLES = 20_000
_Floats = NDArray[numpy.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, and the p-value of there being no difference."""

    value: float
    low: float
    high: float
    p: float
    test: str


@dataclass(frozen=True)
class Turn:
    """A point at which it turns, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evidence:
    """Of a program and a model on one job."""

    program: str
    model: str
    differences: Mapping[str, Estimate]
    """By kind of input: the model's mean score less the program's."""
    learnt: Mapping[str, Estimate]
    """Of the program and of the model: its mean score on plain inputs less that of always giving the same answer."""
    constant: str
    """That answer."""
    time: Estimate
    """The model's processor time of an answer over the program's."""
    timed: int
    """Answers behind that."""
    memory: float
    """Likewise; counted."""
    turning_share: Turn | None
    """The share of rephrased or noisy inputs at which expected scores are equal, where they cross."""
    prices: Mapping[str, Turn]
    """By kind of input: processor seconds that a wrong answer must cost for the slower one to pay, where that is the
    one with the higher score."""


def weigh(program: Measured, model: Measured, constant: Sequence[float], name: str, plain: str,
          seed: int) -> Evidence:
    """``constant``: scores on the plain cases of always answering ``name``."""
    differences = {kind: difference(program.scores[kind], model.scores[kind], seed) for kind in program.scores}
    time = ratio(program.seconds_each, model.seconds_each, seed)
    return Evidence(
        program.name, model.name, differences,
        {who: difference(constant, one.scores[plain], seed) for who, one in (("program", program), ("model", model))},
        name, time, len(program.seconds_each), model.memory_bytes / max(1, program.memory_bytes),
        turning_share(_gains(program, model, plain), _gains(program, model, NOISY), seed),
        {kind: price for kind in (plain, NOISY) if (price := _price(program, model, kind, seed)) is not None})


def _gains(program: Measured, model: Measured, kind: str) -> _Floats:
    return numpy.array(model.scores[kind]) - numpy.array(program.scores[kind])


def difference(first: Sequence[float], second: Sequence[float], seed: int) -> Estimate:
    """Of the second one's mean score less the first one's."""
    if {*first, *second} <= {0.0, 1.0}:
        found = compare(numpy.array(first) > 0, numpy.array(second) > 0, bootstrap_samples=_SAMPLES, seed=seed)
        return Estimate(found.accuracy[1] - found.accuracy[0], found.difference.low, found.difference.high,
                        found.mcnemar_p, "McNemar, exact")
    gains = numpy.array(second) - numpy.array(first)
    means = _means(gains, seed=seed)[:, 0]
    spread = interval(means)
    return Estimate(float(gains.mean()), spread.low, spread.high, two_sided(means), "paired bootstrap")


def ratio(below: Sequence[float], above: Sequence[float], seed: int) -> Estimate:
    """Of the mean of ``above`` over that of ``below``, both positive."""
    means = _means(numpy.array(above), numpy.array(below), seed=seed)
    spread = interval(means[:, 0] / means[:, 1])
    pairs = list(zip(below, above, strict=True))
    signs = difference([float(a > b) for a, b in pairs], [float(b > a) for a, b in pairs], seed)
    return Estimate(float(numpy.mean(above) / numpy.mean(below)), spread.low, spread.high, signs.p, "sign test")


def fewest_timed() -> int:
    """Pairs of times from which a sign test can show a difference at all, before any correction."""
    return 1 + math.ceil(-math.log2(SIGNIFICANT))


def all_agree(found: Mapping[str, Any], timed: int) -> bool:
    """Whether a sign test of so many pairs found the same one faster in all of them: its smallest p-value."""
    return bool(found["p"] <= 2.0 ** (1 - timed) * (1 + 1e-9))


def may_be_above(found: Estimate) -> bool:
    """Whether a difference is above 0 before any correction for the number of tests."""
    return found.value > 0 and found.p < SIGNIFICANT


def _means(*columns: _Floats, seed: int) -> _Floats:
    """(samples, columns) means over resampled cases."""
    return resample_sums(numpy.stack(columns, axis=1), _SAMPLES, seed) / len(columns[0])


def turning_share(plain: _Floats, noisy: _Floats, seed: int) -> Turn | None:
    """Between plain inputs and noisy ones expected scores are mixtures; where these cross. ``plain``, ``noisy``: (N,)
    the model's score less the program's, of the same cases in both forms."""
    if plain.mean() * noisy.mean() >= 0:
        return None
    means = _means(plain, noisy, seed=seed)
    crossing = means[means[:, 0] * means[:, 1] < 0]
    spread = interval(crossing[:, 0] / (crossing[:, 0] - crossing[:, 1]))
    return Turn(float(plain.mean() / (plain.mean() - noisy.mean())), spread.low, spread.high)


def _price(program: Measured, model: Measured, kind: str, seed: int) -> Turn | None:
    gains = _gains(program, model, kind)
    slower = numpy.array(model.seconds_each) - numpy.array(program.seconds_each)
    if gains.mean() * slower.mean() <= 0:
        return None
    gain, seconds = _means(gains, seed=seed)[:, 0], _means(slower, seed=seed + 1)[:, 0]
    spread = interval((seconds / numpy.where(gain == 0, math.nan, gain))[gain * seconds > 0])
    return Turn(float(slower.mean() / gains.mean()), spread.low, spread.high)


def adjusted(values: Mapping[Any, float]) -> dict[Any, float]:
    """p-values after Holm's correction for their number (Holm 1979): the smallest times n, the next times n - 1 …, none
    below the one before."""
    found: dict[Any, float] = {}
    least = 0.0
    for place, key in enumerate(sorted(values, key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - place) * values[key]))
        found[key] = least
    return found
