"""Raw text to a prepared directory, in two passes and bounded memory.

Pass 1 (``scan``): workers clean chunks of the input and hash their documents; the clean text goes to a spool file
beside the output. Then documents get their splits (``assignment``) and the tokenizer is trained.
Pass 2 (``encode``): workers turn blocks of the spool into ids, which are appended to the token files in order.
"""

import contextlib
import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from tickwise.core import console
from tickwise.core.config import to_dict
from tickwise.core.device import usable_cores
from tickwise.core.errors import ConfigError, DataError, OutputError
from tickwise.core.paths import atomic_directory, cache_directory, remove_temporaries
from tickwise.data.assignment import Assignment, Splits, assign
from tickwise.data.config import PrepareConfig, check_config
from tickwise.data.inputs import Input, find_inputs, input_hash, total_bytes
from tickwise.data.jobs import chunk_message
from tickwise.data.prepared import DATASET_FILE, FORMAT_VERSION, SPLIT_NAMES, PreparedData
from tickwise.data.remarks import remarks
from tickwise.data.splits import TRAIN
from tickwise.data.spool import Spool
from tickwise.data.workers import Message, Workers
from tickwise.data.writer import SplitWriter
from tickwise.text.sources import ReadSettings
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import DEFAULT_BPE_VOCABULARY, char_tokenizer, train_tokenizer

_RULES_VERSION = 3  # changes when the same text and settings give other data; what is in the cache is made again then
_WORKERS_FROM_BYTES = 8_000_000  # below this, starting processes takes longer than the work
# Frequencies of merges that occur hundreds of times in the sample are known to a few per cent.
_SAMPLE_BYTES_PER_ENTRY = 2_000
_LEAST_SAMPLE_BYTES = 16_000_000
_MOST_WORKERS = 4  # each takes about 150 MB


def prepare(config: PrepareConfig) -> PreparedData:
    """Prepare into ``config.out`` and open it. Nothing is left there when it fails or is interrupted.

    Raises ``ConfigError``, ``DataError`` or ``OutputError`` in one line. A prepared folder is replaced with
    ``overwrite`` only.
    """
    check_config(config)
    out = check_output(config.out, config.overwrite)
    inputs = _inputs_of(config)
    with contextlib.suppress(OSError):  # left by killed runs, as large as the text; often there is no folder yet
        remove_temporaries(out.parent)
    return _Preparation(config, inputs).run(out)


def _inputs_of(config: PrepareConfig) -> list[Input]:
    read = ReadSettings(config.documents, config.field, config.errors, config.input_format)
    return find_inputs(config.sources, (config.train, config.validation, config.test), read, config.data_dir)


def check_output(out: Path | None, overwrite: bool) -> Path:
    """The output folder; ``OutputError`` if something is there, other than prepared data to ``overwrite``."""
    if out is None:
        raise ConfigError("say where to write: --out DIR")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; choose another --out")
    if (out / DATASET_FILE).is_file():
        if not overwrite:
            raise OutputError(f"{out}: has prepared data in it; replace it with --overwrite or choose another --out")
    elif out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: has other files in it, which would be lost; choose another --out or empty it")
    return out


class _Preparation:
    """One run of ``prepare``, step by step."""

    def __init__(self, config: PrepareConfig, inputs: list[Input]) -> None:
        self.config = config
        self.inputs = inputs
        self.given_splits = bool(config.train or config.validation or config.test) or len(inputs) > 1
        # One text in its order: no marks between documents, duplicates are counted by paragraph.
        self.contiguous = all(one.contiguous for one in inputs)
        self.n_bytes = total_bytes(inputs)
        large = self.n_bytes is None or self.n_bytes >= _WORKERS_FROM_BYTES
        by_default = min(usable_cores(), _MOST_WORKERS) if large else 0
        self.n_workers = by_default if config.workers is None else config.workers
        # Text that was tokenized by someone else is counted by others too: not a character may change.
        self.cleans = config.clean and config.word_style == "natural"

    def run(self, out: Path) -> PreparedData:
        with atomic_directory(out) as folder, contextlib.ExitStack() as cleanup:
            spool = Spool(folder / "spool", units_are_documents=not self.contiguous)
            cleanup.callback(shutil.rmtree, folder / "spool", ignore_errors=True)
            cleanup.callback(spool.close)
            bounds = self.scan(spool)
            spool.finish()
            assignment = assign(
                spool, self.config, bounds=bounds, n_workers=self.n_workers,
                given=[one.split for one in self.inputs] if self.given_splits else None,
                origin=", ".join(one.name for one in self.inputs),
            )  # fmt: skip
            tokenizer = self.make_tokenizer(spool, assignment.splits)
            tokenizer.save(folder)
            infos = self.encode(spool, assignment.splits, tokenizer, folder)
            self.describe(spool, assignment, tokenizer, infos, folder)
        for line in remarks(self.config, self.inputs, assignment.duplicates, infos, self.given_splits):
            console.say(line)
        console.note(f"written to {out}")
        return PreparedData.open(out)

    def scan(self, spool: Spool) -> list[int]:
        """Fill the spool; the number of units at the end of each input."""
        bounds: list[int] = []
        with console.progress("clean", self.n_bytes, "bytes") as bar:
            for one in self.inputs:
                settings = {
                    "read": dataclasses.asdict(one.read), "clean": self.cleans,
                    "paragraphs": self.contiguous,
                    "characters": self.config.tokenizer == "char" and self.config.tokenizer_from is None,
                }
                visible = False
                with Workers("tickwise.data.jobs:scan", settings, self.n_workers) as workers:
                    for scanned in workers.map(map(chunk_message, one.chunks)):
                        spool.append(scanned)
                        visible |= scanned["visible"]
                        bar.advance(scanned["n_read"])
                if not visible:
                    raise DataError(f"{one.name}: no text in it after cleaning, at most blank lines; give a file "
                                    "with text")
                bounds.append(spool.n_units if not self.contiguous else spool.n_bytes)
        return bounds

    def make_tokenizer(self, spool: Spool, splits: Splits) -> Tokenizer:
        """The tokenizer that is given, or one trained on the training documents (``char``: on all characters)."""
        config = self.config
        if config.tokenizer_from is not None:
            given = Tokenizer.load(config.tokenizer_from)
            if given.eos_id is None and not self.contiguous:
                console.say(f"{config.tokenizer_from}: no end-of-text token, so documents follow each other unmarked")
            return given
        end_of_text = not self.contiguous
        if config.tokenizer == "char":
            counts = Counter({chr(point): count for point, count in spool.character_counts.items()})
            return char_tokenizer(
                counts, vocab_size=config.vocab_size, end_of_text=end_of_text, unknown=config.unknown
            )
        share = 1.0
        sample = config.tokenizer_sample_bytes or max(
            _LEAST_SAMPLE_BYTES, _SAMPLE_BYTES_PER_ENTRY * (config.vocab_size or DEFAULT_BPE_VOCABULARY)
        )
        if config.tokenizer == "bpe" and spool.n_bytes > sample:
            share = sample / spool.n_bytes
            console.note(f"tokenizer: merges learnt from {100 * share:.0f} % of the text, spread over it")
        return train_tokenizer(
            config.tokenizer, _training_texts(spool, splits, share), vocab_size=config.vocab_size,
            min_frequency=config.min_frequency, end_of_text=True, word_style=config.word_style,
            lowercase=config.lowercase,
        )

    def encode(
        self, spool: Spool, splits: Splits, tokenizer: Tokenizer, folder: Path
    ) -> dict[str, dict[str, Any]]:
        """Write the token files; per split, what ``dataset.json`` says about it."""
        dtype = token_type(tokenizer.vocab_size)
        settings = {"tokenizer": str(folder), "dtype": dtype.str, "mark_ends": not self.contiguous}
        writers = [SplitWriter(folder, name) for name in SPLIT_NAMES]
        blocks: list[Message] = []

        def sent() -> Iterator[Message]:
            for block in spool.blocks(splits):
                blocks.append({"splits": block["splits"], "ends": block["ends"], "bytes": len(block["text"])})
                yield block

        try:
            with (
                Workers("tickwise.data.jobs:encode", settings, self.n_workers) as workers,
                console.progress("tokenize", spool.n_bytes, "bytes") as bar,
            ):
                for answer in workers.map(sent()):
                    block = blocks.pop(0)
                    for number, writer in enumerate(writers):
                        if f"ids-{number}" in answer:
                            ends = block["ends"][block["splits"] == number].astype(bool)
                            writer.append(
                                answer[f"ids-{number}"], answer[f"counts-{number}"], ends,
                                answer[f"totals-{number}"],
                            )
                    bar.advance(block["bytes"])
            return {
                name: dataclasses.asdict(writer.finish()) for name, writer in zip(SPLIT_NAMES, writers, strict=True)
            }
        finally:
            for writer in writers:
                writer.close()

    def describe(
        self, spool: Spool, assignment: Assignment, tokenizer: Tokenizer, infos: dict[str, dict[str, Any]],
        folder: Path,
    ) -> None:
        """Write ``dataset.json``."""
        settings = to_dict(self.config)
        del settings["out"], settings["workers"], settings["overwrite"]
        settings["clean"] = self.cleans
        settings["documents_are"] = "one text in its order" if self.contiguous else self.inputs[0].read.documents
        content = {
            "format_version": FORMAT_VERSION,
            "tokenizer_kind": tokenizer.kind,
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "dtype": f"uint{8 * token_type(tokenizer.vocab_size).itemsize}",
            "splits": infos,
            "sources": [dataclasses.asdict(source) for one in self.inputs for source in one.chunks.sources],
            "settings": settings,
            "duplicates": assignment.duplicates,
            "cleaning": {"characters_removed": spool.removed, "pieces_normalised": spool.normalised},
        }
        (folder / DATASET_FILE).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def token_type(vocab_size: int) -> np.dtype[Any]:
    """Little-endian uint16 if every id fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _training_texts(spool: Spool, splits: Splits, share: float) -> Iterator[str]:
    """Training text, block by block; of a ``share`` below 1 that part of the blocks, evenly spread."""
    due = 0.0
    for block in spool.blocks(splits):
        due += share
        if due < 1:
            continue
        due -= 1
        offset = 0
        for length, split in zip(block["lengths"].tolist(), block["splits"].tolist(), strict=True):
            if split == TRAIN:
                yield block["text"][offset : offset + length].decode()
            offset += length


def open_or_prepare(source: Path | str, config: PrepareConfig) -> PreparedData:
    """``source`` as prepared data: a prepared folder is opened; a raw file, a folder of them or a named data set is
    prepared in the cache (once for the same content and settings).

    ``config.out``, ``config.sources`` and splits of their own are ignored.
    """
    path = Path(source)
    if (path / DATASET_FILE).is_file():
        return PreparedData.open(path)
    config = dataclasses.replace(config, sources=(str(source),), out=None, train=(), validation=(), test=())
    check_config(config)
    content = input_hash(_inputs_of(config))
    if content is None:  # standard input cannot be read twice
        raise DataError(f"{source}: prepare it first: tickwise data prepare {source} --out DIR")
    settings = to_dict(dataclasses.replace(config, workers=None, data_dir=None, sources=(), overwrite=False))
    identity = f"{FORMAT_VERSION} {_RULES_VERSION} {content} {json.dumps(settings, sort_keys=True)}"
    key = xxhash.xxh3_128_hexdigest(identity.encode())
    out = cache_directory() / "data" / key
    if (out / DATASET_FILE).is_file():
        with contextlib.suppress(DataError):  # a damaged copy is made again
            return PreparedData.open(out)
    console.say(f"{source}: preparing (kept in {out})")
    return prepare(dataclasses.replace(config, out=out, overwrite=True))


def plan(config: PrepareConfig) -> dict[str, Any]:
    """What ``prepare`` would read, without reading it: files, bytes (None when unknown), what a document is."""
    check_config(config)
    inputs = _inputs_of(config)
    return {
        "files": [file for one in inputs for file in one.files],
        "input_bytes": total_bytes(inputs),
        "documents": "one text in its order" if all(one.contiguous for one in inputs) else inputs[0].read.documents,
    }
