"""Train a text VAE from sentences: a line of a text file each."""

import dataclasses

from tickwise.cli.common_flags import TextTrainingArguments, train_on_text
from tickwise.training.vae import VaeTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(TextTrainingArguments, VaeTrainConfig):
    """All flags."""


def run(arguments: Arguments) -> int:
    from tickwise.training.vae import train_vae

    return train_on_text(arguments, VaeTrainConfig, train_vae, "tickwise run sample {out}")
