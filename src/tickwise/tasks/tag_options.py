"""How tagged files are read, and a tagger's size and training: plain values that the command line shows as flags."""

from dataclasses import dataclass
from typing import Literal

from tickwise.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TagReading:
    """How tagged files are read."""

    scheme: Literal["auto", "lenient", "iob1", "bio", "iobes", "bmes", "bilou"] = "auto"
    """How entities are written; lenient reads tags that follow no scheme as conlleval does."""
    token_column: int = 0
    """Column of the token, from 0."""
    tag_column: int = -1
    """Column of the tag, from 0, or from the end when negative."""


@dataclass(frozen=True, kw_only=True)
class TagOptions(TagReading):
    """How tagged files are read, and the tagger's size and training."""

    min_count: int = 2
    """Words that the training data has less often are read as unknown."""
    word_width: int = 100
    feature_width: int | None = None
    """Of affixes, shapes and pairs of characters (25; pairs 50)."""
    hidden: int = 150
    """Features of each direction of the LSTM."""
    n_layers: int = 1
    dropout: float = 0.5
    word_dropout: float = 0.25
    """A word seen n times is read as unknown with the chance word_dropout / (word_dropout + n)."""
    context: int = 0
    """Neighbouring sentences of a document are read together up to this many tokens; 0 reads each alone."""
    batch_tokens: int = 600
    """Tokens in one update, padding included."""
    epochs: float = 8.0
    """Passes through the training data; of little data more, until there are 300 updates."""
    lr: float = 2e-3

    def __post_init__(self) -> None:
        for name in ("min_count", "word_width", "hidden", "n_layers", "batch_tokens", "epochs", "lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"--options.{name.replace('_', '-')}: must be positive, got {getattr(self, name)}")
        if self.context < 0 or self.word_dropout < 0:
            raise ConfigError("--options.context and --options.word-dropout: must not be negative")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"--options.dropout: must be in [0, 1), got {self.dropout}")
