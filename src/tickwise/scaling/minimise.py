"""Quasi-Newton minimisation of many small problems side by side.

Shapes: S problems (starts or resamples), P coefficients.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

Floats = NDArray[numpy.float64]
Objective = Callable[[Floats, NDArray[numpy.intp]], tuple[Floats, Floats]]
"""(points (R, P), which of the S problems they belong to (R,)) → values (R,), gradients (R, P)."""

_SUFFICIENT_DECREASE, _CURVATURE = 1e-4, 0.9
_LINE_STEPS = 30
_SMALL_DECREASE, _NO_DECREASE, _SMALL_DECREASES = 1e-11, 1e-15, 4


@dataclass(frozen=True)
class Minima:
    points: Floats
    values: Floats
    converged: NDArray[numpy.bool_]
    """Whether the value had stopped falling before ``max_iterations``."""


def minimise(objective: Objective, starts_SP: Floats, *, max_iterations: int = 500) -> Minima:
    """BFGS with a weak Wolfe line search by bisection, which also copes with kinks (Lewis & Overton 2013).

    With five coefficients the whole inverse Hessian is smaller than the history that L-BFGS keeps in its place, so each
    problem has its own. A problem ends when its value, which should be around one far from the minimum, falls by less
    than 1e-11 of itself four times in a row.
    """
    points = starts_SP.astype(numpy.float64).copy()
    n_problems = len(points)
    values, gradients = objective(points, numpy.arange(n_problems))
    inverses = _first_inverses(gradients)
    small = numpy.zeros(n_problems, dtype=numpy.intp)
    usable = numpy.isfinite(values) & numpy.isfinite(gradients).all(axis=1)
    active = numpy.flatnonzero(usable)
    for iteration in range(max_iterations):
        if not active.size:
            break
        x, f, g, inverse = points[active], values[active], gradients[active], inverses[active]
        direction = -numpy.einsum("sij,sj->si", inverse, g)
        slope = (direction * g).sum(axis=1)
        uphill = ~(slope < 0)
        if uphill.any():
            inverse[uphill] = _first_inverses(g[uphill])
            direction[uphill] = -numpy.einsum("sij,sj->si", inverse[uphill], g[uphill])
            slope[uphill] = (direction[uphill] * g[uphill]).sum(axis=1)
        new_x, new_f, new_g = _line_search(objective, active, x, f, g, direction, slope)
        inverse = _updated(inverse, new_x - x, new_g - g, first=iteration == 0)
        decrease = f - new_f
        is_small = decrease <= _SMALL_DECREASE * numpy.abs(f) + _NO_DECREASE
        stuck = decrease <= 0  # start again downhill; the count below ends it if that does not help either
        inverse[stuck] = _first_inverses(new_g[stuck])
        points[active], values[active], gradients[active], inverses[active] = new_x, new_f, new_g, inverse
        small[active] = numpy.where(is_small, small[active] + 1, 0)
        active = active[(small[active] < _SMALL_DECREASES) & (numpy.abs(new_g).max(axis=1) > 0)]
    converged = usable.copy()
    converged[active] = False
    return Minima(points, numpy.where(usable, values, numpy.inf), converged)


def _first_inverses(gradients: Floats) -> Floats:
    """The identity, scaled so that the first step moves by one tenth."""
    n_coefficients = gradients.shape[1]
    norms = numpy.maximum(numpy.linalg.norm(gradients, axis=1), 1e-300)
    return 0.1 / norms[:, None, None] * numpy.eye(n_coefficients)


def _line_search(objective: Objective, rows: NDArray[numpy.intp], x: Floats, f: Floats, g: Floats, direction: Floats,
                 slope: Floats) -> tuple[Floats, Floats, Floats]:
    """Points with a sufficient decrease and a slope that has flattened; where there is none, the best point seen."""
    n = len(x)
    low, high, length = numpy.zeros(n), numpy.full(n, numpy.inf), numpy.ones(n)
    best_x, best_f, best_g = x.copy(), f.copy(), g.copy()
    open_rows = numpy.arange(n)
    for _ in range(_LINE_STEPS):
        trial = x[open_rows] + length[open_rows, None] * direction[open_rows]
        value, gradient = objective(trial, rows[open_rows])
        value = numpy.where(numpy.isfinite(value), value, numpy.inf)
        falls = value <= f[open_rows] + _SUFFICIENT_DECREASE * length[open_rows] * slope[open_rows]
        with numpy.errstate(over="ignore", invalid="ignore"):  # at points that are not finite, which do not fall
            flat = (gradient * direction[open_rows]).sum(axis=1) >= _CURVATURE * slope[open_rows]
        better = falls & (value <= best_f[open_rows])
        kept = open_rows[better]
        best_x[kept], best_f[kept], best_g[kept] = trial[better], value[better], gradient[better]
        high[open_rows[~falls]] = length[open_rows[~falls]]
        low[open_rows[falls & ~flat]] = length[open_rows[falls & ~flat]]
        open_rows = open_rows[~(falls & flat)]
        if not open_rows.size:
            break
        bounded = numpy.isfinite(high[open_rows])
        length[open_rows] = numpy.where(bounded, 0.5 * (low[open_rows] + numpy.where(bounded, high[open_rows], 0)),
                                        2 * length[open_rows])
    return best_x, best_f, best_g


def _updated(inverse: Floats, step: Floats, change: Floats, *, first: bool) -> Floats:
    """The BFGS update; rows without positive curvature along the step keep what they have (Nocedal & Wright, 6.17)."""
    curvature = (step * change).sum(axis=1)
    length = (change * change).sum(axis=1)
    good = curvature > 1e-14 * numpy.sqrt(length * (step * step).sum(axis=1))
    if not good.any():
        return inverse
    result = inverse.copy()
    s, y, rho = step[good], change[good], 1 / curvature[good]
    h = result[good]
    if first:
        h = (curvature[good] / length[good])[:, None, None] * numpy.eye(step.shape[1])
    hy = numpy.einsum("sij,sj->si", h, y)
    outer = numpy.einsum("si,sj->sij", s, hy)
    weight = rho * (1 + rho * (y * hy).sum(axis=1))
    h = h - rho[:, None, None] * (outer + outer.transpose(0, 2, 1)) + weight[:, None, None] * numpy.einsum(
        "si,sj->sij", s, s)
    result[good] = h
    return result
