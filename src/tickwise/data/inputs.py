"""What the user named, as streams of chunks: files, folders, standard input, named data sets."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import xxhash

from tickwise.core.errors import ConfigError, DataError
from tickwise.data.prepared import DATASET_FILE, file_hash
from tickwise.text.sources import (
    CHUNK_BYTES,
    STANDARD_INPUT,
    Chunk,
    ChunkReader,
    ReadSettings,
    SourceRead,
    find_files,
    format_of,
)
from tickwise.tokenizers.tokenizer import END_OF_TEXT


class Chunks(Protocol):
    """Iterable once; afterwards ``sources`` says what was read."""

    sources: list[SourceRead]

    def __iter__(self) -> Iterator[Chunk]: ...


@dataclasses.dataclass(frozen=True)
class Input:
    """One stream. split: its number when it is all of one split; contiguous: it is text to be kept in its order;
    files: where it comes from on disk (empty for standard input); published: it is a named data set, whose name says
    what is in it."""

    name: str
    chunks: Chunks
    read: ReadSettings
    contiguous: bool
    split: int
    files: tuple[str, ...]
    published: bool = False


def find_inputs(
    sources: Sequence[str], given: tuple[Sequence[str], Sequence[str], Sequence[str]], read: ReadSettings,
    data_dir: Path | None,
) -> list[Input]:
    """One input to be split, or one for each split that is given.

    Raises ``DataError`` for what does not exist, ``ConfigError`` when both or neither are given.
    """
    if sources and any(given):
        raise ConfigError("give either SOURCE or --train/--validation/--test, not both")
    if any(given):
        if not given[0]:
            raise ConfigError("--validation and --test need --train beside them")
        return [_files_input(files, read, split) for split, files in enumerate(given) if files]
    if not sources:
        raise ConfigError("say what to prepare: a file, a folder, '-' for standard input, or a name of "
                          "tickwise data ls")
    for source in sources:
        if (Path(source) / DATASET_FILE).is_file():
            raise DataError(f"{source}: is prepared already; give the text it was made from")
        if _is_model_or_run(Path(source)):
            raise DataError(f"{source}: is the directory of a model or of a training run, not data; give the text it "
                            "was trained on, or the folder of prepared data")
    if len(sources) == 1 and sources[0] != STANDARD_INPUT and not Path(sources[0]).exists():
        from tickwise.data.catalogue import find, inputs_of

        entry = find(sources[0])
        if entry is not None:
            return inputs_of(entry, read, data_dir)
    return [_files_input(sources, read, 0)]


def _is_model_or_run(path: Path) -> bool:
    is_run = (path / "run.json").is_file() and (path / "metrics.jsonl").is_file()
    return is_run or ((path / "config.json").is_file() and any(path.glob("*.safetensors*")))


def _files_input(sources: Sequence[str], read: ReadSettings, split: int) -> Input:
    files = find_files(sources)
    formats = {
        (format_of(file) or "text") if read.input_format == "auto" else read.input_format for file in files
    }
    contiguous = False
    if read.documents == "auto":
        single_text = len(files) == 1 and formats == {"text"}
        if single_text and _has_end_marks(files[0]):
            read = dataclasses.replace(read, documents=END_OF_TEXT)
        else:
            read = dataclasses.replace(read, documents="file")
            contiguous = single_text
    return Input(", ".join(sources), ChunkReader(files, read), read, contiguous, split, tuple(files))


def _has_end_marks(file: str) -> bool:
    if file == STANDARD_INPUT or not Path(file).is_file() or file.endswith(".gz"):
        return False
    try:
        with open(file, "rb") as stream:
            return END_OF_TEXT.encode() in stream.read(CHUNK_BYTES)
    except OSError:
        return False  # reading it will say why


def total_bytes(inputs: Sequence[Input]) -> int | None:
    """Size on disk, None when standard input, a pipe or a compressed file makes the text's size unknown."""
    total = 0
    for one in inputs:
        if not one.files or any(file == STANDARD_INPUT or file.endswith(".gz") or not Path(file).is_file()
                                for file in one.files):
            return None
        total += sum(Path(file).stat().st_size for file in one.files)
    return total


def input_hash(inputs: Sequence[Input]) -> str | None:
    """Hash of the content of all files, None when there is one that cannot be read twice."""
    digest = xxhash.xxh3_128()
    for one in inputs:
        if one.published and not one.files:
            digest.update(f"{one.split} {one.name}".encode())
            continue
        if not one.files or any(not Path(file).is_file() for file in one.files):
            return None
        for file in one.files:
            try:
                digest.update(f"{one.split} {Path(file).name} {file_hash(Path(file))}".encode())
            except OSError as problem:
                raise DataError(f"{file}: cannot read it: {problem.strerror}") from None
    return digest.hexdigest()
