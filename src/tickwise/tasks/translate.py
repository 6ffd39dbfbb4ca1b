"""Translators: the scores of what one translates, and a short text to look into."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tickwise.core.console import progress
from tickwise.data.pairs import Pairs
from tickwise.engine.batch_beam import BeamOptions
from tickwise.evaluation.translation import Tokenize, TranslationScores
from tickwise.tasks.text_to_text import TextToText, Written, say_cut

if TYPE_CHECKING:
    from tickwise.evaluation.attention import AttentionMap

_MOST_DEVELOPMENT = 1000
_EXAMPLE_TOKENS = 30


@dataclass(frozen=True)
class ScoredPart:
    """The translations of a part of the pairs, and their scores."""

    pairs: Pairs
    """Those whose sources the model reads."""
    written: list[Written]
    """The translation of each."""
    scores: TranslationScores
    perplexity: float | None
    """Of the references."""
    n_left_out: int
    """Pairs whose sources are too long."""
    n_cut: int

    def lines(self) -> list[str]:
        """A line for each row that was read: its translation, or nothing where the row has a blank side or a source
        that is too long."""
        return self.pairs.by_row([" ".join(one.text.split()) for one in self.written])

    def to_json(self) -> dict[str, Any]:
        figures = self.scores.to_json("translation")
        figures["results"]["translation"]["perplexity,none"] = self.perplexity
        return figures | {"left_out": self.n_left_out, "cut": self.n_cut}


def score_part(model: TextToText, pairs: Pairs, options: BeamOptions | None = None, *, lowercase: bool = False,
               tokenize: Tokenize = "auto") -> ScoredPart:
    """Translate the sources of ``pairs`` and score that as ``TextToText.score`` does. What is left out and what was cut
    is said. Raises ``DataError`` where every source is too long."""
    readable = pairs.take(model.scorable(pairs.sources, pairs.name))
    with progress("translating", len(readable), "texts") as bar:
        written = model.write(readable.sources, options, advance=bar.advance)
    scores = model.score([one.text for one in written], readable.targets, lowercase=lowercase, tokenize=tokenize)
    n_cut = sum(one.cut for one in written)
    say_cut(n_cut, len(written), f"translations of {pairs.name}")
    return ScoredPart(readable, written, scores, model.perplexity(readable), len(pairs) - len(readable), n_cut)


def some_readable(model: TextToText, development: Pairs) -> Pairs:
    """The first 1,000 pairs of the development part whose sources are not too long: what a training is scored on."""
    return development.take(model.readable(development.sources)[:_MOST_DEVELOPMENT])


def example(model: TextToText, development: Pairs) -> "tuple[str, str, list[AttentionMap]] | None":
    """A short text of the development part, its translation, and what the model looked at; ``None`` where all texts
    are long."""
    sources = some_readable(model, development).sources
    lengths = [len(ids) for ids in model.encode(sources)]
    short = sorted((length, text) for length, text in zip(lengths, sources, strict=True) if length <= _EXAMPLE_TOKENS)
    if not short:
        return None
    text = short[len(short) // 2][1]
    (translation,) = model.translate([text])
    return text, translation, model.attention(text, translation)
