"""Every rank holds the model and the optimizer's state; gradients are averaged (``DistributedDataParallel``)."""

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tickwise.training.distributed.ranks import Joined, Ranks
from tickwise.training.objective import Objective
from tickwise.training.optimizers import MasterWeights

if TYPE_CHECKING:
    from tickwise.training.loop import Training


class LossModule(nn.Module):
    """A job as a module: a micro-batch's inputs → its loss and state."""

    def __init__(self, module: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.module = module
        self._objective = objective

    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self._objective.loss(self.module, *inputs)


class _FromMasters(nn.Module):
    """The job computed with float32 master weights as parameters, cast to the run's number format on the way: gradients
    add up, and are averaged over the ranks, in float32."""

    def __init__(self, job: LossModule, weights: "ReplicatedWeights", dtype: torch.dtype) -> None:
        super().__init__()
        self.leaves = nn.ParameterList(weights.leaves)
        self._job = (job,)  # in a tuple: its own parameters are none of this module's
        self._names = [f"module.{name}" for name in weights.names]
        self._dtype = dtype

    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        values = {name: leaf.to(self._dtype) for name, leaf in zip(self._names, self.leaves, strict=True)}
        found: tuple[Tensor, tuple[Tensor, ...]] = functional_call(self._job[0], values, inputs)
        return found


class ReplicatedWeights(MasterWeights):
    """Master weights whose gradients arrive at the masters themselves."""

    def __init__(self, weights: MasterWeights) -> None:
        self.names, self.parameters, self.shared = weights.names, weights.parameters, weights.shared
        self.masters = weights.masters
        self.gradients = []
        self.leaves = [nn.Parameter(master) for master in self.masters]

    def collect(self, first: bool) -> list[Tensor]:
        self.gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self.leaves]
        return self.gradients

    def clear(self) -> None:
        self.gradients = []
        for leaf in self.leaves:
            leaf.grad = None


def _leaves_parameters_out(training: "Training", n_ranks: int) -> bool:
    """Whether there are parameters that the loss does not depend on: DDP must know, and looks for them every time."""
    objective, weights = training.objective, training.weights
    example = objective.split(objective.example(), training.config.accumulate * n_ranks)[0]
    objective.loss(training.module, *(x.to(training.device) for x in example.inputs))[0].backward()
    found = any(parameter.grad is None for parameter in weights.parameters)
    for parameter in weights.parameters:
        parameter.grad = None
    return found


class Replicated(Ranks):
    """One of several ranks that hold the same."""

    def __init__(self, joined: Joined, training: "Training", dtype: torch.dtype) -> None:
        from torch.nn.parallel import DistributedDataParallel

        super().__init__(joined)
        weights = ReplicatedWeights(training.weights)
        job = _FromMasters(LossModule(training.module, training.objective), weights, dtype)
        training.weights = training.optimizer.weights = weights
        self._ddp: Any = DistributedDataParallel(job, gradient_as_bucket_view=True,
                                                 find_unused_parameters=_leaves_parameters_out(training, self.n_ranks))

    def exchanging(self, wanted: bool) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if wanted else self._ddp.no_sync()

    def loss(self, objective: Objective, module: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        found: tuple[Tensor, tuple[Tensor, ...]] = self._ddp(*inputs)
        return found
