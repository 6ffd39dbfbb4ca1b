"""Texts of different lengths without their padding: what is computed for each token alone skips it.

Shape legend: B texts, T tokens of the longest, P tokens of all.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class PackedTokens:
    """Which of B · T padded places hold tokens, and the way there and back.

    >>> packed = PackedTokens(torch.tensor([1, 3]), 3)
    >>> packed.pack(torch.tensor([[[5], [0], [0]], [[6], [7], [8]]])).flatten().tolist()
    [5, 6, 7, 8]
    """

    def __init__(self, lengths_B: Tensor, length: int) -> None:
        """``length`` is T; what stands from a text's own length on is padding."""
        is_token_BT = torch.arange(length, device=lengths_B.device) < lengths_B[:, None]
        self.shape = is_token_BT.shape
        self.places_P = is_token_BT.flatten().nonzero().squeeze(1)
        """Of the tokens, among B · T."""
        self._behind = (~is_token_BT).flatten().nonzero().squeeze(1)
        # Where each place's row is among the tokens'; a place without a token takes any, which is overwritten.
        self._sources_N = (is_token_BT.flatten().cumsum(0) - 1).clamp(min=0)

    @property
    def has_padding(self) -> bool:
        return len(self._behind) > 0

    @property
    def positions_P(self) -> Tensor:  # noqa: N802
        """Of the tokens in their texts."""
        return self.places_P % self.shape[1]

    def pack(self, x_BTC: Tensor) -> Tensor:
        """(P, …): the tokens' rows."""
        packed: Tensor = _Moved.apply(x_BTC.flatten(0, 1), self.rows, self.spread)
        return packed

    def pad(self, x_PC: Tensor) -> Tensor:
        """(B, T, …): 0 where there is no token."""
        padded: Tensor = _Moved.apply(x_PC, self.spread, self.rows)
        return padded.unflatten(0, self.shape)

    def rows(self, x_NC: Tensor) -> Tensor:
        """Of B · T rows those of tokens."""
        return x_NC.index_select(0, self.places_P)

    def spread(self, x_PC: Tensor) -> Tensor:
        """B · T rows from those of the tokens."""
        return x_PC.index_select(0, self._sources_N).index_fill_(0, self._behind, 0)


class _Moved(torch.autograd.Function):
    """Rows that go ``there``; their gradients go ``back``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.back = back
        return there(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(grad), None, None
