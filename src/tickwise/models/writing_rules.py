"""What a model is made to write, and not to write, whatever it finds likely."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WritingRules:
    """Rules that come with a model and hold however its texts are chosen.

    As in transformers, they leave the likelihoods of what they do not rule out as they are, and a token that they
    force counts as certain.
    """

    suppressed_ids: tuple[int, ...] = ()
    """Tokens that are never written."""
    first_id: int | None = None
    """The token that every text begins with."""
    forces_end: bool = False
    """Whether the last token of a text that is as long as it may be is an end mark."""
    end_ids: tuple[int, ...] = ()
    """Tokens that end a text besides the model's end mark."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All tokens that are named."""
        return (*self.suppressed_ids, *self.end_ids, *(() if self.first_id is None else (self.first_id,)))


NO_RULES = WritingRules()
