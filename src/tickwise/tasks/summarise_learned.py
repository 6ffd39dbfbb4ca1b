"""Summaries that a trained encoder–decoder writes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tickwise.core.console import progress
from tickwise.core.errors import ConfigError
from tickwise.data.pairs import Pairs, ReadPairs
from tickwise.evaluation.classification import Score
from tickwise.evaluation.overlap import OfReferences
from tickwise.tasks.multitask import prefixes_of, train_tasks
from tickwise.tasks.pair_training import PairRun
from tickwise.tasks.prefixed_options import SummaryOptions
from tickwise.tasks.summarise import Summarised, evaluate_summaries
from tickwise.tasks.text_to_text import LONGEST_TARGET, TextToText, Written, read_parts, say_cut

if TYPE_CHECKING:
    from tickwise.training.run import TrainResult


def train_summariser(
    train: Sequence[str], *, out: Path, development: Sequence[str] = (), test: Sequence[Summarised] = (),
    field: str = "dialogue", summary: str = "summary", options: SummaryOptions | None = None,
    start: Path | None = None, lowercase: bool = False, **run: Unpack[PairRun],
) -> "TrainResult":
    """Train an encoder–decoder on texts (``field`` of the rows) and their summaries, and keep the model that predicts
    the development part best: that of a known data set, ``development``, or up to 1,000 of the texts. Texts of that
    part, and those that it will be scored on (``test``), are not trained on.

    Raises a ``UserError`` for data that cannot be used.
    """
    tested = Pairs([row.text for row in test], [row.references[0] for row in test], "the test part")
    parts = read_parts(train, development, ReadPairs(source=field, target=summary), 0, targets_repeat=True, test=tested)
    return train_tasks({"": parts}, out=out, options=options or SummaryOptions(), start=start, lowercase=lowercase,
                       **run)


class LearnedSummariser:
    """Summarises texts with ``model``: the best of ``beam`` summaries of at most ``max_tokens`` tokens; left out, as
    ``TextToText.beam_options`` has it, and 128 for a model that does not say how long its targets were."""

    def __init__(self, model: TextToText, beam: int = 4, length_penalty: float = 1.0,
                 max_tokens: int | None = None) -> None:
        """``ConfigError`` for a model of many tasks."""
        prefixes = prefixes_of(model.tokenizer)
        if prefixes:
            raise ConfigError("this model is told its task by what stands before the text ("
                              f"{', '.join(prefixes)}); use it with tickwise run text-to-text")
        self.model = model
        if max_tokens is None and LONGEST_TARGET not in model.tokenizer.config:
            max_tokens = 128
        self._options = model.beam_options(beam, length_penalty, max_tokens)

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Their summaries; ``DataError`` for a text that is longer than the model reads."""
        return self.model.translate(texts, self._options)

    def write(self, texts: Sequence[str], *, first_number: int = 1,
              advance: Callable[[float], None] | None = None) -> list[Written]:
        """As ``TextToText.write``: also which summaries were cut, and what is said of a text that is too long."""
        return self.model.write(texts, self._options, first_number=first_number, advance=advance)


def evaluate_learned(summarise: LearnedSummariser, rows: Sequence[Summarised], name: str,
                     of: OfReferences = "best") -> tuple[dict[str, Score], list[Written]]:
    """Scores as ``evaluate_summaries`` gives them, and the summaries of the texts that the model reads; how many texts
    are too long, and how many summaries were cut, is said. ``DataError`` where every text is too long."""
    scored = [rows[number] for number in summarise.model.scorable([row.text for row in rows], name)]
    with progress("summarising", len(scored), "texts") as bar:
        written = summarise.write([row.text for row in scored], advance=bar.advance)
    say_cut(sum(one.cut for one in written), len(written), f"summaries of {name}")
    return evaluate_summaries(lambda texts: [one.text for one in written], scored, of), written
