"""An encoder–decoder's size and training on pairs of texts: plain values that the command line shows as flags."""

from dataclasses import dataclass
from typing import Literal

from tickwise.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """The encoder–decoder Transformer and its training."""

    vocab_size: int = 8000
    """Most tokens of the byte-level BPE vocabulary that both sides share."""
    width: int = 256
    """Features of the residual streams."""
    encoder_layers: int = 3
    decoder_layers: int = 3
    n_heads: int = 4
    hidden: int | None = None
    """Features inside the gated feed-forward blocks (8 ÷ 3 of the width)."""
    dropout: float = 0.2
    longest: int = 256
    """Tokens that a source or a target may have, its end counted; longer pairs are left out of the training."""
    label_smoothing: float = 0.1
    batch_tokens: int = 4096
    """Tokens of the longer side in one update, padding included."""
    epochs: float = 40.0
    """Most passes through the training pairs."""
    optimizer: Literal["muon", "adamw"] = "muon"
    lr: float | None = None
    """Peak learning rate (muon 0.012, adamw 0.002, times the square root of 256 ÷ width)."""
    weight_decay: float = 0.1
    """On matrices; decoupled from the gradient."""
    decay: float = 0.7
    """Share of the training, at its end, in which the learning rate falls to zero."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "encoder_layers", "decoder_layers", "n_heads", "hidden", "longest",
                     "batch_tokens", "epochs", "lr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"--options.{name.replace('_', '-')}: must be positive, got {value}")
        if self.width % self.n_heads:
            raise ConfigError(f"--options.n-heads: {self.n_heads} heads do not divide the width of {self.width}")
        for name in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--options.{name.replace('_', '-')}: must be in [0, 1), got {getattr(self, name)}")
        if not self.weight_decay >= 0:
            raise ConfigError(f"--options.weight-decay: must not be negative, got {self.weight_decay}")
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"--options.decay: must be in [0, 1], got {self.decay}")


@dataclass(frozen=True, kw_only=True)
class TextToTextOptions(PairOptions):
    """The encoder–decoder Transformer that translates, and its training."""

    bpe_dropout: float = 0.0
    """Share of the vocabulary's merges that are left out while training, so that words have other tokens in every
    epoch; helps where there are few pairs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.bpe_dropout < 1:
            raise ConfigError(f"--options.bpe-dropout: must be in [0, 1), got {self.bpe_dropout}")
