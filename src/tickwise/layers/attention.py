"""Scaled dot-product attention: causal with grouped queries, the cache as an argument; and to all keys of a text."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.stages import Stage, mark
from tickwise.layers.dropout import dropout_factors
from tickwise.layers.linear import Linear, StackedLinear
from tickwise.layers.norm import RMSNorm
from tickwise.layers.packed import PackedTokens
from tickwise.layers.rope import rotate

# Up to here the products of whole score matrices beat the tiled CPU kernel, whose set-up cost dominates.
SHORT_CONTEXT = 256
# So few queries cost less in that kernel than the calls around products do.
_FEW_QUERIES = 32


def keeps_scores(device: torch.device, length: int, n_heads: int, n_kv_heads: int) -> bool:
    """Whether attention over ``length`` tokens computes, and for training keeps, whole score matrices."""
    return device.type == "cpu" and 1 < length <= SHORT_CONTEXT and n_heads == n_kv_heads


class KeyValueCache(Protocol):
    """What a decoder needs of a cache; ``engine.kv_cache`` has real ones."""

    def positions(self, n_new: int) -> slice | Tensor:
        """Positions of the next ``n_new`` tokens: what to index a table of positions with."""

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        """Store the new tokens of one layer and attend to everything before and at them: (B, H, T, D)."""

    def advance(self, n_new: int) -> None:
        """Count the new tokens as stored; called once, after the last layer."""


PositionBias = Callable[[slice | Tensor, int], Tensor]
"""Positions of T queries and a number of keys S → what is added to the scores (H, T, S), -inf for later keys."""


class BiasedCache(KeyValueCache, Protocol):
    """A cache for models whose scores depend on the distance between tokens."""

    def attend(
        self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, bias: PositionBias | None = None
    ) -> Tensor:
        """As ``KeyValueCache.attend``, with ``bias`` added to the scores."""


_causal_biases: dict[tuple[torch.dtype, torch.device], Tensor] = {}


def _causal_bias(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(T, T) for T up to ``SHORT_CONTEXT``: 0 where a query may look, -inf where it may not. A part of one that is made
    once."""
    key = (dtype, device)
    longest_TT = _causal_biases.get(key)
    if longest_TT is None:
        with torch.inference_mode(False):
            shape = (SHORT_CONTEXT, SHORT_CONTEXT)
            longest_TT = torch.full(shape, -math.inf, dtype=dtype, device=device).triu_(1)
        if type(longest_TT) is Tensor:  # tools that run a model without data get tensors of their own kind
            _causal_biases[key] = longest_TT
    return longest_TT[:length, :length]


def padding_bias(lengths_B: Tensor, n_keys: int, dtype: torch.dtype) -> Tensor:
    """(B, 1, 1, S): 0 at a text's tokens, -inf behind its end. Every text has at least one token."""
    is_behind = torch.arange(n_keys, device=lengths_B.device) >= lengths_B[:, None]
    return torch.zeros(is_behind.shape, dtype=dtype, device=lengths_B.device).masked_fill_(
        is_behind, -math.inf)[:, None, None]


class _ShortAttention(torch.autograd.Function):
    """Attention over whole score matrices with the backward pass written out.

    ``bias`` is added to the scores: what can be broadcast to (N, T, S), or nothing. ``factors_NTS`` multiply the
    weights (dropout). Its slow twin is ``torch.nn.functional.scaled_dot_product_attention``.
    """

    @staticmethod
    def forward(
        ctx: Any, q_NTD: Tensor, k_NSD: Tensor, v_NSD: Tensor, bias: Tensor | None, scale: float, dropout: float
    ) -> Tensor:
        weights_NTS = _short_weights(q_NTD, k_NSD, bias, scale)
        factors_NTS = dropout_factors(weights_NTS, dropout) if dropout else None
        ctx.save_for_backward(q_NTD, k_NSD, v_NSD, weights_NTS, factors_NTS)
        ctx.scale, ctx.bias_shape = scale, None if bias is None else bias.shape
        return torch.bmm(weights_NTS if factors_NTS is None else weights_NTS * factors_NTS, v_NSD)

    @staticmethod
    def backward(ctx: Any, grad_NTD: Tensor) -> tuple[Tensor | None, ...]:
        q_NTD, k_NSD, v_NSD, weights_NTS, factors_NTS = ctx.saved_tensors
        used_NTS = weights_NTS if factors_NTS is None else weights_NTS * factors_NTS
        grad_v_NSD = torch.bmm(used_NTS.transpose(1, 2), grad_NTD)
        grad_weights_NTS = torch.bmm(grad_NTD, v_NSD.transpose(1, 2))
        if factors_NTS is not None:
            grad_weights_NTS.mul_(factors_NTS)
        grad_scores_NTS = torch._softmax_backward_data(grad_weights_NTS, weights_NTS, -1, weights_NTS.dtype)
        # beta=0 ignores the first argument: the scale rides on the product for free.
        grad_q_NTD = torch.baddbmm(q_NTD, grad_scores_NTS, k_NSD, beta=0, alpha=ctx.scale)
        grad_k_NSD = torch.baddbmm(k_NSD, grad_scores_NTS.transpose(1, 2), q_NTD, beta=0, alpha=ctx.scale)
        grad_bias = grad_scores_NTS.sum_to_size(ctx.bias_shape) if ctx.needs_input_grad[3] else None
        return grad_q_NTD, grad_k_NSD, grad_v_NSD, grad_bias, None, None


def _short_weights(q_NTD: Tensor, k_NSD: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """(N, T, S): what each query takes of each value."""
    if bias is None:
        scores_NTS = torch.baddbmm(q_NTD.new_empty(1, 1, 1), q_NTD, k_NSD.transpose(1, 2), beta=0, alpha=scale)
    else:
        scores_NTS = torch.baddbmm(bias, q_NTD, k_NSD.transpose(1, 2), alpha=scale)
    return torch.softmax(scores_NTS, -1)


def _short_attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """(B, H, T, D); ``bias`` is (T, S), or broadcastable to (B, H, T, S) with four dimensions."""
    q_NTD, k_NSD, v_NSD = (x.flatten(0, 1) for x in (q_BHTD, k_BHSD, v_BHSD))
    if bias is not None and bias.ndim == 4:
        bias = bias.expand(*q_BHTD.shape[:2], -1, -1).flatten(0, 1)
    scale = q_NTD.shape[-1] ** -0.5
    if torch.is_grad_enabled():
        out_NTD = _ShortAttention.apply(q_NTD, k_NSD, v_NSD, bias, scale, dropout)
    else:
        weights_NTS = _short_weights(q_NTD, k_NSD, bias, scale)
        out_NTD = torch.bmm(weights_NTS * dropout_factors(weights_NTS, dropout) if dropout else weights_NTS, v_NSD)
    return out_NTD.unflatten(0, q_BHTD.shape[:2])


def full_attention(
    q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, lengths_B: Tensor | None = None, *, bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of every query to all keys of its text: (B, H, T, D).

    ``lengths_B``: keys behind a text's end do not count. ``bias``, broadcastable to (B, H, T, S), is added to the
    scores: ``padding_bias``, where it is known already, distances, or what else hides keys. K may be a divisor of H.
    """
    n_heads, n_kv_heads, n_keys = q_BHTD.shape[1], k_BKSD.shape[1], k_BKSD.shape[2]
    if lengths_B is not None:
        padding_B11S = padding_bias(lengths_B, n_keys, q_BHTD.dtype)
        bias = padding_B11S if bias is None else bias + padding_B11S
    n_queries = q_BHTD.shape[2]
    short = keeps_scores(q_BHTD.device, max(2, n_queries, n_keys), n_heads, n_kv_heads)
    if n_queries == 1 and q_BHTD.shape[0] * n_heads <= _FEW_QUERIES:
        short = False
    if short and not torch.compiler.is_compiling():
        return _short_attention(q_BHTD, k_BKSD, v_BKSD, bias, dropout)
    return F.scaled_dot_product_attention(
        q_BHTD, k_BKSD, v_BKSD, attn_mask=bias, dropout_p=dropout, enable_gqa=n_heads != n_kv_heads)


class WholeText:
    """The ``KeyValueCache`` that keeps nothing: every token sees all tokens of its text, or those that ``bias`` leaves.
    """

    def __init__(self, bias: Tensor | None = None, dropout: float = 0.0) -> None:
        """``bias``, broadcastable to (B, H, T, T), is added to the scores: -inf hides."""
        self._bias, self._dropout = bias, dropout

    def positions(self, n_new: int) -> slice:
        return slice(0, n_new)

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        return full_attention(q_BHTD, k_BKTD, v_BKTD, bias=self._bias, dropout=self._dropout)

    def advance(self, n_new: int) -> None:
        """Nothing is kept."""


def chunk_mask(n_new: int, n_all: int, device: torch.device) -> Tensor | None:
    """(T, S): where the last T of S positions may look; ``None`` where ``causal_attention`` needs no mask."""
    if not 1 < n_new < n_all:
        return None
    return torch.ones(n_new, n_all, dtype=torch.bool, device=device).tril_(n_all - n_new)


def causal_attention(
    q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask_TS: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Attention of the last T of S positions to everything before and at them; returns (B, H, T, D).

    K may be a divisor of H (grouped queries, Ainslie et al. 2023). ``mask_TS`` is ``chunk_mask``, where it is known.
    ``dropout`` is the share of weights that do not count.
    """
    n_heads, n_kv_heads = q_BHTD.shape[1], k_BKSD.shape[1]
    n_new, n_all = q_BHTD.shape[2], k_BKSD.shape[2]
    short = n_new == n_all and keeps_scores(q_BHTD.device, n_all, n_heads, n_kv_heads)
    if short and not torch.compiler.is_compiling():
        return _short_attention(
            q_BHTD, k_BKSD, v_BKSD, _causal_bias(n_all, q_BHTD.dtype, q_BHTD.device), dropout)
    if mask_TS is None:
        mask_TS = chunk_mask(n_new, n_all, q_BHTD.device)
    return F.scaled_dot_product_attention(
        q_BHTD, k_BKSD, v_BKSD, attn_mask=mask_TS, dropout_p=dropout, is_causal=1 < n_new == n_all,
        enable_gqa=n_heads != n_kv_heads,
    )


class SelfAttention(nn.Module):
    """Self-attention: (B, T, C) → (B, T, C), optionally rotary, QK-normed and with value residuals; causal, or over
    what ``cache`` lets a token see.

    QK-norm: RMS norm of queries and keys per head (Henry et al. 2020; as in Qwen 3). Value residual: the
    values mix with the first layer's by a learned share (Zhou et al. 2024).
    """

    def __init__(
        self, width: int, n_heads: int, n_kv_heads: int, head_dim: int, *, bias: bool, qk_norm: bool = False,
        mixes_first_values: bool = False, norm_epsilon: float = 1e-5, scale_scores: bool = True, layer: int,
        stage_layer: int | None = None,
    ) -> None:
        """``layer`` is the layer's number in the cache, and, unless ``stage_layer`` says otherwise, among the stages.
        Without ``scale_scores`` they are not divided by √D (T5)."""
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, head_dim
        self.layer, self.stage_layer = layer, layer if stage_layer is None else stage_layer
        blocks = (n_heads * head_dim, n_kv_heads * head_dim, n_kv_heads * head_dim)
        self.qkv_proj = StackedLinear(width, blocks, bias=bias)
        self.o_proj = Linear(n_heads * head_dim, width, bias=bias)
        self.q_norm = RMSNorm(head_dim, norm_epsilon) if qk_norm else None
        self.k_norm = RMSNorm(head_dim, norm_epsilon) if qk_norm else None
        self.value_mix = nn.Parameter(torch.tensor([0.5, 0.5])) if mixes_first_values else None
        self.scale_scores = scale_scores

    def forward(
        self, x_BTC: Tensor, rope: tuple[Tensor, Tensor] | None = None, first_values: Tensor | None = None,
        cache: KeyValueCache | None = None, packed: PackedTokens | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the output and this layer's new values (B, K, T, D), for value residuals.

        With ``packed``, ``x_BTC`` and the output are rows (P, C) without padding.
        """
        mark(Stage.QKV, self.stage_layer)
        qkv_BTE = self.qkv_proj(x_BTC)
        if packed is not None:
            qkv_BTE = packed.pad(qkv_BTE)
        batch, length, _ = qkv_BTE.shape
        n_rotated = self.n_heads + self.n_kv_heads
        heads = qkv_BTE.view(batch, length, n_rotated + self.n_kv_heads, self.head_dim)
        qk, v = heads.transpose(1, 2).split((n_rotated, self.n_kv_heads), dim=1)
        if rope is not None or self.q_norm is not None:
            mark(Stage.ROPE, self.stage_layer)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split((self.n_heads, self.n_kv_heads), dim=1)
            q, k = self.q_norm(q), self.k_norm(k)
            if rope is not None:
                q, k = rotate(q, *rope), rotate(k, *rope)
        else:
            if rope is not None:
                qk = rotate(qk, *rope)
            q, k = qk.split((self.n_heads, self.n_kv_heads), dim=1)
        if not self.scale_scores:
            q = q * self.head_dim**0.5
        mark(Stage.ATTENTION, self.stage_layer)
        own_values = v
        if self.value_mix is not None and first_values is not None:
            v = self.value_mix[0] * v + self.value_mix[1] * first_values
        out_BHTD = causal_attention(q, k, v) if cache is None else cache.attend(self.layer, q, k, v)
        mark(Stage.OUT, self.stage_layer)
        out_BTE = out_BHTD.transpose(1, 2).reshape(batch, length, -1)
        return self.o_proj(out_BTE if packed is None else packed.pack(out_BTE)), own_values


class SourceMemory(Protocol):
    """What a decoder with cross-attention needs of its sources."""

    def attend(self, layer: int, q_BHTD: Tensor) -> Tensor:
        """Attention of one decoder layer's queries to all tokens of their sources: (B, H, T, D)."""


class CrossAttention(nn.Module):
    """Attention to another text: (B, T, C) → (B, T, C), to keys and values that ``read`` makes once for each text."""

    def __init__(
        self, width: int, n_heads: int, n_kv_heads: int, head_dim: int, *, bias: bool, scale_scores: bool = True,
        layer: int, stage_layer: int,
    ) -> None:
        """``layer`` is the layer's number in the memory, ``stage_layer`` that among the stages."""
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, head_dim
        self.layer, self.stage_layer, self.scale_scores = layer, stage_layer, scale_scores
        self.q_proj = Linear(width, n_heads * head_dim, bias=bias)
        self.kv_proj = StackedLinear(width, (n_kv_heads * head_dim, n_kv_heads * head_dim), bias=bias)
        self.o_proj = Linear(n_heads * head_dim, width, bias=bias)

    def read(self, source_BSC: Tensor, packed: PackedTokens | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values (B, K, S, D) of the texts; with ``packed``, ``source_BSC`` are rows (P, C)."""
        mark(Stage.CROSS_ATTENTION, self.stage_layer)
        kv_BSE = self.kv_proj(source_BSC)
        if packed is not None:
            kv_BSE = packed.pad(kv_BSE)
        heads_BKSD = kv_BSE.unflatten(2, (2 * self.n_kv_heads, self.head_dim)).transpose(1, 2)
        k_BKSD, v_BKSD = heads_BKSD.chunk(2, dim=1)
        return k_BKSD.contiguous(), v_BKSD.contiguous()

    def forward(self, x_BTC: Tensor, memory: SourceMemory, packed: PackedTokens | None = None) -> Tensor:
        """With ``packed``, ``x_BTC`` and the output are rows (P, C) without padding."""
        mark(Stage.CROSS_ATTENTION, self.stage_layer)
        q_BTE = self.q_proj(x_BTC)
        if packed is not None:
            q_BTE = packed.pad(q_BTE)
        if not self.scale_scores:
            q_BTE = q_BTE * self.head_dim**0.5
        q_BHTD = q_BTE.unflatten(2, (self.n_heads, self.head_dim)).transpose(1, 2)
        out_BTE = memory.attend(self.layer, q_BHTD).transpose(1, 2).flatten(2)
        return self.o_proj(out_BTE if packed is None else packed.pack(out_BTE))
