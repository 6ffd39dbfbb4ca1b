"""Train a text VAE from sentences: a line of a text file each."""

import dataclasses
import json
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.training.vae import VaeTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, VaeTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file (a sentence per line) or folder, or the name of a known data set."""
    trace: Path | None = None
    """Folder for a trace: every step's stages with time, FLOPs and bytes (tickwise trace show)."""


def run(arguments: Arguments) -> int:
    from tickwise.core.console import say
    from tickwise.training.vae import train_vae

    names = {field.name for field in dataclasses.fields(VaeTrainConfig)}
    result = train_vae(VaeTrainConfig(**{name: getattr(arguments, name) for name in names}), arguments.trace)
    if arguments.json:
        print(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(result).items()}))
    elif not result.interrupted:
        say(f"write with it: tickwise run sample {result.out}")
    return 130 if result.interrupted else 0
