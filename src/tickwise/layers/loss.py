"""The output head and its cross-entropy in one, for large vocabularies.

Shape legend: N positions, C model width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LOSS_CHUNK = 512
LARGE_VOCABULARY = 2048
"""From here on the head and its loss are computed in one."""
_SMALLEST = torch.finfo(torch.float32).tiny


class _HeadAndLoss(torch.autograd.Function):
    """Computes the gradient along with the loss, a chunk of positions at a time, so that the logits of a chunk are
    used while they are in the cache and never all exist. Its slow twin is ``cross_entropy(hidden @ weight.T)``.

    The loss is read off the probabilities in the number format of ``hidden``: in bf16 each position's is off by at
    most 0.004, up or down alike. Validation does not come through here.
    """

    @staticmethod
    def forward(ctx: Any, hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, smoothing: float) -> Tensor:
        n, n_vocabulary = hidden_NC.shape[0], weight_VC.shape[0]
        grad_hidden = torch.empty_like(hidden_NC)
        grad_weight = torch.zeros(weight_VC.shape, dtype=torch.float32, device=weight_VC.device)
        total = torch.zeros((), dtype=torch.float32, device=hidden_NC.device)
        scaled_NC = hidden_NC * (1 / n)
        # Written into again and again: fresh memory would be handed out, and cleared, page by page every time.
        logits_buffer = hidden_NC.new_empty(min(n, LOSS_CHUNK), n_vocabulary)
        p_buffer, weight_buffer = torch.empty_like(logits_buffer), torch.empty_like(weight_VC)
        mean_row_C = weight_VC.mean(0) if smoothing else None
        row_starts = torch.arange(len(logits_buffer), device=hidden_NC.device) * n_vocabulary
        for start in range(0, n, LOSS_CHUNK):
            hidden, targets = hidden_NC[start : start + LOSS_CHUNK], targets_N[start : start + LOSS_CHUNK, None]
            logits = torch.mm(hidden, weight_VC.T, out=logits_buffer[: len(hidden)])
            p = torch.softmax(logits, -1, out=p_buffer[: len(hidden)])
            p_target = p.gather(1, targets)
            # A probability that underflows counts as the smallest float, so the loss stays finite.
            loss = -p_target.float().clamp(min=_SMALLEST).log()
            if mean_row_C is not None:
                log_normaliser = logits.gather(1, targets).float() + loss
                mean_loss = log_normaliser - (hidden @ mean_row_C).float()[:, None]
                loss = (1 - smoothing) * loss + smoothing * mean_loss
                p -= smoothing / n_vocabulary
                p_target = p.gather(1, targets)
            total += loss.sum()
            # By places in one row of numbers: scatter_ would copy all of them, twice.
            p.view(-1)[row_starts[: len(hidden)] + targets[:, 0]] = (p_target - (1 - smoothing))[:, 0]
            torch.mm(p, weight_VC, out=grad_hidden[start : start + LOSS_CHUNK])
            grad_weight += torch.mm(p.T, scaled_NC[start : start + LOSS_CHUNK], out=weight_buffer)
        ctx.save_for_backward(grad_hidden.mul_(1 / n), grad_weight.to(weight_VC.dtype))
        return total / n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad, grad_weight * grad, None, None


def head_and_loss(hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy (nats, float32) of ``hidden @ weight.T`` against ``targets``."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _HeadAndLoss.apply(hidden_NC, weight_VC, targets_N, smoothing)
    parts = zip(hidden_NC.split(LOSS_CHUNK), targets_N.split(LOSS_CHUNK), strict=True)
    losses = [F.cross_entropy((hidden @ weight_VC.T).float(), targets, label_smoothing=smoothing, reduction="sum")
              for hidden, targets in parts]
    return torch.stack(losses).sum() / len(targets_N)
