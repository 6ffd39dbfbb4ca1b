"""Train a generator of sentences: first by maximum likelihood, then against a discriminator (SeqGAN)."""

import dataclasses
import json
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.training.gan import GanTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, GanTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file (a sentence per line) or folder, or the name of a known data set."""


def run(arguments: Arguments) -> int:
    from tickwise.core.console import say
    from tickwise.training.gan import train_gan

    result = train_gan(GanTrainConfig(**{f.name: getattr(arguments, f.name)
                                         for f in dataclasses.fields(GanTrainConfig)}))
    if arguments.json:
        print(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(result).items()}))
    elif not result.interrupted:
        say(f"write with it: tickwise generate {result.out}")
    return 130 if result.interrupted else 0
