"""Robust fits of a law to runs, with bootstrap resamples and a check that the runs can tell its coefficients apart.

Shapes: S resamples or starts, P coefficients, n runs.
"""

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from tickwise.core.errors import DataError
from tickwise.scaling.laws import Law
from tickwise.scaling.minimise import Floats, Minima, Objective, minimise

HUBER_DELTA = 1e-3
"""On differences of log losses (Hoffmann et al. 2022, section 3.3)."""
_SAME_OBJECTIVE, _NO_OBJECTIVE = 1e-5, 1e-8
_RESTARTS = 3


@dataclass(frozen=True)
class Fit:
    """A fitted law. ``objective`` is the Huber loss summed, not averaged, over the runs."""

    names: tuple[str, ...]
    values: Floats
    objective: float
    residuals: Floats
    """log of the measured loss minus log of the predicted one."""
    resampled: Floats
    """Coefficients of the bootstrap resamples that converged to finite ones."""
    failed_draws: int
    """Those that did not."""
    n_starts: int
    agreeing_starts: int
    """Starts that ended within 1e-5 of the best objective."""
    condition: float
    """Of the Jacobian with columns of unit length."""
    weakest: tuple[str, ...]
    """Coefficients along the direction that the runs say least about."""

    def value(self, name: str) -> float:
        return float(self.values[self.names.index(name)])

    def draws(self, name: str) -> Floats:
        return self.resampled[:, self.names.index(name)]


def huber_objective(law: Law, log_losses_n: Floats, weights_Sn: Floats) -> Objective:
    """Per unit of δ and run, so that its values are around one whatever the number of runs. A single row of weights is
    that of every problem."""
    scale = 1 / (HUBER_DELTA * weights_Sn.sum(axis=1))

    def objective(theta: Floats, rows: NDArray[numpy.intp]) -> tuple[Floats, Floats]:
        predicted, derivatives = law.log_losses(theta)
        weights = weights_Sn[rows] if len(weights_Sn) > 1 else weights_Sn
        factor = scale[rows] if len(weights_Sn) > 1 else scale
        with numpy.errstate(invalid="ignore", over="ignore"):
            residuals = log_losses_n - predicted
            clipped = numpy.clip(residuals, -HUBER_DELTA, HUBER_DELTA)
            # δ·(|r| − δ/2) outside and r²/2 inside are both c·(r − c/2) with c the clipped residual.
            values = (weights * clipped * (residuals - 0.5 * clipped)).sum(axis=1)
            pull = -weights * clipped
            gradients = numpy.stack([(pull * column).sum(axis=1) for column in derivatives], axis=1)
        return values * factor, gradients * factor[:, None]

    return objective


def bootstrap_counts(n: int, resamples: int, seed: int) -> Floats:
    """How often each of n runs is drawn in each resample (S, n)."""
    generator = numpy.random.default_rng(seed)
    return generator.multinomial(n, numpy.full(n, 1 / n), size=resamples).astype(numpy.float64)


def fit_law(law: Law, losses_n: Floats, what: str, counts_Sn: Floats) -> Fit:
    """The law's coefficients by Huber loss on log losses from many starts, and those of each resample.

    ``counts_Sn`` (``bootstrap_counts``) may have no rows. ``DataError`` with fewer runs than coefficients or when no
    start converges.
    """
    n = len(losses_n)
    if n < len(law.names):
        raise DataError(f"{what}: {n} runs cannot determine {len(law.names)} coefficients "
                        f"({', '.join(law.names)}); add runs")
    log_losses = numpy.log(losses_n)
    every_run = numpy.ones((1, n))
    starts = law.starts(losses_n)
    found = minimise(huber_objective(law, log_losses, every_run), starts)
    order = numpy.argsort(found.values)
    best = int(order[0])
    if not numpy.isfinite(found.values[best]):
        raise DataError(f"{what}: no start of the fit ends at finite coefficients; look for runs that are far off")
    theta = found.points[best : best + 1]
    predicted, derivatives = law.log_losses(theta)
    values = law.coefficients(theta)[0]
    draws = _resampled(law, log_losses, counts_Sn, _distinct(found, order))
    resampled = law.coefficients(draws.points)
    usable = draws.converged & numpy.isfinite(resampled).all(axis=1)
    condition, weakest = _condition(numpy.stack([column[0] for column in derivatives], axis=1), law.names)
    return Fit(
        names=law.names, values=values, objective=float(found.values[best]) * HUBER_DELTA * n,
        residuals=log_losses - predicted[0], resampled=resampled[usable],
        failed_draws=int((~usable).sum()), n_starts=len(starts),
        agreeing_starts=int((found.values <= found.values[best] * (1 + _SAME_OBJECTIVE) + _NO_OBJECTIVE).sum()),
        condition=condition, weakest=weakest,
    )


def _distinct(found: Minima, order: NDArray[numpy.intp]) -> Floats:
    """The best minimum and up to two others that are not it, from which a resample's own may be reached."""
    chosen = [found.points[order[0]]]
    for index in order[1:]:
        point = found.points[index]
        near = found.values[index] <= 1.05 * found.values[order[0]]
        if near and all(numpy.abs(point - other).max() > 0.02 for other in chosen):
            chosen.append(point)
        if len(chosen) == _RESTARTS:
            break
    return numpy.array(chosen)


def _resampled(law: Law, log_losses_n: Floats, counts_Sn: Floats, starts_KP: Floats) -> Minima:
    """For each resample the best of what the few starts lead to."""
    n_resamples, n_coefficients = len(counts_Sn), starts_KP.shape[1]
    if not n_resamples:
        return Minima(numpy.zeros((0, n_coefficients)), numpy.zeros(0), numpy.zeros(0, dtype=bool))
    objective = huber_objective(law, log_losses_n, counts_Sn)
    tries = [minimise(objective, numpy.repeat(start[None], n_resamples, axis=0)) for start in starts_KP]
    values = numpy.stack([attempt.values for attempt in tries])
    best, every = values.argmin(axis=0), numpy.arange(n_resamples)
    return Minima(numpy.stack([attempt.points for attempt in tries])[best, every], values[best, every],
                  numpy.stack([attempt.converged for attempt in tries])[best, every])


def _condition(jacobian_nP: Floats, names: tuple[str, ...]) -> tuple[float, tuple[str, ...]]:
    """Condition number of the scaled Jacobian, and the inner coefficients along its weakest direction."""
    lengths = numpy.linalg.norm(jacobian_nP, axis=0)
    if not (lengths > 1e-12 * lengths.max()).all():
        return float("inf"), ()
    _, singular, directions = numpy.linalg.svd(jacobian_nP / lengths, full_matrices=False)
    weak = numpy.abs(directions[-1])
    condition = float(singular[0] / singular[-1]) if singular[-1] > 0 else float("inf")
    return condition, tuple(name for name, share in zip(names, weak, strict=True) if share > 0.3)


def percentile_interval(draws: Floats) -> tuple[float, float] | None:
    """The 2.5 % and 97.5 % quantiles; ``None`` with fewer than 20 draws."""
    finite = draws[numpy.isfinite(draws)]
    if len(finite) < 20:
        return None
    low, high = numpy.quantile(finite, (0.025, 0.975))
    return float(low), float(high)


def standard_error(draws: Floats) -> float | None:
    finite = draws[numpy.isfinite(draws)]
    return float(finite.std(ddof=1)) if len(finite) >= 20 else None
