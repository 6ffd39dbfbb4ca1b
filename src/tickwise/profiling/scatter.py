"""Whether two runs differ by more than their scatter, and which stage by more than the machine's speed.

Times of neighbouring ticks are alike, so whole blocks of them are resampled (moving blocks: Künsch 1989). What all
stages of equal work took longer alike is the machine's speed, not the program's; a stage stands out by what it moved
beyond that, and by more than such stages scatter among themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

FEWEST = 8
"""Ticks from which on there is a verdict."""
_BLOCK = 10
"""Ticks in a block, and fewer where that leaves less than four blocks."""
_DRAWS, _SEED = 500, 0
_AT_MOST = 2_000
"""Of more units every k-th is taken."""
_CONTROLS = 3
"""Stages of equal work from which on they show the machine's speed."""
_LEAST_SHARE = 0.01
"""A stage that is less than that of both times shows nothing."""
NO_DIFFERENCE = 1.02
"""Times whose ratio is less than this do not differ."""
_LEAST_BEYOND = 1.1
"""What a stage must have moved beyond the others at least."""
_ERRORS, _SPREADS = 3.0, 5.0
"""Standard errors of its own, and deviations of the stages of equal work, that a stage must have moved."""

Floats = NDArray[numpy.float64]


@dataclass(frozen=True)
class Ratio:
    """B over A, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval leaves no difference out, and the ratio is worth the name."""
        return (self.low > 1 or self.high < 1) and not 1 / NO_DIFFERENCE < self.value < NO_DIFFERENCE


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """What resampling says of the typical unit of A and of B."""

    whole: Ratio
    stages: tuple[Ratio | None, ...]
    """``None``: did not run in one of them."""
    common: Ratio | None
    """Median of the stages of equal work; ``None``: too few of them."""
    common_from: float
    common_to: float
    """The least and the most of those stages, but for what stands out."""
    stands_out: tuple[int, ...]
    """Places of the stages that moved beyond the common ratio, the largest part of the difference first."""


def middle(times_US: Floats) -> Floats:
    """``(stages,)``: the mean of the middle quarter of the units, by their sums, as ``core/typical.py`` has it."""
    cut = 3 * len(times_US) // 8
    order = numpy.argsort(times_US.sum(axis=1), kind="stable")
    return numpy.asarray(times_US[order[cut : len(order) - cut]].mean(axis=0))


def scatter(a_US: Floats, b_US: Floats, equal_work: Sequence[bool], ticks: int) -> Scatter | None:
    """Of ``(units, stages)`` nanoseconds, matched and in the order of time, that came from ``ticks`` ticks.

    ``None``: too few ticks for a verdict.
    """
    a_S, b_S = middle(a_US), middle(b_US)
    if ticks < FEWEST or not a_S.any() or not b_S.any():
        return None
    draws_a, draws_b = _resampled(a_US, b_US, ticks)
    moved = _moved(a_S, b_S, draws_a, draws_b, equal_work)
    excess_S = b_S - a_S * numpy.exp(moved.common)
    least = (NO_DIFFERENCE - 1) * min(a_S.sum(), b_S.sum())
    in_both_S = numpy.logical_and(a_US.any(axis=0), b_US.any(axis=0))  # if not always, their means tell nothing
    found = [place for place in range(len(a_S)) if abs(excess_S[place]) >= least
             and (moved.beyond_the_others(place) if moved.ran[place] else not in_both_S[place])]
    others = [place for place in moved.controls if place not in found]
    span = numpy.exp(moved.point[others]) if others else numpy.ones(1)
    return Scatter(
        whole=_ratio(float(numpy.log(b_S.sum() / a_S.sum())), numpy.log(draws_b.sum(axis=1) / draws_a.sum(axis=1))),
        stages=tuple(_ratio(float(moved.point[place]), moved.drawn[:, place]) if moved.ran[place] else None
                     for place in range(len(a_S))),
        common=_ratio(moved.common, moved.common_drawn) if len(moved.controls) else None,
        common_from=float(span.min()), common_to=float(span.max()),
        stands_out=tuple(sorted(found, key=lambda place: -abs(excess_S[place]))),
    )  # fmt: skip


def _resampled(a_US: Floats, b_US: Floats, ticks: int) -> tuple[Floats, Floats]:
    """``(draws, stages)`` of each: the typical unit of blocks that were drawn alike from both."""
    step = -(-len(a_US) // _AT_MOST)
    kept_a, kept_b = a_US[::step], b_US[::step]
    n = len(kept_a)
    block = max(1, min(round(_BLOCK * n / ticks), n // 4))
    generator = numpy.random.default_rng(_SEED)
    offsets = numpy.arange(block)
    draws_a, draws_b = [], []
    for _ in range(_DRAWS):
        starts = generator.integers(0, n - block + 1, size=-(-n // block))
        places = (starts[:, None] + offsets).ravel()[:n]
        draws_a.append(middle(kept_a[places]))
        draws_b.append(middle(kept_b[places]))
    return numpy.array(draws_a), numpy.array(draws_b)


@dataclass(frozen=True, kw_only=True)
class _Moved:
    """How far S stages moved from A to B, and in each of D draws, in logarithms of the ratio.

    Shapes: ``point`` and ``ran`` (S,), ``drawn`` (D, S), ``common_drawn`` (D,).
    """

    point: Floats
    drawn: Floats
    ran: NDArray[numpy.bool_]
    """Whether a stage ran in every draw of both."""
    controls: NDArray[numpy.intp]
    """Places of the stages of equal work; empty where they are too few."""
    common: float
    """How far these moved; 0 without them."""
    common_drawn: Floats

    def beyond_the_others(self, place: int) -> bool:
        """Whether a stage moved further than chance and the scatter of the stages of equal work explain."""
        error = float(numpy.std(self.drawn[:, place] - self.common_drawn))
        others = self.controls[self.controls != place]
        spread = 1.4826 * float(numpy.median(numpy.abs(self.point[others] - self.common))) if len(others) else 0.0
        beyond = abs(self.point[place] - self.common)
        return bool(beyond > max(float(numpy.log(_LEAST_BEYOND)), _ERRORS * error, _SPREADS * spread))


def _moved(a_S: Floats, b_S: Floats, draws_a: Floats, draws_b: Floats, equal_work: Sequence[bool]) -> _Moved:
    with numpy.errstate(divide="ignore", invalid="ignore"):
        point_S = numpy.log(b_S) - numpy.log(a_S)
        drawn_DS = numpy.log(draws_b) - numpy.log(draws_a)
    ran_S = numpy.isfinite(point_S) & numpy.isfinite(drawn_DS).all(axis=0)
    large_S = numpy.maximum(a_S / a_S.sum(), b_S / b_S.sum()) >= _LEAST_SHARE
    controls = numpy.flatnonzero(ran_S & large_S & numpy.array(equal_work, dtype=bool))
    if len(controls) < _CONTROLS:
        return _Moved(point=point_S, drawn=drawn_DS, ran=ran_S, controls=controls[:0], common=0.0,
                      common_drawn=numpy.zeros(_DRAWS))
    return _Moved(point=point_S, drawn=drawn_DS, ran=ran_S, controls=controls,
                  common=float(numpy.median(point_S[controls])),
                  common_drawn=numpy.median(drawn_DS[:, controls], axis=1))


def _ratio(point: float, drawn_D: Floats) -> Ratio:
    low, high = numpy.quantile(drawn_D, (0.025, 0.975))
    return Ratio(float(numpy.exp(point)), float(numpy.exp(low)), float(numpy.exp(high)))
