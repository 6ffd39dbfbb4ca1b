"""Make a matrix-factorised language model: count, factorise, and weigh against Kneser–Ney n-grams."""

import dataclasses
import json
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.training.tables import FactorisedTrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, FactorisedTrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""


def run(arguments: Arguments) -> int:
    from tickwise.core.console import say
    from tickwise.training.tables import train_factorised

    names = {field.name for field in dataclasses.fields(FactorisedTrainConfig)}
    result = train_factorised(FactorisedTrainConfig(**{name: getattr(arguments, name) for name in names}))
    if arguments.json:
        print(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(result).items()}))
    else:
        say(f"write with it: tickwise generate {result.out} --prompt \"…\"")
    return 0
