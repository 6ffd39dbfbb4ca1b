"""A pointer into the source: which of its tokens the next token is a copy of (See et al. 2017, "Get To The Point").

The paper's pointer is the attention of its only layer; here queries of their own look at the keys that the last layer's
cross-attention reads, so that pointing costs one matrix and nothing more has to be kept of a source.

Shape legend: B batch, T target tokens, S source tokens, P target tokens without padding, C width, K key-value heads,
H heads, D head width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.layers.linear import Linear
from tickwise.layers.loss import LOSS_CHUNK

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


class _HeadAndMixedLoss(torch.autograd.Function):
    """``mixed_loss`` with the head in one: computes the gradient along with the loss, a chunk of positions at a time,
    so that the logits never all exist (as ``layers/loss.py`` does). Its slow twin is ``mixed_loss(hidden @ weight.T)``.

    With r the share of what is written in a label's probability, a logit's gradient is
    (1 − s) r (p − is_label) + s (p − 1/V), where s is the smoothing and p = softmax(logits).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_PC: Tensor, weight_VC: Tensor, gate_P: Tensor, copied_P: Tensor, labels_P: Tensor,
        smoothing: float,
    ) -> Tensor:
        n, n_vocabulary = hidden_PC.shape[0], weight_VC.shape[0]
        grad_hidden = torch.empty_like(hidden_PC)
        grad_weight = torch.zeros(weight_VC.shape, dtype=torch.float32, device=weight_VC.device)
        normaliser_P, label_P, mean_P = torch.empty(3, n, device=hidden_PC.device)
        log_written_P = F.logsigmoid(gate_P)
        log_copied_P = F.logsigmoid(-gate_P) + copied_P.clamp(min=_SMALLEST).log()
        buffer = torch.empty(min(n, LOSS_CHUNK), n_vocabulary, device=hidden_PC.device)
        for start in range(0, n, LOSS_CHUNK):
            at = slice(start, start + LOSS_CHUNK)
            hidden, labels = hidden_PC[at], labels_P[at, None]
            p = buffer[: len(hidden)].copy_(hidden @ weight_VC.T)
            normaliser_P[at], mean_P[at] = p.logsumexp(-1), p.mean(-1)
            label_P[at] = p.gather(1, labels)[:, 0] - normaliser_P[at]
            written = log_written_P[at] + label_P[at]
            share = (1 - smoothing) * (written - torch.logaddexp(written, log_copied_P[at])).exp()
            p.sub_(normaliser_P[at, None]).exp_().mul_((share + smoothing)[:, None])
            p.scatter_add_(1, labels, -share[:, None])
            if smoothing:
                p -= smoothing / n_vocabulary
            grads = p.to(hidden.dtype)
            torch.mm(grads, weight_VC, out=grad_hidden[at])
            grad_weight += grads.T @ hidden
        written_P = log_written_P + label_P
        likely_P = torch.logaddexp(written_P, log_copied_P)
        share_P = (written_P - likely_P).exp()
        sigmoid_P = gate_P.sigmoid()
        grad_gate_P = (1 - smoothing) * ((1 - share_P) * sigmoid_P - share_P * (1 - sigmoid_P))
        is_there_P = copied_P >= _SMALLEST
        grad_copied_P = torch.where(is_there_P, (smoothing - 1) * (1 - share_P) / copied_P.clamp(min=_SMALLEST), 0.0)
        ctx.save_for_backward(grad_hidden.mul_(1 / n), grad_weight.mul_(1 / n).to(weight_VC.dtype),
                              grad_gate_P / n, grad_copied_P / n)
        return ((smoothing - 1) * likely_P + smoothing * (normaliser_P - mean_P)).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(part * grad for part in ctx.saved_tensors), None, None


def head_and_mixed_loss(
    hidden_PC: Tensor, weight_VC: Tensor, gate_P1: Tensor, copied_P: Tensor, labels_P: Tensor, label_smoothing: float
) -> Tensor:
    """``mixed_loss`` of the logits ``hidden @ weight.T``, for large vocabularies."""
    gate_P, copied_P = gate_P1.float().squeeze(1), copied_P.float()
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _HeadAndMixedLoss.apply(hidden_PC, weight_VC, gate_P, copied_P, labels_P, label_smoothing)
    parts = zip(hidden_PC.split(LOSS_CHUNK), gate_P1.split(LOSS_CHUNK), copied_P.split(LOSS_CHUNK),
                labels_P.split(LOSS_CHUNK), strict=True)
    losses = [mixed_loss(hidden @ weight_VC.T, gate, copied, labels, label_smoothing) * len(labels)
              for hidden, gate, copied, labels in parts]
    return torch.stack(losses).sum() / len(labels_P)
