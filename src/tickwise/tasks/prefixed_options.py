"""An encoder–decoder for one or several tasks, and its training: plain values that the command line shows as flags."""

from dataclasses import dataclass

from tickwise.core.errors import ConfigError
from tickwise.tasks.text_to_text_options import PairOptions


@dataclass(frozen=True, kw_only=True)
class PrefixedOptions(PairOptions):
    """The encoder–decoder Transformer and its training."""

    copies: bool = False
    """Let the model copy tokens of its source, such as names (a pointer-generator, See et al. 2017)."""
    whole: tuple[str, ...] = ()
    """Strings that the tokenizer takes for a word each, such as #Person1#."""
    pretrain: float = 0.0
    """First learn the sources themselves, naming spans that are hidden (T5's span corruption), for this times as many
    passes as --options.epochs gives the pairs afterwards, and for this share of --max-seconds at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.pretrain < 1:
            raise ConfigError(f"--options.pretrain: must be in [0, 1), got {self.pretrain}")


@dataclass(frozen=True, kw_only=True)
class SummaryOptions(PrefixedOptions):
    """The encoder–decoder Transformer that summarises, and its training."""

    copies: bool = True
    """Let the model copy tokens of the text, such as names (a pointer-generator, See et al. 2017)."""
    longest: int = 1024
    """Tokens that a text or a summary may have, its end counted; longer pairs are left out of the training."""
