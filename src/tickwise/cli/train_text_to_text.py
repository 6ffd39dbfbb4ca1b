"""Pre-train an encoder–decoder on text or prepared data by span corruption (T5)."""

import dataclasses
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments, config_of, finish_training
from tickwise.training.text_to_text_config import TextToTextTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, TextToTextTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""
    trace: Path | None = None
    """Folder for a trace: every step's stages with time, FLOPs and bytes (tickwise trace show)."""


def run(arguments: Arguments) -> int:
    from tickwise.training.text_to_text_pretraining import pretrain_text_to_text

    result = pretrain_text_to_text(config_of(TextToTextTrainConfig, arguments), arguments.trace)
    return finish_training(
        arguments, result, f'tickwise run text-to-text --start {result.out} --task "PREFIX: =FILE" --out FOLDER',
        interrupted=result.interrupted)
