"""What a user can ask of a generation; checked once, when it is made."""

import math
from dataclasses import dataclass

from tickwise.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Settings of one generation. Every wrong value raises ``ConfigError`` in one line.

    The distribution is shaped in this order: repetition penalty, temperature, top-k, top-p, min-p.
    """

    max_tokens: int = 200
    """Most tokens to write; beyond the model's context, the text slides through it."""
    temperature: float = 1.0
    """Divides the logits. 0 always takes the most likely token."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most likely tokens with at least this probability (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Keep tokens at least this share as likely as the most likely one (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Above 1, makes tokens of the prompt and of the text so far less likely (Keskar et al. 2019)."""
    stop: tuple[str, ...] = ()
    """Strings that end the text; they are not part of it."""
    ignore_eos: bool = False
    """Go on after the end-of-text token, up to the most tokens."""
    seed: int | None = None
    """Same seed, same text. Left out, a new seed is drawn and reported."""
    n: int = 1
    """Samples. Each depends on the seed and its own number only, not on how many there are."""
    use_cache: bool = True
    """Keep keys and values of earlier tokens. Without it, every token computes the whole text again."""

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        else:
            object.__setattr__(self, "stop", tuple(self.stop))
        _whole("max_tokens", self.max_tokens, 1)
        _whole("top_k", self.top_k, 0)
        _whole("n", self.n, 1)
        if self.seed is not None:
            _whole("seed", self.seed, 0)
        _number("temperature", self.temperature, self.temperature >= 0, "at least 0 (0 is greedy)")
        _number("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")
        _number("min_p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1")
        _number("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0")
        if not all(isinstance(text, str) and text for text in self.stop):
            raise ConfigError("stop: a stop string must not be empty")


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}: {value!r} is not a whole number of at least {least}")


def _number(name: str, value: float, holds: bool, rule: str) -> None:
    if not math.isfinite(value) or not holds:
        raise ConfigError(f"{name}: {value!r} must be {rule}")
