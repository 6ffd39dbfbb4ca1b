"""Train a generator of sentences: first by maximum likelihood, then against a judge (SeqGAN, or cooperative
training)."""

import dataclasses
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments, config_of, finish_training
from tickwise.training.gan import GanTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, GanTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file (a sentence per line) or folder, or the name of a known data set."""
    trace: Path | None = None
    """Folder for a trace: every step of the game, stage by stage (tickwise trace show)."""


def run(arguments: Arguments) -> int:
    from tickwise.training.gan import train_gan

    result = train_gan(config_of(GanTrainConfig, arguments), arguments.trace)
    return finish_training(arguments, result, f"tickwise generate {result.out}", interrupted=result.interrupted)
