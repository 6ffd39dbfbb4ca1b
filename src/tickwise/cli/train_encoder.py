"""Pre-train an encoder on text or prepared data: masked words, or replaced tokens (ELECTRA)."""

import dataclasses

from tickwise.cli.common_flags import TextTrainingArguments, train_on_text
from tickwise.training.encoder import EncoderTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(TextTrainingArguments, EncoderTrainConfig):
    """All flags."""


def run(arguments: Arguments) -> int:
    from tickwise.training.encoder import train_encoder

    return train_on_text(arguments, EncoderTrainConfig, train_encoder,
                         "tickwise adapt {out} --task classify --train FILE --out FOLDER")
