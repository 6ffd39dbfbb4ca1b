"""Count a modified Kneser–Ney n-gram model from text or prepared data."""

import dataclasses
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments, config_of, finish_training
from tickwise.training.tables import NgramTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, NgramTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""


def run(arguments: Arguments) -> int:
    from tickwise.training.tables import train_ngram

    result = train_ngram(config_of(NgramTrainConfig, arguments))
    return finish_training(arguments, result, f"tickwise generate {result.out} --prompt \"…\"")
