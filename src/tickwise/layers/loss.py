"""The output head and its cross-entropy in one, for large vocabularies.

Shape legend: N positions, C model width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 512


class _HeadAndLoss(torch.autograd.Function):
    """Computes the gradient along with the loss, a chunk of positions at a time, so that the logits of a chunk are
    used while they are in the cache and never all exist. Its slow twin is ``cross_entropy(hidden @ weight.T)``."""

    @staticmethod
    def forward(ctx: Any, hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, smoothing: float) -> Tensor:
        n, n_vocabulary = hidden_NC.shape[0], weight_VC.shape[0]
        grad_hidden = torch.empty_like(hidden_NC)
        grad_weight = torch.zeros(weight_VC.shape, dtype=torch.float32, device=weight_VC.device)
        total = torch.zeros((), dtype=torch.float32, device=hidden_NC.device)
        for start in range(0, n, _CHUNK):
            hidden, targets = hidden_NC[start : start + _CHUNK], targets_N[start : start + _CHUNK, None]
            log_p = F.log_softmax(hidden @ weight_VC.T, -1, dtype=torch.float32)
            total -= log_p.gather(1, targets).sum() * (1 - smoothing)
            if smoothing:
                total -= log_p.sum() * (smoothing / n_vocabulary)
            grad = log_p.exp_()
            if smoothing:
                grad -= smoothing / n_vocabulary
            grad.scatter_add_(1, targets, torch.full_like(targets, smoothing - 1, dtype=torch.float32))
            grad_logits = grad.mul_(1 / n).to(hidden.dtype)
            torch.mm(grad_logits, weight_VC, out=grad_hidden[start : start + _CHUNK])
            grad_weight += grad_logits.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight_VC.dtype))
        return total / n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad, grad_weight * grad, None, None


def head_and_loss(hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy (nats, float32) of ``hidden @ weight.T`` against ``targets``."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _HeadAndLoss.apply(hidden_NC, weight_VC, targets_N, smoothing)
    parts = zip(hidden_NC.split(_CHUNK), targets_N.split(_CHUNK), strict=True)
    losses = [F.cross_entropy((hidden @ weight_VC.T).float(), targets, label_smoothing=smoothing, reduction="sum")
              for hidden, targets in parts]
    return torch.stack(losses).sum() / len(targets_N)
