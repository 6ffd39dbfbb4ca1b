"""Every rank holds a share of the model and of the optimizer's state, and gathers a layer at a time (FSDP2).

A share is a rank's rows of every parameter (``Shard(0)``: the first ranks have one row more where they do not come out
even). Elementwise optimizers work on shares; Muon, which needs whole matrices, gathers one at a time.
"""

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from tickwise.core.device import torch_dtype
from tickwise.models.decoder import Decoder, fresh_parts
from tickwise.training.distributed.ranks import Joined, Ranks
from tickwise.training.distributed.replicated import LossModule
from tickwise.training.memory_saving import is_hollow, layers_of, used_outside
from tickwise.training.objective import Objective
from tickwise.training.optimizers import MasterWeights, Muon, Optimizer, orthogonalise, total_norm

if TYPE_CHECKING:
    from tickwise.training.loop import Training


def own_rows(whole: Tensor, like: DTensor) -> Tensor:
    """This rank's rows of a tensor of the shape of ``like``."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    return whole[offset[0] : offset[0] + shape[0]] if shape[0] else whole[:0]


def as_dtensor(share: Tensor, like: DTensor) -> DTensor:
    """A share as the distributed tensor of the shape of ``like`` that it belongs to."""
    return DTensor.from_local(share, like.device_mesh, [Shard(0)], run_check=False, shape=like.shape,
                              stride=torch.empty(like.shape, device="meta").stride())


class ShardedWeights(MasterWeights):
    """The shares of a sharded module's float32 parameters; FSDP computes with casts of them."""

    def __init__(self, module: nn.Module) -> None:
        self.names = [name for name, _ in module.named_parameters()]
        self.parameters = [p for _, p in module.named_parameters()]
        self.shared = True
        self.masters = [self.dtensor(i).to_local().detach() for i in range(len(self.names))]
        self.gradients = []

    def dtensor(self, i: int) -> DTensor:
        parameter = self.parameters[i]
        assert isinstance(parameter, DTensor)
        return parameter

    def collect(self, first: bool) -> list[Tensor]:
        """Empty before the micro-batch that exchanges gradients."""
        grads = [p.grad for p in self.parameters]
        if all(grad is None for grad in grads):
            return []
        self.gradients = [grad.to_local() if isinstance(grad, DTensor) else torch.zeros_like(master)
                          for grad, master in zip(grads, self.masters, strict=True)]
        return self.gradients

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.masters, values)

    def state_dict(self, module: nn.Module, values: list[Tensor]) -> dict[str, Tensor]:
        """Gathered on every rank, kept by the first one (the others' is empty)."""
        names: dict[int, list[str]] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        state: dict[str, Tensor] = dict(module.named_buffers())
        for i, value in enumerate(values):
            whole = as_dtensor(value, self.dtensor(i)).full_tensor()
            if dist.get_rank() == 0:
                state |= dict.fromkeys(names[id(self.parameters[i])], whole.cpu())
        return state


class ShardedMuon(Muon):
    """Muon over shares: momentum is a share, the matrix to be orthogonalised is gathered on every rank."""

    def __init__(self, weights: ShardedWeights, matrices: Sequence[tuple[int, tuple[int, ...]]], *, lr: float,
                 momentum: float, weight_decay: float, dtype: torch.dtype) -> None:
        self.lr, self.momentum, self.weight_decay, self.dtype = lr, momentum, weight_decay, dtype
        self.matrices = matrices
        self.blocks = [weights.masters[i] for i, _ in matrices]
        self.likes = [weights.dtensor(i) for i, _ in matrices]
        self.moments = [torch.zeros_like(block) for block in self.blocks]

    @torch.no_grad()
    def step(self, gradients: list[Tensor], scale: float) -> None:
        lr = self.lr * scale
        for (_, rows), share, like, moment, gradient in zip(self.matrices, self.blocks, self.likes, self.moments,
                                                            gradients, strict=True):
            moment.lerp_(gradient, 1 - self.momentum)
            whole = as_dtensor(gradient.lerp_(moment, self.momentum), like).full_tensor()  # Nesterov
            update = torch.cat([self._update(block) for block in whole.split(rows)])
            if self.weight_decay:
                share.mul_(1 - lr * self.weight_decay)
            share.add_(own_rows(update, like), alpha=-lr)

    def _update(self, block_RC: Tensor) -> Tensor:
        tall = block_RC.shape[0] > block_RC.shape[1]
        wide = block_RC.T if tall else block_RC
        update = orthogonalise(wide[None], self.dtype)[0] * (0.2 * math.sqrt(wide.shape[1]))
        return update.T if tall else update


class ShardedOptimizer(Optimizer):
    """The run's optimizer over shares."""

    weights: ShardedWeights

    def _make_muon(self, product_dtype: torch.dtype) -> Muon:
        assert self.options.lr is not None
        return ShardedMuon(self.weights, self._matrix_blocks, lr=self.options.lr, momentum=self.options.momentum,
                           weight_decay=self.options.weight_decay, dtype=product_dtype)

    def _blocks(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensors[i] for i, _ in self._matrix_blocks]

    def parameter_states(self) -> dict[str, tuple[int, Tensor]]:
        """Shares of the states that have a parameter's shape."""
        states: dict[str, tuple[int, Tensor]] = {}
        if self.muon is not None:
            for (i, _), moment in zip(self._matrix_blocks, self.muon.moments, strict=True):
                states[f"muon.{self.weights.names[i]}.momentum"] = i, moment
        return states | self._rest_states()

    @torch.no_grad()
    def load_parameter_states(self, states: Mapping[str, Tensor], n_updates: int) -> None:
        """``states`` are shares."""
        if self.muon is not None:
            for (i, _), moment in zip(self._matrix_blocks, self.muon.moments, strict=True):
                moment.copy_(states[f"muon.{self.weights.names[i]}.momentum"])
        self._load_rest_states(states, n_updates)


def _filled(training: "Training") -> Iterator[nn.Module]:
    """The parts of a decoder that has no numbers yet, one after the other with those of a fresh one."""
    module = training.module
    assert isinstance(module, Decoder)
    for name, fresh in fresh_parts(module.config, training.config.seed):
        for key, parameter in fresh.to(training.device).named_parameters(prefix=name):
            owner, _, own_name = key.rpartition(".")
            setattr(module.get_submodule(owner), own_name, parameter)
        yield module.get_submodule(name)


def hold_all(training: "Training") -> None:
    """Give a decoder that has no numbers yet those of a fresh one, all of them on every rank."""
    muon = training.optimizer.muon
    training.module.to(torch.float32)
    for _ in _filled(training):
        pass
    training.weights = MasterWeights(training.module, torch_dtype(training.dtype_name))
    training.optimizer = Optimizer(training.module, training.weights, training.config.optimizer,
                                   torch.float32 if muon is None else muon.dtype)
    if training.average is not None:
        training.average = [master.clone() for master in training.weights.masters]


class Sharded(Ranks):
    """One of several ranks with a share each."""

    shards = True

    def __init__(self, joined: Joined, training: "Training", dtype: torch.dtype) -> None:
        """Takes over what ``training`` holds whole: weights, optimizer states, averages."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        super().__init__(joined)
        # Layers return views, and nobody writes into those.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
        module, whole, hollow = training.module, training.weights, is_hollow(training.module)
        if not hollow:
            for parameter, master in zip(whole.parameters, whole.masters, strict=True):
                parameter.data = master  # float32: what FSDP shares out, and casts as it gathers
                parameter.grad = None
        mesh = init_device_mesh(training.device.type, (self.n_ranks,))
        # Gradients are added up and averaged in float32.
        policy = MixedPrecisionPolicy(param_dtype=dtype if dtype != torch.float32 else None,
                                      reduce_dtype=torch.float32)
        layers = layers_of(module)
        for part in _filled(training) if hollow else layers:
            if part in layers:
                for own in used_outside(part):  # they gather themselves
                    fully_shard(own, mesh=mesh, mp_policy=policy)
                fully_shard(part, mesh=mesh, mp_policy=policy)
        self._job: Any = fully_shard(LossModule(module, training.objective), mesh=mesh, mp_policy=policy)
        weights = ShardedWeights(module)
        muon = training.optimizer.muon
        optimizer = ShardedOptimizer(module, weights, training.config.optimizer,
                                     torch.float32 if muon is None else muon.dtype)
        if training.counters.step:
            shares = {name: own_rows(state, weights.dtensor(i))
                      for name, (i, state) in training.optimizer.parameter_states().items()}
            optimizer.load_parameter_states(shares, training.counters.step)
        if training.average is not None and hollow:
            training.average = [master.clone() for master in weights.masters]
        elif training.average is not None:
            training.average = [own_rows(one, weights.dtensor(i)).clone() for i, one in enumerate(training.average)]
        training.weights, training.optimizer = weights, optimizer

    def exchanging(self, wanted: bool) -> contextlib.AbstractContextManager[None]:
        self._job.set_requires_gradient_sync(wanted)
        return contextlib.nullcontext()

    def loss(self, objective: Objective, module: nn.Module, inputs: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        found: tuple[Tensor, tuple[Tensor, ...]] = self._job(*inputs)
        return found

    def norm(self, tensors: Iterable[Tensor]) -> Tensor:
        square = total_norm(tensors).double().square().cpu()
        dist.all_reduce(square, group=self.joined.group)
        return square.sqrt()

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """What belongs to no layer is gathered; layers gather themselves."""
        self._job.unshard()
        try:
            yield
        finally:
            self._job.reshard()
