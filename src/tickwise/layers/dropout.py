"""Dropout with one random draw for eight elements on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero each element with probability ``rate`` and scale the others so that the mean stays.

    On a CPU one 64-bit draw decides eight elements, because drawing is what dropout costs there; the rate is
    then rounded to a multiple of 1/256, and the scale follows the rounded rate. Draws come from torch's default
    generator.
    """
    if not training or rate == 0.0:
        return x
    threshold = round(rate * 256)
    if x.device.type != "cpu" or threshold in (0, 256) or torch.compiler.is_compiling():
        return F.dropout(x, rate, True)
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.uint8)[: x.numel()].view(x.shape)
    return x * (draws >= threshold).to(x.dtype).mul_(256 / (256 - threshold))
