"""How a span reader reads, and what it practises on: plain values that the command line shows as flags."""

from dataclasses import dataclass

from tickwise.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """For --task answer: how the reader reads, and what it practises on first."""

    window: int | None = None
    """Tokens of question and passage that are read at once (the encoder's context; one with rotary positions can be
    stretched)."""
    longest_answer: int = 64
    """Tokens."""
    stride: int = 128
    """Tokens between the beginnings of the windows of a passage that is longer than the model reads at once."""
    cloze: tuple[str, ...] = ()
    """Plain text files: practise first on questions made from their sentences."""
    cloze_questions: int = 20_000
    cloze_words: int = 120
    """Words of the passages of those questions."""

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 16:
            raise ConfigError(f"--answer.window: must be at least 16, got {self.window}")
        for name in ("longest_answer", "stride", "cloze_questions", "cloze_words"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--answer.{name.replace('_', '-')}: must be positive, got {getattr(self, name)}")
