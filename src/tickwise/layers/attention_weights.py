"""Attention that keeps its weights, for looking inside a model: the slow twin of what ``layers/attention.py`` computes.

Shape legend: B texts, H query heads, K key-value heads, T queries, S keys, D head width.
"""

import math

import torch
from torch import Tensor

from tickwise.layers.attention import PositionBias


def attention_weights(q_BHTD: Tensor, k_BKSD: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, H, T, S) float32: what each query takes of each key; every row adds up to 1. ``bias``, broadcastable to that
    shape, is added to the scores. K may be a divisor of H."""
    k_BHSD = k_BKSD.repeat_interleave(q_BHTD.shape[1] // k_BKSD.shape[1], dim=1).float()
    scores_BHTS = q_BHTD.float() @ k_BHSD.transpose(2, 3) * q_BHTD.shape[-1] ** -0.5
    return torch.softmax(scores_BHTS if bias is None else scores_BHTS + bias, -1)


class WatchedText:
    """A ``BiasedCache`` that keeps no keys but, in ``weights``, what the tokens of each layer take of each other."""

    def __init__(self, *, causal: bool, bias: Tensor | None = None) -> None:
        """``bias`` is added to the scores of all layers. ``causal``: no token sees a later one."""
        self.causal, self.bias = causal, bias
        self.weights: dict[int, Tensor] = {}
        """(B, H, T, T) by layer."""

    def positions(self, n_new: int) -> slice:
        return slice(0, n_new)

    def attend(
        self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, bias: PositionBias | None = None
    ) -> Tensor:
        length = q_BHTD.shape[2]
        total = self.bias
        if bias is not None:
            distances_HTT = bias(slice(0, length), length)
            total = distances_HTT if total is None else distances_HTT + total
        if self.causal:
            later_TT = torch.full((length, length), -math.inf, device=q_BHTD.device).triu(1)
            total = later_TT if total is None else later_TT + total
        self.weights[layer] = attention_weights(q_BHTD, k_BKTD, total)
        return _mixed(self.weights[layer], v_BKTD)

    def advance(self, n_new: int) -> None:
        """Nothing is kept for further tokens."""


class WatchedSource:
    """A ``SourceMemory`` that keeps, in ``weights``, what the tokens of each layer take of the source's."""

    def __init__(self, keys: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> None:
        """For each layer (B, K, S, D) of sources without padding."""
        self._keys, self._values = keys, values
        self.weights: dict[int, Tensor] = {}
        """(B, H, T, S) by layer."""

    def attend(self, layer: int, q_BHTD: Tensor) -> Tensor:
        self.weights[layer] = attention_weights(q_BHTD, self._keys[layer])
        return _mixed(self.weights[layer], self._values[layer])


def _mixed(weights_BHTS: Tensor, v_BKSD: Tensor) -> Tensor:
    v_BHSD = v_BKSD.repeat_interleave(weights_BHTS.shape[1] // v_BKSD.shape[1], dim=1)
    return weights_BHTS.to(v_BHSD.dtype) @ v_BHSD
