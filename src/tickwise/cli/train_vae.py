"""Train a text VAE from sentences: a line of a text file each."""

import dataclasses
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments, config_of, finish_training
from tickwise.training.vae import VaeTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, VaeTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file (a sentence per line) or folder, or the name of a known data set."""
    trace: Path | None = None
    """Folder for a trace: every step's stages with time, FLOPs and bytes (tickwise trace show)."""


def run(arguments: Arguments) -> int:
    from tickwise.training.vae import train_vae

    result = train_vae(config_of(VaeTrainConfig, arguments), arguments.trace)
    return finish_training(arguments, result, f"tickwise run sample {result.out}", interrupted=result.interrupted)
