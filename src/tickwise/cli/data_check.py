"""Counts, samples as the model sees them, duplicates found: of prepared data or of raw text."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tickwise.cli.common_flags import CommonArguments


@dataclasses.dataclass(frozen=True)
class Arguments(CommonArguments):
    """See the module's text."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR_OR_SOURCE")]
    """A prepared folder, or text as for tickwise data prepare."""
    samples: int = 2
    """How many samples of each split to show."""
    sample_tokens: int = 32
    """Tokens of each sample."""
    field: str = "text"
    """The key or column that holds the text (raw text only)."""
    documents: str = "auto"
    """What a document is (raw text only)."""
    errors: Literal["strict", "replace"] = "strict"
    """At bytes that are not UTF-8: stop, or put U+FFFD there (raw text only)."""
    data_dir: Path | None = None
    """Where the files of named data sets are."""


def run(arguments: Arguments) -> int:
    from tickwise.data.check import check_prepared, check_raw
    from tickwise.data.config import PrepareConfig
    from tickwise.data.prepared import DATASET_FILE

    if (Path(arguments.source) / DATASET_FILE).is_file():
        report = check_prepared(Path(arguments.source), arguments.samples, arguments.sample_tokens)
    else:
        config = PrepareConfig(
            sources=(arguments.source,), field=arguments.field, documents=arguments.documents,
            errors=arguments.errors, data_dir=arguments.data_dir,
        )
        report = check_raw(config)
    print(json.dumps(report.as_json(), ensure_ascii=False) if arguments.json else report.as_text())
    return 0
