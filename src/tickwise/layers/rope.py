"""Rotary positions (Su et al. 2021) in the layout of Llama checkpoints: pairs are (i, i + D/2)."""

from typing import Any

import torch
from torch import Tensor


def rope_tables(positions_T: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """``cos`` and signed ``sin`` tables, both (T, D) float32, for ``rotate``.

    The sign of the first half of ``sin`` is flipped so that rotation is one roll and one multiply-add.
    """
    half = head_dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=positions_T.device) / half
    angles = positions_T.float()[:, None] * theta**-exponents
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate_composite(x: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Rotate ``x`` (…, T, D) by its positions' angles; recorded op by op."""
    return torch.addcmul(x * cos_TD, x.roll(x.shape[-1] // 2, -1), sin_TD)


class _Rotation(torch.autograd.Function):
    """The gradient of a rotation is the rotation back, which needs nothing saved but the tables."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        ctx.save_for_backward(cos_TD, sin_TD)
        return rotate_composite(x, cos_TD, sin_TD)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos_TD, sin_TD = ctx.saved_tensors
        return torch.addcmul(grad * cos_TD, grad.roll(grad.shape[-1] // 2, -1), sin_TD, value=-1), None, None


def rotate(x: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Rotate ``x`` (…, T, D) by its positions' angles."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _Rotation.apply(x, cos_TD, sin_TD)
    return rotate_composite(x, cos_TD, sin_TD)
