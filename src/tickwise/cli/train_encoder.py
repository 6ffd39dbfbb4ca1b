"""Pre-train an encoder on text or prepared data: masked words, or replaced tokens (ELECTRA)."""

import dataclasses
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments, config_of, finish_training
from tickwise.training.encoder import EncoderTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, EncoderTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""
    trace: Path | None = None
    """Folder for a trace: every step's stages with time, FLOPs and bytes (tickwise trace show)."""


def run(arguments: Arguments) -> int:
    from tickwise.training.encoder import train_encoder

    result = train_encoder(config_of(EncoderTrainConfig, arguments), arguments.trace)
    return finish_training(arguments, result, f"tickwise adapt {result.out} --task classify --train FILE --out FOLDER",
                           interrupted=result.interrupted)
