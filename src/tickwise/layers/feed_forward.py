"""The position-wise feed-forward block: (…, C) → (…, C)."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.layers.dropout import dropout
from tickwise.layers.linear import Linear, StackedLinear

Activation = Literal["swiglu", "geglu_tanh", "gelu", "gelu_tanh", "silu", "relu", "relu2"]


class _SquaredRelu(torch.autograd.Function):
    """``relu(x)²`` (So et al. 2021) in one saved tensor; its slow twin is ``relu(x).square()``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (grad * positive).mul_(2)


def _squared_relu(x: Tensor) -> Tensor:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _SquaredRelu.apply(x)
    return F.relu(x).square()


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


_FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu, "gelu_tanh": _gelu_tanh, "silu": F.silu, "relu": F.relu, "relu2": _squared_relu,
}
_GATES: dict[Activation, Callable[[Tensor], Tensor]] = {"swiglu": F.silu, "geglu_tanh": _gelu_tanh}


class FeedForward(nn.Module):
    """``down(act(up(x)))``; with a gate ``down(act(gate(x)) · up(x))`` (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int, activation: Activation, bias: bool, dropout: float = 0.0) -> None:
        """``dropout`` is on the hidden features, while training."""
        super().__init__()
        self.activation, self.dropout = activation, dropout
        if activation in _GATES:
            self.gate_up_proj = StackedLinear(width, (hidden, hidden), bias=bias)
        else:
            self.up_proj = Linear(width, hidden, bias=bias)
        self.down_proj = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.activation in _GATES:
            gate, up = self.gate_up_proj.forward_split(x)
            hidden = _GATES[self.activation](gate) * up
        else:
            hidden = _FUNCTIONS[self.activation](self.up_proj(x))
        return self.down_proj(dropout(hidden, self.dropout, self.training))
