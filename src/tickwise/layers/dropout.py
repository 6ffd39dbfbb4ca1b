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
    if x.device.type != "cpu" or round(rate * 256) in (0, 256) or torch.compiler.is_compiling():
        return F.dropout(x, rate, True)
    return x * dropout_factors(x, rate)


def dropout_factors(x: Tensor, rate: float) -> Tensor:
    """What ``dropout`` multiplies ``x`` with: 0 with probability ``rate``, else what keeps the mean; shape and number
    format of ``x``."""
    threshold = round(rate * 256)
    if x.device.type != "cpu" or threshold in (0, 256):
        return F.dropout(torch.ones_like(x), rate, True)
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.uint8)[: x.numel()].view(x.shape)
    # Compared into their own number format: a quarter of the time that a conversion of booleans takes.
    factors = torch.empty_like(x, requires_grad=False)
    return torch.ge(draws, threshold, out=factors).mul_(256 / (256 - threshold))
