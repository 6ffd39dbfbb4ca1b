"""Normalisation over the last dimension."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormKind = Literal["rmsnorm", "layernorm"]


class _RMSNormFunction(torch.autograd.Function):
    """RMS norm with a backward pass written out: a third of the passes over memory that autograd records
    for the composite operator on a CPU. Its slow twin is ``torch.nn.functional.rms_norm``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = torch.rsqrt(norm.square_().div_(x.shape[-1]).add_(epsilon)).to(x.dtype)
        normed = x * inverse
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse, weight = ctx.saved_tensors
        width = normed.shape[-1]
        product = grad * normed
        grad_weight = product.reshape(-1, width).sum(0)
        # d/dx of x/rms(x) is (g·w − normed · mean(g·w·normed)) / rms
        mean = torch.matmul(product, weight.unsqueeze(-1)).div_(width)
        grad_x = torch.addcmul(grad * weight, normed, mean, value=-1).mul_(inverse)
        return grad_x, grad_weight, None


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x²) + ε) · weight`` (Zhang & Sennrich 2019, equation 4); any leading shape."""

    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _RMSNormFunction.apply(x, self.weight, self.epsilon)
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


def make_norm(kind: NormKind, width: int, epsilon: float, bias: bool) -> nn.Module:
    """The norm module of that kind over ``width`` features."""
    if kind == "rmsnorm":
        return RMSNorm(width, epsilon)
    return nn.LayerNorm(width, eps=epsilon, bias=bias)
