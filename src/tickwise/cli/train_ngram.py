"""Count a modified Kneser–Ney n-gram model from text or prepared data."""

import dataclasses
import json
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.training.tables import NgramTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, NgramTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""


def run(arguments: Arguments) -> int:
    from tickwise.core.console import say
    from tickwise.training.tables import train_ngram

    names = {field.name for field in dataclasses.fields(NgramTrainConfig)}
    result = train_ngram(NgramTrainConfig(**{name: getattr(arguments, name) for name in names}))
    if arguments.json:
        print(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(result).items()}))
    else:
        say(f"write with it: tickwise generate {result.out} --prompt \"…\"")
    return 0
