"""The learning rate where a loss falls fastest."""

import numpy as np
import pytest
import torch
from torch import nn

from tickwise.training.config import OptimizerOptions
from tickwise.training.lr_finder import find_learning_rate, steepest
from tickwise.training.objective import Batch


@pytest.mark.parametrize("place", [25, 40, 60])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_the_steepest_place_is_neither_late_nor_early(place, noise):
    for seed in range(5):
        curve = 1 / (1 + np.exp((np.arange(100) - place) / 5)) + noise * np.random.default_rng(seed).normal(size=100)
        assert abs(steepest(curve.tolist()) - place) <= (5 if noise else 0)
    assert steepest([3.0, 2.0, 0.0]) == 1


class Line:
    """The loss of a weight w is 1000 w: its gradient is far beyond what a training clips at."""

    def state(self):
        return {}

    def state_tensors(self):
        return {}

    def restore(self, state, tensors):
        pass

    def next_batch(self):
        return Batch((torch.ones(1),), 1)

    def loss(self, module, x):
        return 1000 * module(x[None]).sum() + 1e6, ()

    def carry(self, carried, rank):
        pass


def test_gradients_are_clipped_as_in_a_training():
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.zero_()
    options = OptimizerOptions(name="sgd", lr=1.0, weight_decay=0.0, clip_norm=1.0)
    found = find_learning_rate(module, Line(), options, torch.device("cpu"), steps=20)
    fallen = (1e6 - np.array(found.losses)) / 1000  # how far the weight went; momentum adds to the rates
    assert 0 < fallen[-1] <= 11 * sum(found.tried)
    assert module.weight.item() == 0
