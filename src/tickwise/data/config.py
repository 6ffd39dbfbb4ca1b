"""How text becomes data: the settings of a preparation."""

import dataclasses
from pathlib import Path
from typing import Literal

from tickwise.core.errors import ConfigError
from tickwise.text.sources import InputFormat
from tickwise.tokenizers.train import WordStyle

TokenizerKind = Literal["char", "word", "bpe"]


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
    lowercase: bool = False
    """bpe reads capitals as small letters; what is decoded has none."""
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


def check_vocab_size(vocab_size: int | None) -> None:
    """``ConfigError`` for a vocabulary that leaves nothing to tell apart; ``None`` is not given."""
    if vocab_size is not None and vocab_size < 2:
        raise ConfigError(f"--vocab-size {vocab_size}: must be at least 2")


def check_config(config: PrepareConfig) -> None:
    """``ConfigError`` for settings that contradict or are out of range."""
    held_out = config.validation_fraction + config.test_fraction
    if config.validation_fraction < 0 or config.test_fraction < 0 or held_out >= 1:
        raise ConfigError("--validation-fraction and --test-fraction must not be negative and must leave text to "
                          f"train on (they add up to {held_out:g})")
    if not 0.3 <= config.near_threshold <= 1:
        raise ConfigError(f"--near-threshold {config.near_threshold:g}: must be between 0.3 and 1")
    check_vocab_size(config.vocab_size)
    if config.documents == "":
        raise ConfigError("--documents: the separator is empty; use file, line, paragraph or a string")
    if config.remove_leaks and not config.train:
        raise ConfigError("--remove-leaks is for splits given with --train, --validation and --test; "
                          "splits made here never share documents")
    if config.workers is not None and config.workers < 0:
        raise ConfigError(f"--workers {config.workers}: must be 0 or more")
