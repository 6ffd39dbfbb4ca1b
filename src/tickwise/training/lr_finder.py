"""A learning rate from one short trial: raise it exponentially and see where the loss falls fastest.

Source: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.
"""

import copy
import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tickwise.core.errors import NumericsError
from tickwise.training.config import OptimizerOptions
from tickwise.training.objective import Objective
from tickwise.training.optimizers import MasterWeights, Optimizer

_SMOOTHING = 0.9
_DIVERGED = 3.0


@dataclass(frozen=True)
class FoundRate:
    """``lr``: where the smoothed loss fell fastest over the logarithm of the rate. ``tried`` and ``losses``: the
    curve, up to where the loss exploded."""

    lr: float
    tried: tuple[float, ...]
    losses: tuple[float, ...]


def find_learning_rate(module: nn.Module, objective: Objective, options: OptimizerOptions, device: torch.device, *,
                       lowest: float = 1e-5, highest: float = 1.0, steps: int = 100) -> FoundRate:
    """Train a copy of ``module`` for up to ``steps`` updates, each at a higher rate, in float32. The module, the
    random-number state and the objective's place in its data are left as they were.

    ``NumericsError`` when the loss is not finite at the lowest rate already.
    """
    place, tensors = objective.state(), objective.state_tensors()
    state = torch.get_rng_state()
    trial = copy.deepcopy(module).to(device).train()
    weights = MasterWeights(trial, torch.float32)
    optimizer = Optimizer(trial, weights, dataclasses.replace(options, lr=lowest), torch.float32)
    growth = (highest / lowest) ** (1 / (steps - 1))
    tried: list[float] = []
    losses: list[float] = []
    average = 0.0
    for step in range(steps):
        batch = objective.next_batch()
        weights.clear()
        loss, carried = objective.loss(trial, *(x.to(device) for x in batch.inputs))
        if not math.isfinite(loss.item()):
            break
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss.item()
        smooth = average / (1 - _SMOOTHING ** (step + 1))
        if losses and smooth > _DIVERGED * min(losses):
            break
        objective.carry(carried, 0)
        loss.backward()
        optimizer.step(weights.collect(first=True), growth**step)
        tried.append(lowest * growth**step)
        losses.append(smooth)
    objective.restore(place, tensors)
    torch.set_rng_state(state)
    if len(losses) < 3:
        raise NumericsError(f"the loss is not finite at a learning rate of {lowest:g} already; check the data")
    slopes = np.gradient(np.array(losses))  # over equal steps of the logarithm
    return FoundRate(tried[int(slopes.argmin())], tuple(tried), tuple(losses))
