"""Summaries that a trained encoder–decoder writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tickwise.core.errors import ConfigError
from tickwise.data.pairs import ReadPairs
from tickwise.engine.batch_beam import BeamOptions
from tickwise.tasks.multitask import prefixes_of, train_tasks
from tickwise.tasks.prefixed_options import SummaryOptions
from tickwise.tasks.text_to_text import TextToText, read_parts

if TYPE_CHECKING:
    from tickwise.training.run import TrainResult


def train_summariser(
    train: Sequence[str], *, out: Path, development: Sequence[str] = (), field: str = "dialogue",
    summary: str = "summary", options: SummaryOptions | None = None, start: Path | None = None,
    lowercase: bool = False, seed: int = 1, max_seconds: float | None = None, resume: bool = False,
    overwrite: bool = False, device: str = "auto", dtype: str = "auto", trace: Path | None = None,
) -> "TrainResult":
    """Train an encoder–decoder on texts (``field`` of the rows) and their summaries, and keep the model that predicts
    the development part best: that of a known data set, ``development``, or up to 1,000 of the texts.

    Raises a ``UserError`` for data that cannot be used.
    """
    parts = read_parts(train, development, ReadPairs(source=field, target=summary), 0, targets_repeat=True)
    return train_tasks({"": parts}, out=out, options=options or SummaryOptions(), start=start, lowercase=lowercase,
                       seed=seed, max_seconds=max_seconds, resume=resume, overwrite=overwrite, device=device,
                       dtype=dtype, trace=trace)


class LearnedSummariser:
    """Summarises texts with ``model``: the best of ``beam`` summaries of at most ``max_tokens`` tokens."""

    def __init__(self, model: TextToText, beam: int = 4, length_penalty: float = 1.0, max_tokens: int = 128) -> None:
        """``ConfigError`` for a model of many tasks."""
        prefixes = prefixes_of(model.tokenizer)
        if prefixes:
            raise ConfigError("this model is told its task by what stands before the text ("
                              f"{', '.join(prefixes)}); use it with tickwise run text-to-text")
        self.model = model
        self._options = BeamOptions(width=beam, length_penalty=length_penalty, max_ratio=0.0, max_extra=max_tokens)

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Their summaries; ``DataError`` for a text that is longer than the model reads."""
        return self.model.translate(texts, self._options)
