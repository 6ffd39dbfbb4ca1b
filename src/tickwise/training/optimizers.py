"""Optimizers over float32 master weights: Muon batched over equal shapes, AdamW on torch's kernel, SGD from torch."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tickwise.core.errors import CheckpointError
from tickwise.layers.linear import StackedLinear
from tickwise.training.config import OptimizerOptions

# Odd quintics a·x + b·x³ + c·x⁵, applied one after the other: each is the minimax approximation of 1 on the interval
# that the one before it maps [0.003, 1] to (the greedy construction of Amsel et al. 2025, "Polar Express").
_QUINTICS = (
    (8.3837, -24.7662, 18.3573),
    (4.0434, -3.0114, 0.5695),
    (3.5056, -2.6267, 0.5257),
    (2.4901, -1.8343, 0.4368),
)


def orthogonalise(batch_NRC: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest (semi-)orthogonal matrices to N matrices of R ≤ C, approximately: singular values from 0.003 of the
    matrix's norm upwards end in [0.8, 1.2]. Newton–Schulz (Jordan et al. 2024), all products in ``dtype``."""
    x = batch_NRC / (torch.linalg.matrix_norm(batch_NRC, keepdim=True) + 1e-7)
    x = x.to(dtype)
    for a, b, c in _QUINTICS:
        gram = torch.bmm(x, x.transpose(1, 2))
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.float()


class Muon:
    """Momentum, orthogonalised: every 2-D weight moves by an update of the same spectrum.

    Source: Jordan et al. 2024; the step is scaled by 0.2·√max(R, C) so that its root mean square matches
    AdamW's and one learning rate serves both (Liu et al. 2025). Matrices of one shape are orthogonalised
    in one batch.
    """

    def __init__(self, blocks: list[Tensor], *, lr: float, momentum: float, weight_decay: float,
                 dtype: torch.dtype) -> None:
        self.lr, self.momentum, self.weight_decay, self.dtype = lr, momentum, weight_decay, dtype
        shapes: dict[tuple[int, int], list[int]] = {}
        for index, block in enumerate(blocks):
            rows, columns = block.shape
            shapes.setdefault((min(rows, columns), max(rows, columns)), []).append(index)
        self.blocks = blocks
        self.groups = list(shapes.items())
        self.moments = [torch.zeros(len(indices), *shape, device=blocks[0].device) for shape, indices in self.groups]

    def moments_by_block(self) -> list[Tensor]:
        """Views of ``moments``: one for each block, of its shape."""
        views = {i: moment[place] for (_, indices), moment in zip(self.groups, self.moments, strict=True)
                 for place, i in enumerate(indices)}
        return [views[i] if views[i].shape == block.shape else views[i].T for i, block in enumerate(self.blocks)]

    @torch.no_grad()
    def step(self, gradients: list[Tensor], scale: float) -> None:
        """``gradients[i]`` belongs to ``blocks[i]``; ``scale`` multiplies the learning rate."""
        lr = self.lr * scale
        for (shape, indices), moment in zip(self.groups, self.moments, strict=True):
            wide = [gradients[i] if gradients[i].shape == shape else gradients[i].T for i in indices]
            gradient = torch.stack(wide)
            moment.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp_(moment, self.momentum), self.dtype)  # Nesterov
            targets = [self.blocks[i] for i in indices]
            if self.weight_decay:
                torch._foreach_mul_(targets, 1 - lr * self.weight_decay)
            size = -lr * 0.2 * math.sqrt(shape[1])
            updates = [u if t.shape == shape else u.T for u, t in zip(update.unbind(), targets, strict=True)]
            torch._foreach_add_(targets, updates, alpha=size)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Updates and state are those of ``torch.optim.AdamW(fused=True)``, to the last bit; but whoever makes one of torch's
    optimizers waits a second for its compiler to be imported.
    """

    def __init__(self, groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float) -> None:
        self.param_groups, self.betas, self.eps = groups, betas, eps
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter from its gradient."""
        for group in self.param_groups:
            states = [self._state_of(parameter) for parameter in group["params"]]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                group["params"], [parameter.grad for parameter in group["params"]],
                [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states], [], steps,
                lr=group["lr"], beta1=self.betas[0], beta2=self.betas[1], weight_decay=group["weight_decay"],
                eps=self.eps, amsgrad=False, maximize=False,
            )  # fmt: skip

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {"step": torch.zeros((), device=parameter.device),
                                     "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        return self.state[parameter]


class MasterWeights:
    """Float32 copies of a module's parameters, for optimizers; the module may compute in bf16.

    In fp32 the copies are the parameters themselves.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self.names = [name for name, _ in module.named_parameters()]
        self.parameters = [p for _, p in module.named_parameters()]
        self.shared = dtype == torch.float32
        if self.shared:
            self.masters = [p.detach() for p in self.parameters]
            self.gradients: list[Tensor] = []
        else:
            self.masters = [p.detach().clone() for p in self.parameters]
            module.to(dtype)
            self.gradients = [torch.zeros_like(m) for m in self.masters]

    def collect(self, first: bool) -> list[Tensor]:
        """Take the parameters' gradients as float32: set for the first micro-batch, added for the others."""
        for parameter in self.parameters:
            if parameter.grad is None:  # a parameter that this batch's loss did not depend on
                parameter.grad = torch.zeros_like(parameter)
        if self.shared:
            self.gradients = [p.grad for p in self.parameters if p.grad is not None]
            return self.gradients
        fresh = [p.grad for p in self.parameters if p.grad is not None]
        if first:
            torch._foreach_copy_(self.gradients, fresh)
        else:
            torch._foreach_add_(self.gradients, [g.float() for g in fresh])
        for parameter in self.parameters:
            parameter.grad = None
        return self.gradients

    @contextmanager
    def replaced_by(self, values: list[Tensor] | None) -> Iterator[None]:
        """The module computes with ``values`` (if any) inside the ``with`` block and with the masters after it."""
        if values is None:
            yield
            return
        kept = [m.clone() for m in self.masters] if self.shared else self.masters
        self._copy(values)
        try:
            yield
        finally:
            self._copy(kept)

    def clear(self) -> None:
        if self.shared:
            self.gradients = []  # they are the parameters' own, and would live on here
        for parameter in self.parameters:
            parameter.grad = None

    def publish(self) -> None:
        """Copy the masters into the module."""
        if not self.shared:
            self._copy(self.masters)

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        torch._foreach_copy_([p.data for p in self.parameters], values)

    def state_dict(self, module: nn.Module, values: list[Tensor]) -> dict[str, Tensor]:
        """``module.state_dict()`` with ``values`` in place of its parameters (tied names included)."""
        by_pointer = {p.data_ptr(): v for p, v in zip(self.parameters, values, strict=True)}
        return {name: by_pointer.get(t.data_ptr(), t) for name, t in module.state_dict().items()}

    @torch.no_grad()
    def load(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Set the masters, and the module from them."""
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(state[name])
        self.publish()


_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def _is_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and (name.startswith("layers.") or ".layers." in name)


def layer_ratios(names: Sequence[str], decay: float) -> list[float]:
    """The share of the learning rate of each parameter: 1 above the layers, ``decay`` in the last layer, less by that
    factor in each one below, and once more in the embeddings (Howard & Ruder 2018)."""
    found = [_LAYER.search(name) for name in names]
    n_layers = max((int(match.group(1)) + 1 for match in found if match), default=0)
    return [decay ** (n_layers - int(match.group(1)) if match else n_layers + 1 if "embed" in name else 0)
            for name, match in zip(names, found, strict=True)]


_STATES: dict[str, tuple[str, ...]] = {"sgd": ("momentum_buffer",)} | dict.fromkeys(
    ("adamw", "muon"), ("step", "exp_avg", "exp_avg_sq"))
"""What the optimizer of each name keeps of a parameter (Muon: of those that it leaves to AdamW)."""


class Optimizer:
    """The chosen optimizer over master weights: Muon for the layers' matrices with AdamW for the rest, or
    AdamW or SGD for all."""

    def __init__(self, module: nn.Module, weights: MasterWeights, options: OptimizerOptions,
                 product_dtype: torch.dtype) -> None:
        assert options.lr is not None
        self.weights, self.options = weights, options
        self.muon: Muon | None = None
        named = list(zip(weights.names, weights.masters, strict=True))
        matrices = [i for i, (name, p) in enumerate(named) if _is_matrix(name, p)] if options.name == "muon" else []
        self._matrix_blocks: list[tuple[int, tuple[int, ...]]] = []
        if matrices:
            modules = dict(module.named_modules())
            for i in matrices:
                owner = modules[weights.names[i].rpartition(".")[0]]
                rows = owner.blocks if isinstance(owner, StackedLinear) else (weights.parameters[i].shape[0],)
                self._matrix_blocks.append((i, rows))
            self.muon = self._make_muon(product_dtype)
        self._rest = [i for i in range(len(named)) if i not in set(matrices)]
        self._leaves = [nn.Parameter(weights.masters[i]) for i in self._rest]
        lr = options.lr * (options.embedding_lr_ratio if self.muon else 1.0)
        by_rate: dict[tuple[float, float], list[nn.Parameter]] = {}
        ratios = layer_ratios(weights.names, options.layer_decay)
        for leaf, i in zip(self._leaves, self._rest, strict=True):
            weight_decay = options.weight_decay if leaf.ndim >= 2 else 0.0
            by_rate.setdefault((weight_decay, lr * ratios[i]), []).append(leaf)
        groups: list[dict[str, Any]] = [
            {"params": leaves, "weight_decay": weight_decay, "lr": rate, "peak": rate}
            for (weight_decay, rate), leaves in by_rate.items()
        ]
        self.rest: AdamW | torch.optim.SGD
        if options.name == "sgd":
            self.rest = torch.optim.SGD(groups, momentum=options.momentum, nesterov=options.momentum > 0, foreach=True)
        else:
            self.rest = AdamW(groups, betas=(options.beta1, options.beta2), eps=1e-10)

    def _make_muon(self, product_dtype: torch.dtype) -> Muon:
        assert self.options.lr is not None
        return Muon(self._blocks(self.weights.masters), lr=self.options.lr, momentum=self.options.momentum,
                    weight_decay=self.options.weight_decay, dtype=product_dtype)

    def _blocks(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What Muon updates, each on its own, of ``tensors`` in the order of the parameters."""
        return [piece for i, rows in self._matrix_blocks for piece in tensors[i].split(rows)]

    def step(self, gradients: list[Tensor], scale: float) -> None:
        """One update of the masters from float32 ``gradients``, then of the module."""
        if self.muon is not None:
            self.muon.step(self._blocks(gradients), scale)
        for leaf, i in zip(self._leaves, self._rest, strict=True):
            leaf.grad = gradients[i]
        for group in self.rest.param_groups:
            group["lr"] = group["peak"] * scale
        self.rest.step()
        self.weights.publish()

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by name."""
        tensors: dict[str, Tensor] = {}
        if self.muon is not None:
            for ((rows, columns), _), moment in zip(self.muon.groups, self.muon.moments, strict=True):
                tensors[f"muon.{rows}x{columns}.momentum"] = moment
        for leaf, i in zip(self._leaves, self._rest, strict=True):
            for key, value in self.rest.state.get(leaf, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{self.options.name}.{self.weights.names[i]}.{key}"] = value
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Undo ``state_tensors``; ``CheckpointError`` when one is missing or of another shape."""

        def take(name: str, like: Tensor | None) -> Tensor:
            if name not in tensors:
                raise CheckpointError(f"{where}: optimizer state '{name}' is missing")
            if like is not None and tensors[name].shape != like.shape:
                raise CheckpointError(f"{where}: optimizer state '{name}' has shape {tuple(tensors[name].shape)}, "
                                      f"this run needs {tuple(like.shape)}")
            return tensors[name]

        if self.muon is not None:
            for ((rows, columns), _), moment in zip(self.muon.groups, self.muon.moments, strict=True):
                moment.copy_(take(f"muon.{rows}x{columns}.momentum", moment))
        for leaf, i in zip(self._leaves, self._rest, strict=True):
            self.rest.state[leaf] = {
                key: take(f"{self.options.name}.{self.weights.names[i]}.{key}",
                          None if key == "step" else leaf).clone().to(leaf.device)
                for key in _STATES[self.options.name]
            }

    def parameter_states(self) -> dict[str, tuple[int, Tensor]]:
        """The states that have a parameter's shape, by name: the parameter's number and the state. What is missing (no
        update was made yet) is made."""
        states: dict[str, tuple[int, Tensor]] = {}
        if self.muon is not None:
            moments = iter(self.muon.moments_by_block())
            for i, rows in self._matrix_blocks:
                states[f"muon.{self.weights.names[i]}.momentum"] = i, torch.cat([next(moments) for _ in rows])
        return states | self._rest_states()

    def _rest_states(self) -> dict[str, tuple[int, Tensor]]:
        states = {}
        for leaf, i in zip(self._leaves, self._rest, strict=True):
            state = self.rest.state.setdefault(leaf, {})
            for key in _STATES[self.options.name]:
                if key not in state:
                    state[key] = torch.zeros((), device=leaf.device) if key == "step" else torch.zeros_like(leaf)
                if key != "step":
                    states[f"{self.options.name}.{self.weights.names[i]}.{key}"] = i, state[key]
        return states

    @torch.no_grad()
    def load_parameter_states(self, states: Mapping[str, Tensor], n_updates: int) -> None:
        """Undo ``parameter_states`` after ``n_updates`` updates."""
        if self.muon is not None:
            moments = iter(self.muon.moments_by_block())
            for i, rows in self._matrix_blocks:
                for piece in states[f"muon.{self.weights.names[i]}.momentum"].split(rows):
                    next(moments).copy_(piece)
        self._load_rest_states(states, n_updates)

    def _load_rest_states(self, states: Mapping[str, Tensor], n_updates: int) -> None:
        for name, (_, own) in self._rest_states().items():
            own.copy_(states[name])
        for leaf in self._leaves:
            if "step" in self.rest.state[leaf]:
                self.rest.state[leaf]["step"].fill_(n_updates)


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The 2-norm of all gradients as one vector; not finite if any element is not."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))
