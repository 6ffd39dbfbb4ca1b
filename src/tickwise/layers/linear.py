"""Linear layers and embeddings that cost nothing to build on the meta device, and stacked projections."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """``torch.nn.Linear``; on the meta device nothing is drawn (torch would load its compiler to do so)."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Embedding(nn.Embedding):
    """``torch.nn.Embedding``; on the meta device nothing is drawn."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class StackedLinear(Linear):
    """Projections stacked along the output rows, e.g. query, key and value.

    One product of ``(…, C) × (C, sum(blocks))`` keeps the machine busier than several narrow ones.
    ``blocks`` says where one projection ends and the next begins: optimizers that act on whole matrices
    and model directories that store the projections apart read it.
    """

    def __init__(self, in_features: int, blocks: Sequence[int], bias: bool = False) -> None:
        super().__init__(in_features, sum(blocks), bias=bias)
        self.blocks = tuple(blocks)

    def forward_split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The projections of ``x`` as separate tensors (views of one product)."""
        return torch.split(self(x), list(self.blocks), dim=-1)
