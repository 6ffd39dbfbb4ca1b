"""Flags of verbs that train a model for a task: how the run goes, and what an encoder–decoder on pairs has besides;
and how such a verb prints what its model writes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.json_rows import JsonRows
from tickwise.cli.launch_flags import LaunchFlags, start
from tickwise.cli.task_flags import NamesTextsAndForm, answer_texts, is_prompt
from tickwise.core.console import say
from tickwise.core.errors import ConfigError, DataError
from tickwise.training.config import ParallelOptions

if TYPE_CHECKING:
    from tickwise.tasks.text_to_text import Written
    from tickwise.training.run import TrainResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags(CommonArguments):
    """How a training runs, whatever it trains."""

    max_seconds: float | None = None
    """End training after this time."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    overwrite: bool = False
    """Replace a run that is already in --out."""
    seed: int = 1
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the training's computation; weights and optimizer state stay fp32."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""

    def run_settings(self) -> dict[str, Any]:
        """The fields of this class, by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(RunFlags)
                if field.name not in CommonArguments.__dataclass_fields__}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairFlags(RunFlags, LaunchFlags):
    """What translating, summarising and tasks with prefixes share: an encoder–decoder learns to write texts."""

    accumulate: int = 1
    """Parts that one update's pairs (of several ranks: each rank's) are split into: less memory."""
    parallel: ParallelOptions = dataclasses.field(default_factory=ParallelOptions)
    out: Path | None = None
    """Run directory of a training."""
    lowercase: bool = False
    """In a training: read and write everything in lower case, which stays with the model."""
    beam: int = 4
    """Texts that are kept side by side; 1 always takes the most likely token."""
    length_penalty: float = 1.0
    """Log-probabilities are divided by length ** this; more favours longer texts."""
    max_tokens: int | None = None
    """Most tokens of a text that is written, its end counted; left out, a tenth more than the longest target of
    its training has."""
    trace: Path | None = None
    """Folder for a trace: every training step, stage by stage (tickwise trace show)."""

    def check_beam(self) -> None:
        """``ConfigError`` for a search that cannot be, before any work."""
        if self.beam < 1:
            raise ConfigError(f"--beam: must be at least 1, got {self.beam}")
        if not -10 <= self.length_penalty <= 10:
            raise ConfigError(f"--length-penalty: must be from -10 to 10, got {self.length_penalty}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"--max-tokens: must be at least 1, got {self.max_tokens}")

    def training_settings(self) -> dict[str, Any]:
        """What every training of these takes from the flags."""
        assert self.out is not None
        return self.run_settings() | {"out": self.out, "lowercase": self.lowercase, "trace": self.trace,
                                      "accumulate": self.accumulate, "parallel": self.parallel}

    def start_ranks(self) -> int | None:
        """The exit code of the processes that train in this one's place; ``None`` where it trains itself."""
        launch = self.launch()
        return None if launch is None else start(launch, "--resume")


def figures_of(result: "TrainResult") -> dict[str, Any]:
    """What is said of a finished training, as JSON values."""
    return {"model": str(result.model), "parameters": result.n_parameters, "seconds": result.seconds,
            "development_perplexity": result.validation.get("perplexity")}


def print_written(arguments: NamesTextsAndForm, write: "Callable[[list[str], int], list[Written]]", name: str) -> None:
    """What ``write`` makes of the texts that the flags name, the first of which has that number: a line each as soon as
    it is there, or as JSON, where it is called ``name``. How many were cut is said.

    Of a text that cannot be read the line is blank, its JSON has the ``error``, and the others go on; ``DataError``
    says at the end how many these were.
    """
    from tickwise.tasks.text_to_text import say_cut

    alone = arguments.text not in (None, "-")
    typed = is_prompt(arguments)
    n_done = n_cut = n_printed = 0
    problems: list[str] = []
    rows = JsonRows()

    def answer(texts: list[str]) -> None:
        nonlocal n_done, n_cut, n_printed
        written = write(texts, n_done + 1)
        n_done += len(texts)
        n_cut += sum(one.cut for one in written)
        for text, one in zip(texts, written, strict=True):
            if one.problem is not None:
                problems.append(one.problem)
                if alone:
                    raise DataError(one.problem)
            if one.problem is not None and typed:
                say(one.problem)
            elif arguments.json:
                row = {"text": text, name: one.text, "cut": one.cut} | (
                    {} if one.problem is None else {"error": one.problem})
                n_printed += 1
                if typed:  # each at once
                    print(json.dumps(row, ensure_ascii=False), flush=True)
                else:
                    rows.add(row)
            else:
                print(" ".join(one.text.split()), flush=True)

    try:
        answer_texts(arguments, answer)
    finally:
        if arguments.json:
            rows.close()
    if arguments.json and not n_printed:
        print(json.dumps({"samples": []}))
    say_cut(n_cut, n_done)
    if problems and not typed:
        raise DataError(f"{len(problems):,} of {n_done:,} texts have no {name}; the first: {problems[0]}")
