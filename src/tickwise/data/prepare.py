"""Raw text to a prepared directory, in two passes and bounded memory.

Pass 1 (``scan``): workers clean chunks of the input and hash their documents; the clean text goes to a spool file
beside the output. Then duplicates are grouped, documents get their splits and the tokenizer is trained.
Pass 2 (``encode``): workers turn blocks of the spool into ids, which are appended to the token files in order.
"""

import contextlib
import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xxhash

from tickwise.core import console
from tickwise.core.config import to_dict
from tickwise.core.device import usable_cores
from tickwise.core.errors import ConfigError, DataError, OutputError
from tickwise.core.paths import atomic_directory, cache_directory, remove_temporaries
from tickwise.data import splits as split_rules
from tickwise.data.inputs import Input, find_inputs, input_hash, total_bytes
from tickwise.data.jobs import DROPPED, chunk_message
from tickwise.data.prepared import DATASET_FILE, FORMAT_VERSION, SPLIT_NAMES, PreparedData
from tickwise.data.spool import Spool
from tickwise.data.workers import Message, Workers
from tickwise.data.writer import SplitWriter
from tickwise.text.duplicates import Groups, TextPairs, exact_groups, near_groups
from tickwise.text.sources import InputFormat, ReadSettings, format_of
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import DEFAULT_BPE_VOCABULARY, WordStyle, char_tokenizer, train_tokenizer

TokenizerKind = Literal["char", "word", "bpe"]
DEFAULT_CONTEXT = 256  # of tickwise train
_RULES_VERSION = 2  # changes when the same text and settings give other data; what is in the cache is made again then
_WORKERS_FROM_BYTES = 8_000_000  # below this, starting processes takes longer than the work
# Frequencies of merges that occur hundreds of times in the sample are known to a few per cent.
_SAMPLE_BYTES_PER_ENTRY = 2_000
_LEAST_SAMPLE_BYTES = 16_000_000
_MOST_WORKERS = 4  # each takes about 150 MB


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """How text becomes data. Given are ``sources``, or else the splits as files of their own."""

    sources: tuple[str, ...] = ()
    """Files or folders of them (.txt .text .md .jsonl .ndjson .json .csv .tsv .parquet, also .gz), - for standard
    input, or a data set's name."""
    out: Path | None = None
    """The folder to make."""
    tokenizer: TokenizerKind = "bpe"
    """char, word (English and Chinese) or byte-level bpe."""
    vocab_size: int | None = None
    """Most entries of the vocabulary; bpe takes 8192 when left out."""
    min_frequency: int = 2
    """A word or merge that is rarer is left out."""
    unknown: bool = False
    """Give a char vocabulary an <unk> for characters that it has not seen."""
    word_style: WordStyle = "natural"
    """spaces: the text is tokenized already, its tokens separated by spaces (WikiText, Penn Treebank)."""
    tokenizer_from: Path | None = None
    """Use the tokenizer of this folder (a model, or prepared data) instead of training one."""
    field: str = "text"
    """The key or column that holds the text."""
    input_format: InputFormat = "auto"
    """What the sources are, when their names do not say it."""
    documents: str = "auto"
    """What a document is in a text file: file, line, paragraph, or the string that separates them. auto: one file is
    one document in its order (the first part trains, the last validates), or those between its <|endoftext|> marks;
    of many files each is a document."""
    validation_fraction: float = 0.1
    """Share held out for validation: of the characters of one text in its order, else of the documents."""
    test_fraction: float = 0.0
    """Share held out for the test."""
    train: tuple[str, ...] = ()
    """Files of the training split, instead of sources."""
    validation: tuple[str, ...] = ()
    """Files of the validation split."""
    test: tuple[str, ...] = ()
    """Files of the test split."""
    errors: Literal["strict", "replace"] = "strict"
    """At bytes that are not UTF-8: stop and say where, or put U+FFFD there."""
    clean: bool = True
    """Unicode NFC, no control characters, plain line ends (not with word style spaces)."""
    duplicates: Literal["near", "exact", "keep"] = "near"
    """Which duplicate documents to remove: near (and exact ones), exact, or none. Whatever is kept, copies go to the
    same split. Of one text in its order only those paragraphs (of 64 bytes or more) are removed from validation and
    test that an earlier split has; with keep it stays whole."""
    near_threshold: float = 0.8
    """Jaccard similarity of shingles from which documents are near-duplicates."""
    remove_leaks: bool = False
    """Remove from the training files what is also in the validation or test files."""
    tokenizer_sample_bytes: int | None = None
    """Learn bpe merges from at most this much text, spread over all of it; by default 2 kB for each entry of the
    vocabulary, at least 16 MB."""
    workers: int | None = None
    """Processes to use; by default one per core, at most 4, and none for small input."""
    data_dir: Path | None = None
    """Where the files of named data sets are."""
    overwrite: bool = False
    """Replace prepared data that is in the folder already."""


def prepare(config: PrepareConfig) -> PreparedData:
    """Prepare into ``config.out`` and open it. Nothing is left there when it fails or is interrupted.

    Raises ``ConfigError``, ``DataError`` or ``OutputError`` in one line. A prepared folder is replaced with
    ``overwrite`` only.
    """
    check_config(config)
    out = check_output(config.out, config.overwrite)
    read = ReadSettings(config.documents, config.field, config.errors, config.input_format)
    inputs = find_inputs(config.sources, (config.train, config.validation, config.test), read, config.data_dir)
    with contextlib.suppress(OSError):  # left by killed runs, as large as the text; often there is no folder yet
        remove_temporaries(out.parent)
    return _Preparation(config, inputs).run(out)


def check_config(config: PrepareConfig) -> None:
    """``ConfigError`` for settings that contradict or are out of range."""
    held_out = config.validation_fraction + config.test_fraction
    if config.validation_fraction < 0 or config.test_fraction < 0 or held_out >= 1:
        raise ConfigError("--validation-fraction and --test-fraction must not be negative and must leave text to "
                          f"train on (they add up to {held_out:g})")
    if not 0.3 <= config.near_threshold <= 1:
        raise ConfigError(f"--near-threshold {config.near_threshold:g}: must be between 0.3 and 1")
    if config.vocab_size is not None and config.vocab_size < 2:
        raise ConfigError(f"--vocab-size {config.vocab_size}: must be at least 2")
    if config.documents == "":
        raise ConfigError("--documents: the separator is empty; use file, line, paragraph or a string")
    if config.remove_leaks and not config.train:
        raise ConfigError("--remove-leaks is for splits given with --train, --validation and --test; "
                          "splits made here never share documents")
    if config.workers is not None and config.workers < 0:
        raise ConfigError(f"--workers {config.workers}: must be 0 or more")


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
        self.n_workers = config.workers
        if self.n_workers is None:
            self.n_workers = min(usable_cores(), _MOST_WORKERS) if large else 0
        # Text that was tokenized by someone else is counted by others too: not a character may change.
        self.cleans = config.clean and config.word_style == "natural"
        self.duplicates: dict[str, Any] = {}

    def run(self, out: Path) -> PreparedData:
        with atomic_directory(out) as folder, contextlib.ExitStack() as cleanup:
            spool = Spool(folder / "spool", units_are_documents=not self.contiguous)
            cleanup.callback(shutil.rmtree, folder / "spool", ignore_errors=True)
            cleanup.callback(spool.close)
            bounds = self.scan(spool)
            spool.finish()
            document_splits = self.assign(spool, bounds)
            tokenizer = self.make_tokenizer(spool, document_splits)
            tokenizer.save(folder)
            infos = self.encode(spool, document_splits, tokenizer, folder)
            self.describe(spool, tokenizer, infos, folder)
        self._tell(out, infos)
        return PreparedData.open(out)

    def _origin(self) -> str:
        return ", ".join(one.name for one in self.inputs)

    # ---------------------------------------------------------------- pass 1

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
                with Workers("tickwise.data.jobs:scan", settings, self.n_workers or 0) as workers:
                    for scanned in workers.map(map(chunk_message, one.chunks)):
                        spool.append(scanned)
                        visible |= scanned["visible"]
                        bar.advance(scanned["n_read"])
                if not visible:
                    raise DataError(f"{one.name}: no text in it after cleaning, at most blank lines; give a file "
                                    "with text")
                bounds.append(spool.n_units if not self.contiguous else spool.n_bytes)
        return bounds

    # ---------------------------------------------------------------- duplicates and splits

    def assign(self, spool: Spool, bounds: list[int]) -> npt.NDArray[np.uint8]:
        """The split number of every document, ``DROPPED`` for those removed."""
        config = self.config
        exact = exact_groups(spool.hashes)
        with Workers("tickwise.data.jobs:compare", {}, self.n_workers or 0) as workers:

            def similarities(pairs: Iterator[TextPairs]) -> Iterator[npt.NDArray[np.float64]]:
                for answer in workers.map({"first": first, "second": second} for first, second in pairs):
                    yield answer["similarities"]

            groups = near_groups(exact, spool.bands, config.near_threshold, spool.unit_text, similarities)
        self.duplicates = {
            "unit": "paragraph" if self.contiguous else "document",
            "units": len(spool.hashes),
            "exact": groups.exact_duplicates,
            "near": groups.near_duplicates,
            "near_threshold": config.near_threshold,
            "removed": 0,
        }
        if self.contiguous:
            return self._assign_in_order(spool, exact, groups, bounds)
        if self.given_splits:
            numbers = np.array([one.split for one in self.inputs], dtype=np.uint8)
            splits = np.repeat(numbers, np.diff(bounds, prepend=0))
            self.duplicates["leaks"] = split_rules.count_leaks(groups, splits)
        else:
            # Groups stay together, so what is removed does not depend on the splits.
            sizes = np.where(self._kept(exact, groups, np.zeros(len(spool.hashes), dtype=np.uint8)), spool.lengths, 0)
            splits = split_rules.assign_by_hash(
                spool.hashes, groups, sizes, config.validation_fraction, config.test_fraction
            )
        result = np.where(self._kept(exact, groups, splits), splits, np.uint8(DROPPED))
        if config.remove_leaks:
            result[split_rules.leaking_train_documents(groups, splits)] = DROPPED
        self.duplicates["removed"] = int(np.count_nonzero(result == DROPPED))
        return result

    def _kept(self, exact: Groups, groups: Groups, splits: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """(documents,) whether each stays, being no duplicate inside its split of those to remove."""
        if self.config.duplicates == "keep":
            return np.ones(len(splits), dtype=bool)
        removed = exact if self.config.duplicates == "exact" else groups
        return split_rules.first_of_group_in_split(removed, splits)

    def _assign_in_order(
        self, spool: Spool, exact: Groups, groups: Groups, bounds: list[int]
    ) -> npt.NDArray[np.uint8]:
        """Cut the text where the fractions say, or where the given files end; the splits of the pieces."""
        config = self.config
        if config.remove_leaks:
            raise ConfigError("--remove-leaks needs documents to remove; add --documents line or paragraph")
        if self.given_splits:
            splits = np.array([one.split for one in self.inputs], dtype=np.uint8)
            cuts = np.array(bounds)
        else:
            n = spool.n_characters
            # A text of a character or two still has something to train on.
            first = max(1, int(n * (1 - config.validation_fraction - config.test_fraction)))
            second = max(first, int(n * (1 - config.test_fraction)))
            splits = np.array([0, 1, 2], dtype=np.uint8)
            cuts = np.array([*(spool.byte_of_character(cut) if cut < n else spool.n_bytes for cut in (first, second)),
                             spool.n_bytes])
        unit_splits = splits[np.minimum(np.searchsorted(cuts, spool.unit_offsets, side="right"), len(cuts) - 1)]
        if self.given_splits or config.duplicates == "keep":
            lengths, result, ends = np.diff(cuts, prepend=0), splits, np.ones(len(cuts), dtype=np.uint8)
        else:
            removed = exact if config.duplicates == "exact" else groups
            lengths, result, ends = self._without_leaks(spool, removed, unit_splits, cuts)
        self.duplicates["leaks"] = split_rules.count_leaks(groups, unit_splits)
        spool.divide(lengths, ends)
        return np.where(lengths == 0, np.uint8(DROPPED), result)

    def _without_leaks(
        self, spool: Spool, groups: Groups, unit_splits: npt.NDArray[np.uint8], cuts: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Pieces of the text, where paragraphs of validation and test that an earlier split has are pieces to drop:
        (lengths in bytes, splits, whether each is the last of its split). Marks the paragraphs in ``unit_splits``."""
        stops = spool.unit_offsets + spool.unit_lengths
        lengths, numbers, ends = [cuts[:1]], [np.array([split_rules.TRAIN])], [np.array([1])]
        self.duplicates["removed_from"] = {}
        for split in (split_rules.VALIDATION, split_rules.TEST):
            begin, end = cuts[split - 1 : split + 1]
            units = slice(*(int(n) for n in (np.searchsorted(stops, begin, side="right"),
                                             np.searchsorted(spool.unit_offsets, end))))
            leaks = split_rules.in_earlier_split(groups, unit_splits, units, split)
            remove = leaks & (spool.unit_lengths[units] >= split_rules.LEAST_LEAK_BYTES)
            if remove.any() and leaks.all():
                raise DataError(f"{self._origin()}: all of its {SPLIT_NAMES[split]} part is also in the text before "
                                "it, so nothing new would be left of it; prepare it with --documents paragraph, which "
                                "splits it without copies (or with --duplicates keep)")
            spans = split_rules.spans_to_remove(
                remove, spool.unit_offsets[units], stops[units], int(begin), int(end)
            )
            pieces = np.diff(np.concatenate([[begin], spans.reshape(-1), [end]]))
            number = np.full(len(pieces), split)
            number[1::2] = DROPPED
            last = np.zeros(len(pieces))
            last[np.flatnonzero((number == split) & (pieces > 0))[-1:]] = 1
            lengths, numbers, ends = [*lengths, pieces], [*numbers, number], [*ends, last]
            inside = remove & (unit_splits[units] == split)
            unit_splits[units][inside] = DROPPED
            self.duplicates["removed"] += int(remove.sum())
            self.duplicates["removed_from"][SPLIT_NAMES[split]] = {
                "paragraphs": int(remove.sum()), "bytes": int(pieces[1::2].sum())
            }
        return (np.concatenate(lengths), np.concatenate(numbers).astype(np.uint8),
                np.concatenate(ends).astype(np.uint8))

    # ---------------------------------------------------------------- tokenizer

    def make_tokenizer(self, spool: Spool, splits: npt.NDArray[np.uint8]) -> Tokenizer:
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
        )

    # ---------------------------------------------------------------- pass 2

    def encode(
        self, spool: Spool, splits: npt.NDArray[np.uint8], tokenizer: Tokenizer, folder: Path
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
                Workers("tickwise.data.jobs:encode", settings, self.n_workers or 0) as workers,
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
        self, spool: Spool, tokenizer: Tokenizer, infos: dict[str, dict[str, Any]], folder: Path
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
            "duplicates": self.duplicates,
            "cleaning": {"characters_removed": spool.removed, "pieces_normalised": spool.normalised},
        }
        (folder / DATASET_FILE).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    def _tell(self, out: Path, infos: dict[str, dict[str, Any]]) -> None:
        found = self.duplicates
        console.say(f"{found['units']} {found['unit']}s: {found['exact']} exact duplicates, {found['near']} near, "
                    f"{found['removed']} removed" + (" (one text keeps its order)" if self.contiguous else ""))
        for name, removed in found.get("removed_from", {}).items():
            if removed["paragraphs"]:
                console.say(f"{name}: {removed['paragraphs']} paragraphs ({removed['bytes']} bytes) removed, because "
                            "the text before it has them too")
        for name, leaks in found.get("leaks", {}).items():
            if leaks and "removed_from" in found and self.config.duplicates == "near":
                console.say(f"{name}: {leaks} paragraphs of less than {split_rules.LEAST_LEAK_BYTES} bytes are also "
                            "in train and stay")
            elif leaks:
                remedy = "--remove-leaks" if self.given_splits and not self.contiguous else "--documents paragraph"
                console.say(f"{name}: {leaks} {found['unit']}s are also in train; {remedy} avoids that")
        asked = {"train": 1.0, "validation": self.config.validation_fraction, "test": self.config.test_fraction}
        n_bytes = sum(info["bytes"] for info in infos.values())
        for name, info in infos.items():
            if info["tokens"]:
                short = name != "train" and info["tokens"] <= DEFAULT_CONTEXT
                console.say(f"{name}: {info['tokens']} tokens, {info['documents']} documents, {info['bytes']} bytes"
                            + (f" (no more than a context of {DEFAULT_CONTEXT}: its loss will say little)" if short
                               else ""))
            elif asked[name] > 0 and not self.given_splits:
                console.say(f"{name}: empty, there is too little text for it")
            if info["tokens"] and name != "train" and not self.given_splits and not self.contiguous:
                self._tell_share(name, info["bytes"] / n_bytes, asked[name])
        console.note(f"written to {out}")


    def _tell_share(self, name: str, share: float, asked: float) -> None:
        """Say when whole documents do not make the share that was asked for, even by half."""
        if abs(share - asked) <= asked / 2:
            return
        files = self.inputs[0].files
        are_texts = self.inputs[0].read.documents == "file" and all((format_of(file) or "text") == "text"
                                                                    for file in files)
        remedy = "--documents paragraph (or line) makes smaller ones" if are_texts else "more documents come nearer"
        console.say(f"{name}: {100 * share:.1f} % of the text instead of {100 * asked:g} %, because documents are not "
                    f"cut; {remedy}")


def token_type(vocab_size: int) -> np.dtype[Any]:
    """Little-endian uint16 if every id fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _training_texts(spool: Spool, splits: npt.NDArray[np.uint8], share: float) -> Iterator[str]:
    """Training text, block by block; of a ``share`` below 1 that part of the blocks, evenly spread."""
    due = 0.0
    for block in spool.blocks(splits):
        due += share
        if due < 1:
            continue
        due -= 1
        offset = 0
        for length, split in zip(block["lengths"].tolist(), block["splits"].tolist(), strict=True):
            if split == split_rules.TRAIN:
                yield block["text"][offset : offset + length].decode()
            offset += length


def open_or_prepare(source: Path | str, config: PrepareConfig) -> PreparedData:
    """``source`` as prepared data: a prepared folder is opened; a raw file, a folder of them or a named data set is
    prepared in the cache (once for the same content and settings).

    ``config.sources`` and ``config.out`` are ignored.
    """
    path = Path(source)
    if (path / DATASET_FILE).is_file():
        return PreparedData.open(path)
    config = dataclasses.replace(config, sources=(str(source),), out=None)
    check_config(config)
    read = ReadSettings(config.documents, config.field, config.errors, config.input_format)
    inputs = find_inputs(config.sources, ((), (), ()), read, config.data_dir)
    content = input_hash(inputs)
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
    read = ReadSettings(config.documents, config.field, config.errors, config.input_format)
    inputs = find_inputs(config.sources, (config.train, config.validation, config.test), read, config.data_dir)
    return {
        "files": [file for one in inputs for file in one.files],
        "input_bytes": total_bytes(inputs),
        "documents": "one text in its order" if all(one.contiguous for one in inputs) else inputs[0].read.documents,
    }
