"""Train a recurrent language model (RNN, LSTM or GRU) from text or prepared data."""

import dataclasses
import json
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.training.recurrent import RecurrentTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, RecurrentTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""
    trace: Path | None = None
    """Folder for a trace: every step's stages with time, FLOPs and bytes (tickwise trace show)."""


def run(arguments: Arguments) -> int:
    from tickwise.core.console import say
    from tickwise.training.recurrent import train_recurrent

    names = {field.name for field in dataclasses.fields(RecurrentTrainConfig)}
    result = train_recurrent(RecurrentTrainConfig(**{name: getattr(arguments, name) for name in names}),
                             arguments.trace)
    if arguments.json:
        print(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(result).items()}))
    elif not result.interrupted:
        say(f"write with it: tickwise generate {result.out} --prompt \"…\"")
    return 130 if result.interrupted else 0
