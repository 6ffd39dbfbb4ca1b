"""A prepared data directory: memory-mapped token files with their tokenizer and a table of contents.

Layout: ``dataset.json``, ``tokenizer.json``, ``tokenizer_config.json``, and for each split ``<split>.bin``
(token ids, little-endian uint16 or uint32, nothing else) and ``<split>.documents.npy`` (uint64, the token
offset at which each document starts).
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from tickwise.core.config import from_dict, read_json
from tickwise.core.errors import ConfigError, DataError
from tickwise.tokenizers.tokenizer import Tokenizer

DATASET_FILE = "dataset.json"
FORMAT_VERSION = 1
SPLIT_NAMES = ("train", "validation", "test")
_READ_BLOCK_BYTES = 1 << 24


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """What ``dataset.json`` says about one split. ``bytes`` are UTF-8 bytes of text without end marks;
    ``words`` are whitespace-separated, where each Han character counts as one (``chinese_characters`` of them)."""

    tokens: int
    documents: int
    bytes: int
    words: int
    chinese_characters: int
    max_id: int
    xxh3_128: str


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """One input file: its size on disk and xxh3-128 (of standard input: of what was read)."""

    path: str
    bytes: int
    xxh3_128: str


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The content of ``dataset.json``."""

    format_version: int
    tokenizer_kind: str
    tokenizer_fingerprint: str
    vocab_size: int
    dtype: str
    splits: dict[str, Any]
    sources: tuple[SourceInfo, ...]
    settings: dict[str, Any]
    duplicates: dict[str, Any]
    cleaning: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TokenSplit:
    """The tokens of one split, read from disk as they are used.

    tokens: (n,) uint16 or uint32 ids; document_starts: (documents,) uint64 offsets into ``tokens``;
    n_bytes, n_words: UTF-8 bytes and words of the text, for bits per byte and perplexity per word.
    """

    name: str
    tokens: npt.NDArray[Any]
    document_starts: npt.NDArray[np.uint64]
    n_bytes: int
    n_words: int
    vocab_size: int

    def __len__(self) -> int:
        return len(self.tokens)


class PreparedData:
    """A prepared directory, opened. ``splits`` are the names of those that have tokens."""

    def __init__(self, path: Path, info: DatasetInfo, splits: dict[str, SplitInfo], tokenizer: Tokenizer) -> None:
        self.path = path
        self.info = info
        self.split_info = splits
        self.tokenizer = tokenizer

    @classmethod
    def open(cls, path: Path | str) -> "PreparedData":
        """Open and validate without reading the tokens: versions, sizes, the tokenizer's fingerprint and the
        largest id. ``verify`` reads everything.

        Raises ``DataError`` (``CheckpointError`` for the tokenizer) in one line.
        """
        path = Path(path)
        if not path.is_dir():
            raise DataError(f"{path}: no such folder; make it with: tickwise data prepare SOURCE --out {path}")
        values = read_json(path / DATASET_FILE, "the data description", DataError)
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise DataError(f"{path}: prepared data of format {version}, this version reads {FORMAT_VERSION}; "
                            "prepare the data again")
        try:
            info = from_dict(DatasetInfo, values, where=str(path / DATASET_FILE))
            splits = {
                name: from_dict(SplitInfo, value, where=f"{path / DATASET_FILE}.splits.{name}")
                for name, value in info.splits.items()
            }
        except ConfigError as problem:
            raise DataError(f"{problem}; prepare the data again") from None
        if info.dtype not in ("uint16", "uint32"):
            raise DataError(f"{path}: token type {info.dtype!r} is not uint16 or uint32; prepare the data again")
        tokenizer = Tokenizer.load(path)
        if tokenizer.fingerprint != info.tokenizer_fingerprint:
            raise DataError(f"{path}: tokenizer.json is not the one that made these tokens; prepare the data again")
        for name, split in splits.items():
            _check_split(path, name, split, info, tokenizer.vocab_size)
        return cls(path, info, splits, tokenizer)

    @property
    def splits(self) -> Sequence[str]:
        return [name for name in SPLIT_NAMES if name in self.split_info and self.split_info[name].tokens]

    @property
    def fingerprint(self) -> str:
        """Changes when any token or the tokenizer changes."""
        digest = xxhash.xxh3_128(self.info.tokenizer_fingerprint.encode())
        for name in SPLIT_NAMES:
            if name in self.split_info:
                digest.update(f"{name}:{self.split_info[name].xxh3_128}".encode())
        return digest.hexdigest()

    def split(self, name: str) -> TokenSplit:
        """``train``, ``validation`` or ``test``; ``DataError`` when it is absent or has no tokens."""
        if name not in self.splits:
            has = ", ".join(self.splits) or "nothing"
            raise DataError(f"{self.path}: no {name} split (it has {has}); prepare it with --{name}-fraction or "
                            f"--{name} FILE")
        return self._load(name)

    @functools.lru_cache(maxsize=3)  # noqa: B019 - one small record per split, as long-lived as the data set
    def _load(self, name: str) -> TokenSplit:
        info = self.split_info[name]
        return TokenSplit(
            name=name,
            tokens=np.memmap(self.path / f"{name}.bin", dtype=np.dtype(self.info.dtype).newbyteorder("<"), mode="r"),
            document_starts=np.load(self.path / f"{name}.documents.npy", mmap_mode="r", allow_pickle=False),
            n_bytes=info.bytes,
            n_words=info.words,
            vocab_size=self.tokenizer.vocab_size,
        )

    def verify(self) -> None:
        """Read every token file and compare it with its recorded hash; ``DataError`` if one differs."""
        for name, info in self.split_info.items():
            if file_hash(self.path / f"{name}.bin") != info.xxh3_128:
                raise DataError(f"{self.path / f'{name}.bin'}: changed since it was prepared; prepare the data again")


def _check_split(path: Path, name: str, split: SplitInfo, info: DatasetInfo, vocab_size: int) -> None:
    file = path / f"{name}.bin"
    if not file.is_file():
        raise DataError(f"{file}: missing; prepare the data again")
    expected = split.tokens * np.dtype(info.dtype).itemsize
    if file.stat().st_size != expected:
        raise DataError(f"{file}: {file.stat().st_size} bytes, but {expected} were written (cut off?); "
                        "prepare the data again")
    if split.max_id >= vocab_size:
        raise DataError(f"{file}: token id {split.max_id} is outside the vocabulary of {vocab_size}; "
                        "prepare the data again")
    starts = path / f"{name}.documents.npy"
    try:
        offsets = np.load(starts, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        raise DataError(f"{starts}: missing or not readable; prepare the data again") from None
    if offsets.dtype != np.uint64 or offsets.shape != (split.documents,):
        raise DataError(f"{starts}: does not list the {split.documents} documents; prepare the data again")


def file_hash(path: Path) -> str:
    """xxh3-128 of a file's bytes, in hexadecimal, read in blocks."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_READ_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
