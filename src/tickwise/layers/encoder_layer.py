"""Sublayers around a residual stream, with norms before or after them; the encoder's layer."""

from typing import Literal

from torch import Tensor, nn

from tickwise.core.stages import Stage, mark
from tickwise.layers.attention import KeyValueCache, SelfAttention
from tickwise.layers.dropout import dropout
from tickwise.layers.feed_forward import FeedForward
from tickwise.layers.packed import PackedTokens

NormPlace = Literal["pre", "post"]
"""Before each sublayer (``x + f(norm(x))``), or after each addition (``norm(x + f(x))``, Vaswani et al. 2017)."""


class ResidualLayer(nn.Module):
    """How a layer's sublayers read the residual stream and are added to it."""

    def __init__(self, norm_place: NormPlace, dropout: float, stage_layer: int) -> None:
        """``dropout`` is on what a sublayer adds, while training; ``stage_layer`` is the layer's number among the
        stages."""
        super().__init__()
        self.norm_place, self.dropout, self.stage_layer = norm_place, dropout, stage_layer

    def before(self, norm: nn.Module, x_BTC: Tensor) -> Tensor:
        """What the sublayer of this norm reads."""
        if self.norm_place == "post":
            return x_BTC
        mark(Stage.NORM, self.stage_layer)
        normed_BTC: Tensor = norm(x_BTC)
        return normed_BTC

    def after(self, norm: nn.Module, x_BTC: Tensor, added_BTC: Tensor) -> Tensor:
        """The residual stream behind the sublayer of this norm."""
        x_BTC = x_BTC + dropout(added_BTC, self.dropout, self.training)
        if self.norm_place == "pre":
            return x_BTC
        mark(Stage.NORM, self.stage_layer)
        normed_BTC: Tensor = norm(x_BTC)
        return normed_BTC


class EncoderLayer(ResidualLayer):
    """Self-attention and feed-forward block: (B, T, C) → (B, T, C)."""

    def __init__(
        self, self_attn: SelfAttention, mlp: FeedForward, norms: tuple[nn.Module, nn.Module], norm_place: NormPlace,
        dropout: float,
    ) -> None:
        super().__init__(norm_place, dropout, self_attn.stage_layer)
        self.attention_norm, self.mlp_norm = norms
        self.self_attn, self.mlp = self_attn, mlp

    def forward(
        self, x_BTC: Tensor, rope: tuple[Tensor, Tensor] | None, view: KeyValueCache,
        packed: PackedTokens | None = None,
    ) -> Tensor:
        """``view`` is what each token sees. With ``packed``, ``x_BTC`` and the output are rows (P, C)."""
        attended_BTC, _ = self.self_attn(self.before(self.attention_norm, x_BTC), rope, None, view, packed)
        x_BTC = self.after(self.attention_norm, x_BTC, attended_BTC)
        read_BTC = self.before(self.mlp_norm, x_BTC)
        mark(Stage.FFN, self.stage_layer)
        return self.after(self.mlp_norm, x_BTC, self.mlp(read_BTC))
