"""Train a GAN in the latent space of a text VAE (Wasserstein, with a gradient penalty)."""

import dataclasses
import json
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.training.gan import LatentGanTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, LatentGanTrainConfig):
    autoencoder: tyro.conf.Positional[Path]
    """Model or run directory of the text VAE."""
    data: tyro.conf.Positional[Path]
    """The data that it was trained on."""


def run(arguments: Arguments) -> int:
    from tickwise.core.console import say
    from tickwise.training.gan import train_latent_gan

    result = train_latent_gan(LatentGanTrainConfig(**{f.name: getattr(arguments, f.name)
                                                      for f in dataclasses.fields(LatentGanTrainConfig)}))
    if arguments.json:
        print(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(result).items()}))
    elif not result.interrupted:
        say(f"write with it: tickwise run sample {result.out}")
    return 130 if result.interrupted else 0
