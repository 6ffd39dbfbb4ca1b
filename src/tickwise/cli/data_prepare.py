"""Clean, split, tokenize and pack text for training."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core import console
from tickwise.core.config import to_dict
from tickwise.data.prepare import PrepareConfig, check_config, check_output, plan, prepare
from tickwise.data.prepared import PreparedData


@dataclasses.dataclass(frozen=True)
class Arguments(CommonArguments):
    """See the module's text."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = ()
    """Files (.txt .jsonl .json .csv .tsv .parquet, also .gz), folders, - for standard input, or a data set's name."""
    out: Path | None = None
    """The folder to make."""
    tokenizer: Literal["char", "word", "bpe"] = "bpe"
    """char, word (English and Chinese) or byte-level bpe."""
    vocab_size: int | None = None
    """Most entries of the vocabulary; bpe takes 8192 when left out."""
    min_frequency: int = 2
    """A word or merge that is rarer is left out."""
    unknown: bool = False
    """Give a char vocabulary an <unk> for characters that it has not seen."""
    word_style: Literal["natural", "spaces"] = "natural"
    """spaces: the text is tokenized already, its tokens separated by spaces (WikiText, Penn Treebank)."""
    tokenizer_from: Path | None = None
    """Use the tokenizer of this folder (a model, or prepared data) instead of training one."""
    field: str = "text"
    """The key or column that holds the text."""
    input_format: Literal["auto", "text", "jsonl", "json", "csv", "tsv", "parquet"] = "auto"
    """What the sources are, when their names do not say it."""
    documents: str = "auto"
    """What a document is in a text file: file, line, paragraph, or the string that separates them. auto: one file is
    kept in its order, of many each is a document."""
    validation_fraction: float = 0.1
    """Share of the text that is held out for validation."""
    test_fraction: float = 0.0
    """Share of the text that is held out for the test."""
    train: tuple[str, ...] = ()
    """Files of the training split, instead of SOURCE."""
    validation: tuple[str, ...] = ()
    """Files of the validation split."""
    test: tuple[str, ...] = ()
    """Files of the test split."""
    errors: Literal["strict", "replace"] = "strict"
    """At bytes that are not UTF-8: stop and say where, or put U+FFFD there."""
    clean: bool = True
    """Unicode NFC, no control characters, plain line ends."""
    duplicates: Literal["near", "exact", "keep"] = "near"
    """Which duplicate documents to remove: near (and exact ones), exact, or none."""
    near_threshold: float = 0.8
    """Jaccard similarity from which documents are near-duplicates."""
    remove_leaks: bool = False
    """Remove from --train what is also in --validation or --test."""
    tokenizer_sample_bytes: int | None = None
    """Learn bpe merges from at most this much text, spread over all of it; by default 2 kB for each entry of the
    vocabulary, at least 16 MB."""
    workers: int | None = None
    """Processes to use; by default one per core, at most 4, and none for small input."""
    data_dir: Path | None = None
    """Where the files of named data sets are."""
    dry_run: bool = False
    """Print what would be done and stop."""


def run(arguments: Arguments) -> int:
    names = {field.name for field in dataclasses.fields(PrepareConfig)}
    config = PrepareConfig(**{name: getattr(arguments, name) for name in names})
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
        check_output(config.out)
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
