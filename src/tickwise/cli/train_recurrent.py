"""Train a recurrent language model (RNN, LSTM or GRU) from text or prepared data."""

import dataclasses
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments, config_of, finish_training
from tickwise.training.recurrent import RecurrentTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, RecurrentTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""
    trace: Path | None = None
    """Folder for a trace: every step's stages with time, FLOPs and bytes (tickwise trace show)."""


def run(arguments: Arguments) -> int:
    from tickwise.training.recurrent import train_recurrent

    result = train_recurrent(config_of(RecurrentTrainConfig, arguments), arguments.trace)
    return finish_training(arguments, result, f"tickwise generate {result.out} --prompt \"…\"",
                           interrupted=result.interrupted)
