"""Raw text to a prepared directory: read, clean, find duplicates, split, tokenize, write."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash

from tickwise.core.config import to_dict
from tickwise.core.errors import ConfigError, DataError
from tickwise.core.paths import atomic_directory
from tickwise.data.prepared import DATASET_FILE, FORMAT_VERSION, PreparedData, SplitInfo, file_hash
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import WordStyle, train_tokenizer


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """How text becomes data. ``sources`` are files, folders, named data sets or ``-`` for standard input."""

    sources: tuple[str, ...] = ()
    out: Path | None = None
    tokenizer: Literal["char", "word", "bpe"] = "bpe"
    vocab_size: int | None = None
    min_frequency: int = 2
    unknown: bool = False
    word_style: WordStyle = "natural"
    tokenizer_from: Path | None = None
    field: str = "text"
    documents: str = "auto"
    validation_fraction: float = 0.1
    test_fraction: float = 0.0
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    errors: Literal["strict", "replace"] = "strict"


def prepare(config: PrepareConfig) -> PreparedData:
    """Prepare ``config.sources`` into the folder ``config.out`` and open it."""
    if config.out is None:
        raise ConfigError("prepare: say where to write with --out DIR")
    if len(config.sources) != 1:
        raise ConfigError("prepare: one text file for now")
    file = Path(config.sources[0])
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    text = file.read_text(encoding="utf-8")
    if not text:
        raise DataError(f"{file}: empty; give a file with text")
    if config.tokenizer_from is not None:
        tokenizer = Tokenizer.load(config.tokenizer_from)
    else:
        tokenizer = train_tokenizer(
            config.tokenizer, iter([text]), vocab_size=config.vocab_size, min_frequency=config.min_frequency,
            end_of_text=config.tokenizer != "char", unknown=config.unknown, word_style=config.word_style,
        )
    first = int(len(text) * (1 - config.validation_fraction - config.test_fraction))
    second = int(len(text) * (1 - config.test_fraction))
    parts = {"train": text[:first], "validation": text[first:second], "test": text[second:]}
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    with atomic_directory(config.out) as folder:
        splits: dict[str, Any] = {}
        for name, part in parts.items():
            ids = np.asarray(tokenizer.encode(part), dtype=dtype)
            ids.tofile(folder / f"{name}.bin")
            starts = np.zeros(1 if part else 0, dtype=np.uint64)
            np.save(folder / f"{name}.documents.npy", starts, allow_pickle=False)
            splits[name] = dataclasses.asdict(SplitInfo(
                tokens=len(ids), documents=len(starts), bytes=len(part.encode()), words=len(part.split()),
                chinese_characters=0, max_id=int(ids.max(initial=0)), xxh3_128=file_hash(folder / f"{name}.bin"),
            ))
        tokenizer.save(folder)
        (folder / DATASET_FILE).write_text(json.dumps({
            "format_version": FORMAT_VERSION, "tokenizer_kind": tokenizer.kind,
            "tokenizer_fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size,
            "dtype": f"uint{dtype.itemsize * 8}", "splits": splits,
            "sources": [{"path": str(file), "bytes": file.stat().st_size, "xxh3_128": file_hash(file)}],
            "settings": to_dict(config), "duplicates": {},
        }, indent=2) + "\n")
    return PreparedData.open(config.out)


def open_or_prepare(source: Path | str, config: PrepareConfig) -> PreparedData:
    """``source`` as prepared data: a prepared directory is opened, anything else is prepared in the cache."""
    from tickwise.core.paths import cache_directory

    path = Path(source)
    if (path / DATASET_FILE).is_file():
        return PreparedData.open(path)
    key = xxhash.xxh3_128_hexdigest(f"{path.resolve()}{path.stat()}{config}".encode()) if path.exists() else "none"
    out = cache_directory() / "data" / key
    if (out / DATASET_FILE).is_file():
        return PreparedData.open(out)
    return prepare(dataclasses.replace(config, sources=(str(source),), out=out))


__all__: Sequence[str] = ["PrepareConfig", "open_or_prepare", "prepare"]
