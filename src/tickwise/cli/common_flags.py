"""Flags that every verb has, and what many do with theirs."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from tickwise.cli.launch_flags import LaunchFlags, start

if TYPE_CHECKING:
    from tickwise.training.run import TrainResult

Settings = TypeVar("Settings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonArguments:
    """Base of every verb's ``Arguments``."""

    config: Path | None = None
    """YAML file with any of these settings; flags on the command line win."""
    json: bool = False
    """Print the result as JSON, alone on stdout."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Print the result and errors only."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Print notes on what is decided and why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTrainingArguments(CommonArguments, LaunchFlags):
    """Base of ``Arguments`` that train a model on text; what the model's config has comes besides."""

    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""
    trace: Path | None = None
    """Folder for a trace: every step's stages with time, FLOPs and bytes (tickwise trace show)."""


def config_of(kind: type[Settings], arguments: CommonArguments) -> Settings:
    """The dataclass ``kind``, each of whose fields is a flag of the verb."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    return kind(**{field.name: getattr(arguments, field.name) for field in fields})


def train_on_text(arguments: TextTrainingArguments, kind: type[Settings],
                  train: Callable[[Settings, Path | None], "TrainResult"], next_command: str) -> int:
    """Run ``train`` with the settings among the flags; ``next_command`` has ``{out}`` for the run directory. The exit
    code."""
    config, launch = config_of(kind, arguments), arguments.launch()
    if launch is not None:
        return start(launch)
    result = train(config, arguments.trace)
    return finish_training(arguments, result, next_command.format(out=result.out), interrupted=result.interrupted)


def finish_training(arguments: CommonArguments, result: Any, next_command: str, *, interrupted: bool = False) -> int:
    """Print the dataclass ``result`` as JSON if asked, else what to do next; the exit code."""
    from tickwise.core.console import say

    if os.environ.get("RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" in os.environ:
        return 130 if interrupted else 0  # the first rank speaks for all
    if arguments.json:
        print(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(result).items()}))
    elif not interrupted:
        say(f"use it: {next_command}")
    return 130 if interrupted else 0
