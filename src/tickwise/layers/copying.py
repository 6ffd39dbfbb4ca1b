"""A pointer into the source: which of its tokens the next token is a copy of (See et al. 2017, "Get To The Point").

The paper's pointer is the attention of its only layer; here queries of their own look at the keys that the last layer's
cross-attention reads, so that pointing costs one matrix and nothing more has to be kept of a source.

Shape legend: B batch, T target tokens, S source tokens, P target tokens without padding, C width, K key-value heads,
H heads, D head width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.layers.linear import Linear

_SMALLEST = torch.finfo(torch.float32).tiny


class CopyAttention(nn.Module):
    """States (B, T, C) and the keys of the sources' tokens → weights (B, T, S), float32, that add up to 1."""

    def __init__(self, width: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads, self.head_dim = n_heads, head_dim
        self.q_proj = Linear(width, n_heads * head_dim, bias=False)

    def forward(self, hidden_BTC: Tensor, k_BKSD: Tensor, padding_B11S: Tensor | None) -> Tensor:
        """``padding_B11S`` is added to scores: it hides what stands behind a source's end. The heads' mean counts."""
        q_BHTD = self.q_proj(hidden_BTC).unflatten(2, (self.n_heads, self.head_dim)).transpose(1, 2)
        k_BHSD = k_BKSD.repeat_interleave(self.n_heads // k_BKSD.shape[1], dim=1)
        scores_BHTS = (q_BHTD @ k_BHSD.transpose(2, 3)).float() * self.head_dim**-0.5
        if padding_B11S is not None:
            scores_BHTS = scores_BHTS + padding_B11S
        return scores_BHTS.softmax(-1).mean(1)


def mixed_log_probabilities(
    logits_BTV: Tensor, gate_BT1: Tensor, weights_BTS: Tensor, source_BS: Tensor
) -> Tensor:
    """(B, T, V), float32: a token is written with the probability σ(gate) · softmax(logits), and else copied from the
    places of the source that have it (See et al. 2017, equation 9)."""
    written_BT1 = torch.sigmoid(gate_BT1.float())
    chances_BTV = logits_BTV.float().softmax(-1) * written_BT1
    places_BTS = source_BS[:, None].expand_as(weights_BTS)
    chances_BTV = chances_BTV.scatter_add(2, places_BTS, weights_BTS * (1 - written_BT1))
    return chances_BTV.clamp(min=_SMALLEST).log()


def mixed_loss(
    logits_PV: Tensor, gate_P1: Tensor, copied_P: Tensor, labels_P: Tensor, label_smoothing: float
) -> Tensor:
    """Mean nats, float32, of labels that are written or copied; ``copied_P`` is the weight of the places that have the
    label. Smoothing spreads its share over the vocabulary of what is written."""
    logits_PV, gate_P = logits_PV.float(), gate_P1.float().squeeze(1)
    normaliser_P = logits_PV.logsumexp(-1)
    label_P = logits_PV.gather(1, labels_P[:, None]).squeeze(1) - normaliser_P
    pointed_P = copied_P.clamp(min=_SMALLEST).log()
    loss = -torch.logaddexp(F.logsigmoid(gate_P) + label_P, F.logsigmoid(-gate_P) + pointed_P).mean()
    if not label_smoothing:
        return loss
    return (1 - label_smoothing) * loss + label_smoothing * (normaliser_P - logits_PV.mean(-1)).mean()
