"""A learning rate from one short trial: raise it exponentially and see where the loss falls fastest.

Source: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.
"""

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tickwise.core.errors import NumericsError
from tickwise.core.seeds import restore_rng_state, rng_state
from tickwise.training.config import OptimizerOptions
from tickwise.training.objective import Objective
from tickwise.training.optimizers import MasterWeights, Optimizer, total_norm

_SMOOTHING = 0.9
_DIVERGED = 3.0
_WINDOW = 7


@dataclass(frozen=True)
class FoundRate:
    """``lr``: where the loss fell fastest over the logarithm of the rate. ``tried`` and ``losses``: the curve, up to
    where the loss exploded."""

    lr: float
    tried: tuple[float, ...]
    losses: tuple[float, ...]


def find_learning_rate(module: nn.Module, objective: Objective, options: OptimizerOptions, device: torch.device, *,
                       lowest: float = 1e-5, highest: float = 1.0, steps: int = 100) -> FoundRate:
    """Train a copy of ``module`` for up to ``steps`` updates, each at a higher rate, in float32, gradients clipped as
    in training. The module, the random-number states and the objective's place in its data are left as they were.

    ``NumericsError`` when the loss is not finite at the lowest rate already.
    """
    place, tensors = objective.state(), objective.state_tensors()
    states = rng_state()
    trial = copy.deepcopy(module).to(device).train()
    weights = MasterWeights(trial, torch.float32)
    optimizer = Optimizer(trial, weights, dataclasses.replace(options, lr=lowest), torch.float32)
    growth = (highest / lowest) ** (1 / (steps - 1))
    tried: list[float] = []
    losses: list[float] = []
    average, lowest_average = 0.0, math.inf
    for step in range(steps):
        batch = objective.next_batch()
        weights.clear()
        loss, carried = objective.loss(trial, *(x.to(device) for x in batch.inputs))
        if not math.isfinite(loss.item()):
            break
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss.item()
        smooth = average / (1 - _SMOOTHING ** (step + 1))
        if smooth > _DIVERGED * lowest_average:
            break
        lowest_average = min(lowest_average, smooth)
        objective.carry(carried, 0)
        loss.backward()
        gradients = weights.collect(first=True)
        norm = total_norm(gradients).item()
        if norm > options.clip_norm:
            torch._foreach_mul_(gradients, options.clip_norm / norm)
        optimizer.step(gradients, growth**step)
        tried.append(lowest * growth**step)
        losses.append(loss.item())
    objective.restore(place, tensors)
    restore_rng_state(states)
    if len(losses) < 3:
        raise NumericsError(f"the loss is not finite at a learning rate of {lowest:g} already; check the data")
    return FoundRate(tried[steepest(losses)], tuple(tried), tuple(losses))


def steepest(losses: Sequence[float]) -> int:
    """Where a curve of at least three noisy values falls fastest: the lowest slope of a straight line through the
    values on both sides, as many on the one as on the other, so that the place is not late (Savitzky & Golay 1964)."""
    side = min(_WINDOW, (len(losses) - 1) // 2)
    slopes = np.convolve(losses, np.arange(side, -side - 1, -1), mode="valid")  # all of them times the same number
    return int(slopes.argmin()) + side
