"""Sizes and switches of an engine."""

from dataclasses import dataclass
from typing import Literal

from tickwise.core.errors import ConfigError
from tickwise.engine.settings import KnownFields


@dataclass(frozen=True, kw_only=True)
class EngineOptions(KnownFields):
    """Sizes and switches of an engine."""

    max_rows: int = 8
    """Samples that are written at the same time."""
    max_waiting: int = 64
    """Requests that may wait for a slot; more are refused."""
    tick_tokens: int = 256
    """Most tokens that one tick reads. Longer prompts are read in pieces, so that others do not wait for them."""
    block_size: int = 16
    """Tokens per block of stored state."""
    n_blocks: int | None = None
    """Blocks of stored state; left out, enough for ``max_rows`` texts that fill the context."""
    prefix_cache: bool = True
    """Keep the state of finished texts while there is room, for texts that begin the same."""
    use_cache: bool = True
    """Keep keys and values. Without them every tick computes the whole texts."""
    speculate: Literal["off", "lookup", "draft"] = "off"
    """Guess tokens and check them together, for all requests: from the text itself, or with a draft model (``draft`` of
    ``Engine``). A request whose settings ask for another way is refused."""
    draft_tokens: int = 4
    """Tokens per guess."""

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_waiting", "tick_tokens", "block_size", "draft_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if self.n_blocks is not None and self.n_blocks < 1:
            raise ConfigError(f"n_blocks: must be at least 1, got {self.n_blocks}")
        if self.tick_tokens < self.max_rows:
            raise ConfigError(
                f"tick_tokens: {self.tick_tokens} tokens per tick are fewer than max_rows = {self.max_rows}; raise it"
            )
