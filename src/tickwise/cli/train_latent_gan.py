"""Train a GAN in the latent space of a text VAE (Wasserstein, with a gradient penalty)."""

import dataclasses
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments, config_of, finish_training
from tickwise.training.gan import LatentGanTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, LatentGanTrainConfig):
    autoencoder: tyro.conf.Positional[Path]
    """Model or run directory of the text VAE."""
    data: tyro.conf.Positional[Path]
    """The data that it was trained on."""
    trace: Path | None = None
    """Folder for a trace: every step of the game, stage by stage (tickwise trace show)."""


def run(arguments: Arguments) -> int:
    from tickwise.training.gan import train_latent_gan

    result = train_latent_gan(config_of(LatentGanTrainConfig, arguments), arguments.trace)
    return finish_training(arguments, result, f"tickwise run sample {result.out}", interrupted=result.interrupted)
