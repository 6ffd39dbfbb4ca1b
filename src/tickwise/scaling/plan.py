"""Which model a budget is best spent on, and what loss to expect of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy

from tickwise.scaling.fitting import percentile_interval
from tickwise.scaling.laws import parametric_loss
from tickwise.scaling.minimise import Floats
from tickwise.scaling.runs import FLOPS_PER_PARAMETER_AND_TOKEN
from tickwise.scaling.study import FittedLaw, optimal_size

INFERENCE_SHARE = 1 / 3
"""Cost of a token that is read or written over that of one trained on: 2·N FLOPs beside 6·N (Sardana et al. 2024)."""
_KNOT_FACTOR = 1.8
_NO_BETTER = 2
_LOG_RANGE, _HALVINGS = 60.0, 60


@dataclass(frozen=True)
class Expected:
    """The loss that a law expects, with the 95 % interval of a single run: the resampled coefficients together with the
    scatter of runs around the law. ``None`` where the law has no resamples."""

    loss: float
    interval: tuple[float, float] | None


def tokens_within(budget: float, cost_per_token: float, inference_tokens: float) -> float:
    """Training tokens that a budget pays for once the model's later use is paid; negative if it cannot pay that."""
    return budget / cost_per_token - INFERENCE_SHARE * inference_tokens


def expected_loss(law: FittedLaw, parameters: float, tokens: float, seed: int = 1) -> Expected:
    """At a size and a number of training tokens."""
    loss = float(parametric_loss(law.coefficients, parameters, tokens))
    if not len(law.draws):
        return Expected(loss, None)
    scatter = numpy.random.default_rng(seed).choice(law.residuals, size=(20, len(law.draws)))
    draws = parametric_loss(law.draws, parameters, tokens) * numpy.exp(scatter)
    return Expected(loss, percentile_interval(draws.ravel()))


def optimal_size_interval(law: FittedLaw, flops: float,
                          inference_tokens: float = 0.0) -> tuple[float, tuple[float, float] | None]:
    """The law's own optimum for a compute that training and later use share, between all sizes, with its 95 %
    interval."""
    def best(coefficients: Floats) -> Floats:
        return _optimal_size_with_use(coefficients, flops, inference_tokens) if inference_tokens \
            else optimal_size(coefficients, flops)

    return float(best(law.coefficients)), percentile_interval(best(law.draws))


def _optimal_size_with_use(coefficients_S5: Floats, flops: float, inference_tokens: float) -> Floats:
    """N that minimises L(N, D) with 6·N·D + 2·N·T = C (Sardana et al. 2024, equation 3), by bisection: the logarithm of
    α·A·N^−α over β·B·D^(−β−1)·C/(6·N) falls with N, and is 0 there. NaN where no coefficients make an optimum."""
    _, a, b, alpha, beta = numpy.moveaxis(numpy.asarray(coefficients_S5, dtype=float), -1, 0)
    per_parameter = flops / FLOPS_PER_PARAMETER_AND_TOKEN
    most = numpy.log(per_parameter / (INFERENCE_SHARE * inference_tokens))
    low, high = numpy.full_like(alpha, most - _LOG_RANGE), numpy.full_like(alpha, most)
    with numpy.errstate(all="ignore"):
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            log_tokens = numpy.log(per_parameter * numpy.exp(-middle) - INFERENCE_SHARE * inference_tokens)
            balance = (numpy.log(alpha * a) - alpha * middle
                       - numpy.log(beta * b * per_parameter) + (beta + 1) * log_tokens + middle)
            low, high = numpy.where(balance > 0, middle, low), numpy.where(balance > 0, high, middle)
        return numpy.asarray(numpy.where(numpy.isfinite(numpy.log(alpha * a * beta * b)), numpy.exp(low), numpy.nan))


def best_model(law: FittedLaw, sizes: Sequence[int], cost_per_token: Callable[[int], float], budget: float,
               inference_tokens: float = 0.0) -> int | None:
    """Index of the size (ascending) that reaches the lowest expected loss within the budget; ``None`` when the budget
    trains none of them.

    ``cost_per_token(index)`` may take seconds. It is asked of sizes about a factor of 1.8 apart, from the smallest up
    to where the loss has risen twice; between these, costs are read off a line on logarithmic axes.
    """
    knots: list[int] = []
    costs: list[float] = []
    best, rises = float("inf"), 0
    for index, size in enumerate(sizes):
        if knots and size < _KNOT_FACTOR * sizes[knots[-1]] and index + 1 < len(sizes):
            continue
        cost = cost_per_token(index)
        knots.append(index)
        costs.append(cost)
        loss = _loss_within(law, size, cost, budget, inference_tokens)
        if loss < best:
            best, rises = loss, 0
        else:
            rises += 1
        if rises == _NO_BETTER:
            break
    if best == float("inf"):
        return None
    reached = list(range(knots[-1] + 1))
    between = numpy.exp(numpy.interp(numpy.log([sizes[i] for i in reached]), numpy.log([sizes[i] for i in knots]),
                                     numpy.log(costs)))
    losses = [_loss_within(law, sizes[i], float(between[i]), budget, inference_tokens) for i in reached]
    return int(numpy.argmin(losses))


def _loss_within(law: FittedLaw, size: int, cost: float, budget: float, inference_tokens: float) -> float:
    tokens = tokens_within(budget, cost, inference_tokens)
    return float(parametric_loss(law.coefficients, size, tokens)) if tokens >= 1 else float("inf")


@dataclass(frozen=True)
class Recipe:
    """Batch and learning rate for a training compute, where they are from, and the optimizer that they are for."""

    batch_tokens: float
    lr: float
    source: str
    optimizer: str = "adamw"


PUBLISHED_FROM_FLOPS = 1e17


def published_recipe(flops: float) -> Recipe | None:
    """Bi et al. 2024 (DeepSeek LLM), section 3.1, for AdamW: batch 0.2920·C^0.3271 tokens, learning rate
    0.3118·C^−0.1250. They fitted it from 1e17 FLOPs on; ``None`` below that.
    """
    if flops < PUBLISHED_FROM_FLOPS:
        return None
    return Recipe(0.2920 * flops**0.3271, 0.3118 * flops**-0.1250, "DeepSeek LLM (Bi et al. 2024), section 3.1")


def training_flops(parameters: float, tokens: float) -> float:
    """6·N·D."""
    return FLOPS_PER_PARAMETER_AND_TOKEN * parameters * tokens
