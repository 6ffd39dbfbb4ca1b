"""Pre-train an encoder–decoder on text or prepared data by span corruption (T5)."""

import dataclasses

from tickwise.cli.common_flags import TextTrainingArguments, train_on_text
from tickwise.training.text_to_text_config import TextToTextTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(TextTrainingArguments, TextToTextTrainConfig):
    """All flags."""


def run(arguments: Arguments) -> int:
    from tickwise.training.text_to_text_pretraining import pretrain_text_to_text

    return train_on_text(arguments, TextToTextTrainConfig, pretrain_text_to_text,
                         'tickwise run text-to-text --start {out} --task "PREFIX: =FILE" --out FOLDER')
