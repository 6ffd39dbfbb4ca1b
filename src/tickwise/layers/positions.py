"""Positions: tables that are computed, and biases by distance.

Shape legend: N positions, C model width, T queries, S keys, H heads.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tickwise.layers.linear import Embedding


def sinusoidal_table(n_positions: int, width: int, device: torch.device) -> Tensor:
    """(N, C) float32: sines of falling frequencies in the first half of the features, cosines in the second (Vaswani
    et al. 2017, section 3.5, in the order of their code and of Marian's)."""
    # On the CPU: not every accelerator has float64 (Apple's do not).
    frequencies = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width)
    angles = torch.arange(n_positions, dtype=torch.float64, device="cpu")[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), 1).float().to(device)


class PositionTables:
    """Tables that follow from their positions alone, made once for every device and number format."""

    def __init__(self, make: Callable[[torch.device], tuple[Tensor, ...]]) -> None:
        self._make = make
        self._made: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def __call__(self, positions: slice | Tensor, like: Tensor) -> tuple[Tensor, ...]:
        """The tables' rows at these positions, on the device and in the number format of ``like``."""
        key = (like.device, like.dtype)
        tables = self._made.get(key)
        if tables is None:
            with torch.inference_mode(False):  # tables first needed while generating may be needed to train
                tables = tuple(table.to(like.dtype) for table in self._make(like.device))
            if type(tables[0]) is Tensor:  # else a tool runs the model without data, on tensors of its own kind
                self._made[key] = tables
        return tuple(table[positions] for table in tables)


def relative_buckets(distances: Tensor, n_buckets: int, furthest: int, both_ways: bool) -> Tensor:
    """Numbers of the buckets of distances (key − query), whole numbers of any shape.

    Near distances have a bucket each, further ones share buckets whose widths grow, and all from ``furthest`` on the
    last one (Raffel et al. 2020, section 2.1). ``both_ways``: later keys have half of the buckets; else they are in
    bucket 0.
    """
    first = torch.zeros_like(distances)
    if both_ways:
        n_buckets //= 2
        first = (distances > 0).long() * n_buckets
        away = distances.abs()
    else:
        away = (-distances).clamp(min=0)
    n_single = n_buckets // 2
    shares = torch.log(away.float().clamp(min=1) / n_single) / math.log(furthest / n_single)
    shared = (n_single + (shares * (n_buckets - n_single)).long()).clamp(max=n_buckets - 1)
    return first + torch.where(away < n_single, away, shared)


class RelativeBias(nn.Module):
    """What is added to attention's scores for the distance between query and key: (H, T, S), a number per bucket and
    head (Raffel et al. 2020). Without ``both_ways`` later keys get -inf."""

    def __init__(self, n_buckets: int, n_heads: int, furthest: int, both_ways: bool) -> None:
        super().__init__()
        self.table = Embedding(n_buckets, n_heads)
        self.furthest, self.both_ways = furthest, both_ways

    def forward(self, positions: slice | Tensor, n_keys: int) -> Tensor:
        """Of queries at these positions."""
        device = self.table.weight.device
        if isinstance(positions, slice):
            positions = torch.arange(positions.start, positions.stop, device=device)
        distances_TS = torch.arange(n_keys, device=device) - positions[:, None]
        buckets_TS = relative_buckets(distances_TS, self.table.num_embeddings, self.furthest, self.both_ways)
        bias_HTS = self.table(buckets_TS).permute(2, 0, 1)
        return bias_HTS if self.both_ways else bias_HTS.masked_fill(distances_TS > 0, -math.inf)
