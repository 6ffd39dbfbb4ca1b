"""Train a recurrent language model (RNN, LSTM or GRU) from text or prepared data."""

import dataclasses

from tickwise.cli.common_flags import TextTrainingArguments, train_on_text
from tickwise.training.recurrent import RecurrentTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(TextTrainingArguments, RecurrentTrainConfig):
    """All flags."""


def run(arguments: Arguments) -> int:
    from tickwise.training.recurrent import train_recurrent

    return train_on_text(arguments, RecurrentTrainConfig, train_recurrent, "tickwise generate {out} --prompt \"…\"")
