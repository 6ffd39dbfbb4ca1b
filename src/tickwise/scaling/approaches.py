"""Compute-optimal sizes without a law of the loss: the envelope of curves and the parabolas of equal compute.

Hoffmann et al. 2022, sections 3.1 and 3.2. Shapes: S resamples (the first is the runs as they are), n runs, K curves,
G groups of equal compute, F values of compute.
"""

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from tickwise.scaling.fitting import percentile_interval, standard_error
from tickwise.scaling.minimise import Floats
from tickwise.scaling.runs import FLOPS_PER_PARAMETER_AND_TOKEN, Runs

_SAME_SIZE = 0.005
_BUDGETS = 300
_SAME_COMPUTE = 0.15
_FEWEST_SIZES = 4
_FEWEST_GROUPS = 3
_AT_ONCE = 50


@dataclass(frozen=True)
class Allocation:
    """N = factor·C^a and D = C/(6·N), so that D grows with C^(1 − a)."""

    flops: Floats
    sizes: Floats
    """The optimal sizes that the line was drawn through."""
    a: float
    log_factor: float
    """Natural logarithm of the factor."""
    a_draws: Floats
    log_factor_draws: Floats

    @property
    def interval(self) -> tuple[float, float] | None:
        return percentile_interval(self.a_draws)

    @property
    def stderr(self) -> float | None:
        return standard_error(self.a_draws)

    def size(self, flops: Floats | float) -> Floats:
        return numpy.asarray(numpy.exp(self.log_factor + self.a * numpy.log(flops)))

    def tokens(self, flops: Floats | float) -> Floats:
        return numpy.asarray(flops / (FLOPS_PER_PARAMETER_AND_TOKEN * self.size(flops)))


@dataclass(frozen=True)
class Parabola:
    """L = c0 + c1·z + c2·z², z = ln(N/centre), through the runs of about equal compute."""

    flops: float
    centre: float
    coefficients: tuple[float, float, float]
    best_size: float
    best_loss: float
    members: NDArray[numpy.intp]
    inside: bool
    """Whether the minimum lies within the sizes that were tried."""


def same_sizes(parameters_n: Floats) -> NDArray[numpy.intp]:
    """For each run the number of its size; sizes within half a percent are one (n,)."""
    order = numpy.argsort(parameters_n, kind="stable")
    groups = numpy.zeros(len(parameters_n), dtype=numpy.intp)
    first, group = parameters_n[order[0]], 0
    for index in order:
        if parameters_n[index] > first * (1 + _SAME_SIZE):
            first, group = parameters_n[index], group + 1
        groups[index] = group
    return groups


def envelope(runs: Runs, resamples: int, seed: int) -> Allocation | None:
    """Approach 1: for each of many budgets, the size whose curve of loss over compute is lowest there.

    Runs of one size make a curve, straight between its points on logarithmic axes. Resamples draw whole curves.
    ``None`` with fewer than three curves of two points.
    """
    groups = same_sizes(runs.parameters)
    curves = [numpy.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    curves = [members[numpy.argsort(runs.flops[members])] for members in curves if len(members) > 1]
    if len(curves) < 3:
        return None
    log_flops = numpy.log(runs.flops)
    budgets = numpy.linspace(min(log_flops[m].min() for m in curves), max(log_flops[m].max() for m in curves), _BUDGETS)
    losses_KF = numpy.full((len(curves), _BUDGETS), numpy.inf)
    for row, members in enumerate(curves):
        within = (budgets >= log_flops[members[0]]) & (budgets <= log_flops[members[-1]])
        losses_KF[row, within] = numpy.interp(budgets[within], log_flops[members], numpy.log(runs.losses[members]))
    sizes_K = numpy.array([numpy.log(runs.parameters[members]).mean() for members in curves])
    generator = numpy.random.default_rng(seed)
    drawn_SK = generator.multinomial(len(curves), numpy.full(len(curves), 1 / len(curves)), size=resamples) > 0
    drawn_SK = numpy.concatenate([numpy.ones((1, len(curves)), dtype=bool), drawn_SK])
    winners = numpy.zeros((len(drawn_SK), _BUDGETS))
    counted = numpy.zeros_like(winners)
    for start in range(0, len(drawn_SK), _AT_ONCE):
        drawn = drawn_SK[start : start + _AT_ONCE]
        losses = numpy.where(drawn[:, :, None], losses_KF, numpy.inf)
        winners[start : start + _AT_ONCE] = sizes_K[losses.argmin(axis=1)]
        counted[start : start + _AT_ONCE] = numpy.isfinite(losses).sum(axis=1) > 1
    slopes, offsets = weighted_lines(budgets, winners, counted)
    if not numpy.isfinite(slopes[0]):
        return None
    kept = counted[0] > 0
    return Allocation(numpy.exp(budgets[kept]), numpy.exp(winners[0][kept]), float(slopes[0]), float(offsets[0]),
                      slopes[1:], offsets[1:])


def equal_compute(runs: Runs, tolerance: float = _SAME_COMPUTE) -> list[tuple[float, NDArray[numpy.intp]]]:
    """Groups of runs of about equal compute: (their median FLOPs, their indices), by rising compute.

    The window of that relative width with the most runs is taken first, then the next among the rest, as long as a
    window has four sizes that span a factor of two.
    """
    log_flops, sizes = numpy.log(runs.flops), same_sizes(runs.parameters)
    free = numpy.ones(len(runs), dtype=bool)
    found = []
    while free.any():
        indices = numpy.flatnonzero(free)
        values = log_flops[indices]
        inside = (values[None, :] >= values[:, None]) & (values[None, :] <= values[:, None] + numpy.log1p(tolerance))
        for row in numpy.argsort(-inside.sum(axis=1), kind="stable"):
            members = indices[inside[row]]
            span = runs.parameters[members].max() / runs.parameters[members].min()
            if len(set(sizes[members])) >= _FEWEST_SIZES and span >= 2:
                break
        else:
            break
        found.append((float(numpy.exp(numpy.median(log_flops[members]))), members))
        free[members] = False
    return sorted(found, key=lambda pair: pair[0])


def iso_flop(runs: Runs, counts_Sn: Floats) -> tuple[Allocation | None, list[Parabola]]:
    """Approach 2: a parabola through the losses of each group of equal compute; N = factor·C^a through the minima.

    Minima outside the sizes that were tried are drawn but not used. The allocation is ``None`` with fewer than three
    usable minima.
    """
    counts = numpy.concatenate([numpy.ones((1, len(runs))), counts_Sn])
    parabolas, best_SG, used_SG = [], [], []
    for flops, members in equal_compute(runs):
        sizes, losses = numpy.log(runs.parameters[members]), runs.losses[members]
        centre = float(sizes.mean())
        coefficients = _weighted_parabolas(sizes - centre, losses, counts[:, members])
        with numpy.errstate(divide="ignore", invalid="ignore"):
            best = centre - coefficients[:, 1] / (2 * coefficients[:, 2])
        used = (coefficients[:, 2] > 0) & (best >= sizes.min()) & (best <= sizes.max())
        best_SG.append(numpy.where(used, best, 0.0))
        used_SG.append(used.astype(numpy.float64))
        c0, c1, c2 = (float(value) for value in coefficients[0])
        bottom = c0 - c1**2 / (4 * c2) if c2 > 0 else float("nan")
        parabolas.append(Parabola(flops, float(numpy.exp(centre)), (c0, c1, c2), float(numpy.exp(best[0])), bottom,
                                  members, bool(used[0])))
    if sum(parabola.inside for parabola in parabolas) < _FEWEST_GROUPS:
        return None, parabolas
    log_flops = numpy.log([parabola.flops for parabola in parabolas])
    slopes, offsets = weighted_lines(log_flops, numpy.stack(best_SG, axis=1), numpy.stack(used_SG, axis=1))
    inside = [parabola for parabola in parabolas if parabola.inside]
    return Allocation(numpy.array([p.flops for p in inside]), numpy.array([p.best_size for p in inside]),
                      float(slopes[0]), float(offsets[0]), slopes[1:], offsets[1:]), parabolas


def _weighted_parabolas(z_n: Floats, losses_n: Floats, weights_Sn: Floats) -> Floats:
    """Least-squares c0, c1, c2 of each row of weights (S, 3); NaN where fewer than three sizes have weight."""
    powers = numpy.stack([numpy.ones_like(z_n), z_n, z_n**2])
    normal = numpy.einsum("in,jn,sn->sij", powers, powers, weights_Sn)
    right = numpy.einsum("in,n,sn->si", powers, losses_n, weights_Sn)
    result = numpy.full((len(weights_Sn), 3), numpy.nan)
    solvable = numpy.linalg.cond(normal) < 1e12
    if solvable.any():
        result[solvable] = numpy.linalg.solve(normal[solvable], right[solvable][:, :, None])[:, :, 0]
    return result


def weighted_lines(x_n: Floats, y_Sn: Floats, weights_Sn: Floats) -> tuple[Floats, Floats]:
    """Least-squares slopes and offsets of y over x in each row (S,), (S,); NaN with fewer than two different x."""
    with numpy.errstate(divide="ignore", invalid="ignore"):
        total = weights_Sn.sum(axis=1)
        mean_x, mean_y = (weights_Sn * x_n).sum(axis=1) / total, (weights_Sn * y_Sn).sum(axis=1) / total
        dx = x_n - mean_x[:, None]
        spread = (weights_Sn * dx**2).sum(axis=1)
        spread = numpy.where(spread > 1e-12, spread, numpy.nan)
        slopes = (weights_Sn * dx * (y_Sn - mean_y[:, None])).sum(axis=1) / spread
    return slopes, mean_y - slopes * mean_x


@dataclass(frozen=True)
class PowerLaw:
    """L = (critical/x)^exponent through the runs that no run with at most as much x beats."""

    of: str
    """``parameters``, ``tokens`` or ``flops``."""
    exponent: float
    critical: float
    exponent_draws: Floats
    used: NDArray[numpy.intp]

    def loss(self, x: Floats) -> Floats:
        with numpy.errstate(all="ignore"):
            return numpy.asarray((self.critical / x) ** self.exponent)


def best_so_far_law(of: str, x_n: Floats, losses_n: Floats, counts_Sn: Floats) -> PowerLaw | None:
    """Kaplan et al. 2020, equations 1.1 to 1.3: a straight line on logarithmic axes, least squares.

    ``None`` with fewer than three runs on the line of the best.
    """
    order = numpy.lexsort((losses_n, x_n))
    log_x, log_losses = numpy.log(x_n[order]), numpy.log(losses_n[order])
    counts = numpy.concatenate([numpy.ones((1, len(x_n))), counts_Sn])[:, order]
    drawn = numpy.where(counts > 0, log_losses, numpy.inf)
    best = numpy.minimum.accumulate(drawn, axis=1)
    before = numpy.concatenate([numpy.full((len(best), 1), numpy.inf), best[:, :-1]], axis=1)
    front = (drawn < before).astype(numpy.float64)
    if front[0].sum() < 3:
        return None
    slopes, offsets = weighted_lines(log_x, numpy.broadcast_to(log_losses, counts.shape), front)
    exponent = -float(slopes[0])
    with numpy.errstate(over="ignore"):
        critical = float(numpy.exp(offsets[0] / exponent)) if exponent else float("nan")
    return PowerLaw(of, exponent, critical, -slopes[1:], order[front[0] > 0])
