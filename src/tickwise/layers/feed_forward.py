"""The position-wise feed-forward block: (…, C) → (…, C)."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.layers.linear import Linear, StackedLinear

Activation = Literal["swiglu", "gelu", "gelu_tanh", "relu2"]


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


class FeedForward(nn.Module):
    """``down(act(up(x)))``; with ``swiglu`` ``down(silu(gate(x)) · up(x))`` (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int, activation: Activation, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        if activation == "swiglu":
            self.gate_up_proj = StackedLinear(width, (hidden, hidden), bias=bias)
        else:
            self.up_proj = Linear(width, hidden, bias=bias)
        self.down_proj = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.activation == "swiglu":
            gate, up = self.gate_up_proj.forward_split(x)
            return self.down_proj(F.silu(gate) * up)
        hidden = self.up_proj(x)
        if self.activation == "gelu":
            return self.down_proj(F.gelu(hidden))
        if self.activation == "gelu_tanh":
            return self.down_proj(F.gelu(hidden, approximate="tanh"))
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return self.down_proj(_SquaredRelu.apply(hidden))
        return self.down_proj(F.relu(hidden).square())
