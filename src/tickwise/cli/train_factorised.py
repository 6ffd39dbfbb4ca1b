"""Make a matrix-factorised language model: count, factorise, and weigh against Kneser–Ney n-grams."""

import dataclasses
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments, config_of, finish_training
from tickwise.training.tables import FactorisedTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, FactorisedTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""


def run(arguments: Arguments) -> int:
    from tickwise.training.tables import train_factorised

    result = train_factorised(config_of(FactorisedTrainConfig, arguments))
    return finish_training(arguments, result, f"tickwise generate {result.out} --prompt \"…\"")
