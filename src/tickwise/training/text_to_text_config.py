"""Settings of an encoder–decoder's pre-training: plain values that the command line shows as flags."""

from dataclasses import dataclass, field
from pathlib import Path

from tickwise.core.errors import ConfigError
from tickwise.training.config import TextConfig, need_positive

_SHORTEST = 8


@dataclass(frozen=True, kw_only=True)
class TextToTextModelOptions:
    """The encoder–decoder. Everything left out follows from ``--depth``."""

    width: int | None = None
    """Features of the residual streams (64 per layer of depth)."""
    n_heads: int | None = None
    hidden: int | None = None
    """Features inside the gated feed-forward blocks (8 ÷ 3 of the width)."""
    decoder_layers: int | None = None
    """Layers of the decoder (as many as the encoder has)."""
    copies: bool = False
    """Let the model copy tokens of its source (a pointer-generator, See et al. 2017)."""
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TextToTextTrainConfig(TextConfig):
    """One pre-training of an encoder–decoder by span corruption."""

    depth: int = 4
    """The dial: layers of the encoder, and of the decoder. Width, heads, learning rate and batch follow from it."""
    context: int = 256
    """Tokens of a source, its end counted; texts are as long as they may be for that."""
    longest: int = 512
    """Tokens that sources and targets of later tasks may have."""
    noise_density: float = 0.15
    """Share of a text's tokens that is hidden."""
    mean_span: float = 3.0
    """Mean length of what is hidden in one piece, in tokens."""
    start: Path | None = None
    """Go on from the weights and with the tokenizer of this model directory; what fits by name is taken."""
    lowercase: bool = False
    """For raw text and bpe: read capitals as small letters."""
    model: TextToTextModelOptions = field(default_factory=TextToTextModelOptions)

    def __post_init__(self) -> None:
        need_positive(self, ("depth", "context", "longest"))
        if self.context < _SHORTEST:
            raise ConfigError(f"--context: must be at least {_SHORTEST}, got {self.context}")
        if not 0 < self.noise_density < 1:
            raise ConfigError(f"--noise-density: must be between 0 and 1, got {self.noise_density}")
        if not self.mean_span >= 1:
            raise ConfigError(f"--mean-span: must be at least 1, got {self.mean_span}")
        super().__post_init__()
