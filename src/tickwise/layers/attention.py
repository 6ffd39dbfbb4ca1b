"""Scaled dot-product attention: causal self-attention with grouped queries, cache as an argument."""

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.stages import Stage, mark
from tickwise.layers.linear import Linear, StackedLinear
from tickwise.layers.norm import RMSNorm
from tickwise.layers.rope import rotate

# Up to here the products of whole score matrices beat the tiled CPU kernel, whose set-up cost dominates.
_SHORT_CONTEXT = 256


def keeps_scores(device: torch.device, length: int, n_heads: int, n_kv_heads: int) -> bool:
    """Whether attention over ``length`` tokens computes, and for training keeps, whole score matrices."""
    return device.type == "cpu" and 1 < length <= _SHORT_CONTEXT and n_heads == n_kv_heads


class KeyValueCache(Protocol):
    """What a decoder needs of a cache; ``engine.kv_cache`` has real ones."""

    def positions(self, n_new: int) -> slice | Tensor:
        """Positions of the next ``n_new`` tokens: what to index a table of positions with."""

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        """Store the new tokens of one layer and attend to everything before and at them: (B, H, T, D)."""

    def advance(self, n_new: int) -> None:
        """Count the new tokens as stored; called once, after the last layer."""


_causal_biases: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}


def _causal_bias(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(T, T): 0 where a query may look, -inf where it may not."""
    key = (length, dtype, device)
    if key in _causal_biases:
        return _causal_biases[key]
    with torch.inference_mode(False):
        bias_TT = torch.full((length, length), -math.inf, dtype=dtype, device=device).triu_(1)
    if type(bias_TT) is Tensor:  # tools that run a model without data get tensors of their own kind
        if len(_causal_biases) >= 16:
            _causal_biases.clear()
        _causal_biases[key] = bias_TT
    return bias_TT


class _ShortCausalAttention(torch.autograd.Function):
    """Causal attention over whole score matrices with the backward pass written out.

    Its slow twin is ``torch.nn.functional.scaled_dot_product_attention(is_causal=True)``.
    """

    @staticmethod
    def forward(ctx: Any, q_NTD: Tensor, k_NTD: Tensor, v_NTD: Tensor, scale: float) -> Tensor:
        bias_TT = _causal_bias(q_NTD.shape[1], q_NTD.dtype, q_NTD.device)
        scores_NTT = torch.baddbmm(bias_TT, q_NTD, k_NTD.transpose(1, 2), alpha=scale)
        weights_NTT = torch.softmax(scores_NTT, -1)
        ctx.save_for_backward(q_NTD, k_NTD, v_NTD, weights_NTT)
        ctx.scale = scale
        return torch.bmm(weights_NTT, v_NTD)

    @staticmethod
    def backward(ctx: Any, grad_NTD: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_NTD, k_NTD, v_NTD, weights_NTT = ctx.saved_tensors
        grad_v_NTD = torch.bmm(weights_NTT.transpose(1, 2), grad_NTD)
        grad_weights_NTT = torch.bmm(grad_NTD, v_NTD.transpose(1, 2))
        grad_scores_NTT = torch._softmax_backward_data(grad_weights_NTT, weights_NTT, -1, weights_NTT.dtype)
        # beta=0 ignores the first argument: the scale rides on the product for free.
        grad_q_NTD = torch.baddbmm(q_NTD, grad_scores_NTT, k_NTD, beta=0, alpha=ctx.scale)
        grad_k_NTD = torch.baddbmm(k_NTD, grad_scores_NTT.transpose(1, 2), q_NTD, beta=0, alpha=ctx.scale)
        return grad_q_NTD, grad_k_NTD, grad_v_NTD, None


def chunk_mask(n_new: int, n_all: int, device: torch.device) -> Tensor | None:
    """(T, S): where the last T of S positions may look; ``None`` where ``causal_attention`` needs no mask."""
    if not 1 < n_new < n_all:
        return None
    return torch.ones(n_new, n_all, dtype=torch.bool, device=device).tril_(n_all - n_new)


def causal_attention(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask_TS: Tensor | None = None) -> Tensor:
    """Attention of the last T of S positions to everything before and at them; returns (B, H, T, D).

    K may be a divisor of H (grouped queries, Ainslie et al. 2023). ``mask_TS`` is ``chunk_mask``, where it is known.
    """
    n_heads, n_kv_heads = q_BHTD.shape[1], k_BKSD.shape[1]
    n_new, n_all = q_BHTD.shape[2], k_BKSD.shape[2]
    short = n_new == n_all and keeps_scores(q_BHTD.device, n_all, n_heads, n_kv_heads)
    if short and not torch.compiler.is_compiling():
        q, k, v = (x.flatten(0, 1) for x in (q_BHTD, k_BKSD, v_BKSD))
        return _ShortCausalAttention.apply(q, k, v, q.shape[-1] ** -0.5).unflatten(0, q_BHTD.shape[:2])
    if mask_TS is None:
        mask_TS = chunk_mask(n_new, n_all, q_BHTD.device)
    return F.scaled_dot_product_attention(
        q_BHTD, k_BKSD, v_BKSD, attn_mask=mask_TS, is_causal=1 < n_new == n_all, enable_gqa=n_heads != n_kv_heads,
    )


class SelfAttention(nn.Module):
    """Causal self-attention: (B, T, C) → (B, T, C), optionally rotary, QK-normed and with value residuals.

    QK-norm: RMS norm of queries and keys per head (Henry et al. 2020; as in Qwen 3). Value residual: the
    values mix with the first layer's by a learned share (Zhou et al. 2024).
    """

    def __init__(
        self, width: int, n_heads: int, n_kv_heads: int, head_dim: int, *, bias: bool, qk_norm: bool,
        mixes_first_values: bool, norm_epsilon: float, layer: int,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, head_dim
        self.layer = layer
        blocks = (n_heads * head_dim, n_kv_heads * head_dim, n_kv_heads * head_dim)
        self.qkv_proj = StackedLinear(width, blocks, bias=bias)
        self.o_proj = Linear(n_heads * head_dim, width, bias=bias)
        self.q_norm = RMSNorm(head_dim, norm_epsilon) if qk_norm else None
        self.k_norm = RMSNorm(head_dim, norm_epsilon) if qk_norm else None
        self.value_mix = nn.Parameter(torch.tensor([0.5, 0.5])) if mixes_first_values else None

    def forward(
        self, x_BTC: Tensor, rope: tuple[Tensor, Tensor] | None = None, first_values: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the output and this layer's new values (B, K, T, D), for value residuals."""
        batch, length, _ = x_BTC.shape
        mark(Stage.QKV, self.layer)
        n_rotated = self.n_heads + self.n_kv_heads
        heads = self.qkv_proj(x_BTC).view(batch, length, n_rotated + self.n_kv_heads, self.head_dim)
        qk, v = heads.transpose(1, 2).split((n_rotated, self.n_kv_heads), dim=1)
        mark(Stage.ROPE, self.layer)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split((self.n_heads, self.n_kv_heads), dim=1)
            q, k = self.q_norm(q), self.k_norm(k)
            if rope is not None:
                q, k = rotate(q, *rope), rotate(k, *rope)
        else:
            if rope is not None:
                qk = rotate(qk, *rope)
            q, k = qk.split((self.n_heads, self.n_kv_heads), dim=1)
        mark(Stage.ATTENTION, self.layer)
        own_values = v
        if self.value_mix is not None and first_values is not None:
            v = self.value_mix[0] * v + self.value_mix[1] * first_values
        out_BHTD = causal_attention(q, k, v) if cache is None else cache.attend(self.layer, q, k, v)
        mark(Stage.OUT, self.layer)
        return self.o_proj(out_BHTD.transpose(1, 2).reshape(batch, length, -1)), own_values
