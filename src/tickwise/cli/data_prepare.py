"""Clean, split, tokenize and pack text for training."""

import dataclasses
import json
from typing import Annotated, Any

import tyro

from tickwise.cli.common_flags import CommonArguments, config_of
from tickwise.core import console
from tickwise.core.config import to_dict
from tickwise.data.config import PrepareConfig, check_config
from tickwise.data.prepare import check_output, plan, prepare
from tickwise.data.prepared import PreparedData


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, PrepareConfig):
    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = ()
    """Files or folders of them (.txt .text .md .jsonl .ndjson .json .csv .tsv .parquet, also .gz), - for standard
    input, or a data set's name."""
    dry_run: bool = False
    """Print what would be done and stop."""


def run(arguments: Arguments) -> int:
    config = config_of(PrepareConfig, arguments)
    check_config(config)
    if arguments.dry_run:
        planned = plan(config)
        result: dict[str, Any] = {"config": to_dict(config), **planned}
        size = planned["input_bytes"]
        text = "\n".join([
            *(f"{key}: {value}" for key, value in to_dict(config).items() if value not in (None, [], ())),
            f"input: {'n/a' if size is None else console.format_bytes(size)} in {len(planned['files'])} files",
            f"disk needed while preparing: {'n/a' if size is None else console.format_bytes(2 * size)} (modelled)",
        ])
    else:
        check_output(config.out, config.overwrite)
        data = prepare(config)
        result = summary(data)
        text = f"prepared {data.path}: {', '.join(f'{name} {len(data.split(name))} tokens' for name in data.splits)}"
    print(json.dumps(result, ensure_ascii=False) if arguments.json else text)
    return 0


def summary(data: PreparedData) -> dict[str, Any]:
    """What ``--json`` prints about prepared data."""
    return {
        "path": str(data.path),
        "fingerprint": data.fingerprint,
        "tokenizer": {"kind": data.tokenizer.kind, "vocab_size": data.tokenizer.vocab_size},
        "dtype": data.info.dtype,
        "splits": {name: dataclasses.asdict(info) for name, info in data.split_info.items()},
        "duplicates": data.info.duplicates,
        "cleaning": data.info.cleaning,
        "sources": [dataclasses.asdict(source) for source in data.info.sources],
    }
