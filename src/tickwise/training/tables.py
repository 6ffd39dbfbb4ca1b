"""Models that are counted: from text or prepared data to a model directory, for n-grams and factorised models."""

import math
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray

from tickwise.core.config import read_json, to_dict
from tickwise.core.console import format_count, format_seconds, note, say
from tickwise.core.errors import CheckpointError, ConfigError, OutputError
from tickwise.data.config import PrepareConfig, TokenizerKind
from tickwise.data.prepare import open_or_prepare
from tickwise.data.prepared import PreparedData
from tickwise.interop.directory import CONFIG, save_model
from tickwise.models.factorised import Factorised
from tickwise.models.ngram import Ngram
from tickwise.tokenizers.train import WordStyle
from tickwise.training.factorised import FactorisedSettings, FitProgress, build_factorised
from tickwise.training.ngram import count_ngrams


@dataclass(frozen=True, kw_only=True)
class NgramTrainConfig:
    """How an n-gram model is made."""

    data: Path
    """Prepared directory, text file or folder, or the name of a known data set."""
    out: Path
    """Model directory to make."""
    order: int = 5
    """Words of an n-gram."""
    tokenizer: TokenizerKind = "bpe"
    """Of raw text: char, word or bpe. Prepared data brings its own."""
    word_style: WordStyle = "natural"
    """spaces: the text is tokenized already, its tokens separated by spaces (WikiText, Penn Treebank)."""
    vocab_size: int | None = None
    """Most entries of the vocabulary, for raw text."""
    overwrite: bool = False
    """Replace the model that is there."""


@dataclass(frozen=True, kw_only=True)
class FactorisedTrainConfig(NgramTrainConfig):
    """How a factorised model, and the n-gram model beside it, are made."""

    factors: FactorisedSettings = field(default_factory=FactorisedSettings)


@dataclass(frozen=True, kw_only=True)
class CountedResult:
    """What was made. Perplexities are per token of the validation part; ``None`` without one."""

    out: Path
    n_parameters: int
    seconds: float
    train_tokens: int
    validation_perplexity: float | None
    ngram_validation_perplexity: float | None


def train_ngram(config: NgramTrainConfig) -> CountedResult:
    """Count a modified Kneser–Ney model. Raises a ``UserError`` for bad input and outputs that cannot be written."""
    data = _open(config)
    started = time.perf_counter()
    ngram, _ = _count(config, data)
    found = _perplexity(ngram, data)
    return _save(config, ngram, data, time.perf_counter() - started, found, found)


def train_factorised(config: FactorisedTrainConfig) -> CountedResult:
    """Count, factorise and fit (``training/factorised.py``). The data needs a validation part."""
    data = _open(config)
    if "validation" not in data.splits:
        raise ConfigError(f"{config.data}: no validation part, on which the factors are weighed against the n-grams; "
                          "prepare it with --validation FILE or --validation-fraction")
    started = time.perf_counter()
    ngram, train = _count(config, data)
    counted = _perplexity(ngram, data)
    note(f"n-grams alone: validation perplexity {counted:.2f}")
    module = build_factorised(ngram, train, _tokens(data, "validation"), config.factors, _tell)
    return _save(config, module, data, time.perf_counter() - started, _perplexity(module, data), counted)


def _tell(progress: FitProgress) -> None:
    note(f"fit {progress.step:,} of {progress.n_steps:,} steps, {format_seconds(progress.seconds)}: factors alone have "
         f"a validation perplexity of {math.exp(progress.validation_loss):.1f}")


def _open(config: NgramTrainConfig) -> PreparedData:
    out = config.out
    if out.is_dir() and any(out.iterdir()):
        try:
            kind = str(read_json(out / CONFIG, "", CheckpointError).get("model_type"))
        except CheckpointError:
            kind = ""
        if kind not in ("tickwise-ngram", "tickwise-factorised"):
            raise OutputError(f"{out}: holds something else than a counted model; give another --out")
        if not config.overwrite:
            raise OutputError(f"{out}: holds a model already; replace it with --overwrite, or give another --out")
    elif out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; give a folder to --out")
    data = open_or_prepare(config.data, PrepareConfig(
        tokenizer=config.tokenizer, word_style=config.word_style, vocab_size=config.vocab_size))
    if data.path == config.data and config.vocab_size is not None:
        raise ConfigError(f"{config.data}: prepared data brings its own tokenizer; leave out --vocab-size, or give raw "
                          "text")
    return data


def _tokens(data: PreparedData, split: str) -> NDArray[Any]:
    """The split after an end of text, where the tokenizer has one: what models see before the first token."""
    tokens = numpy.asarray(data.split(split).tokens, dtype=numpy.int64)
    first = data.tokenizer.eos_id
    return tokens if first is None else numpy.concatenate([numpy.array([first], dtype=numpy.int64), tokens])


def _count(config: NgramTrainConfig, data: PreparedData) -> tuple[Ngram, NDArray[Any]]:
    train = _tokens(data, "train")
    started = time.perf_counter()
    ngram = count_ngrams(train, data.tokenizer.vocab_size, order=config.order, boundary=data.tokenizer.eos_id)
    say(f"{format_count(sum(ngram.config.n_ngrams))} n-grams of up to {config.order} words counted in "
        f"{format_seconds(time.perf_counter() - started)}")
    return ngram, train


@torch.no_grad()
def _perplexity(module: Ngram | Factorised, data: PreparedData) -> float | None:
    if "validation" not in data.splits:
        return None
    tokens = torch.from_numpy(_tokens(data, "validation"))
    if len(tokens) < 2:
        return None
    return math.exp(-float(module.target_log_probabilities(tokens).double().mean()))


def _save(config: NgramTrainConfig, module: Ngram | Factorised, data: PreparedData, seconds: float,
          perplexity: float | None, ngram_perplexity: float | None) -> CountedResult:
    result = CountedResult(
        out=config.out, n_parameters=module.n_parameters(), seconds=seconds,
        train_tokens=len(data.split("train")), validation_perplexity=perplexity,
        ngram_validation_perplexity=ngram_perplexity,
    )
    save_model(config.out, module, data.tokenizer, run={
        "command": shlex.join(sys.argv), "config": to_dict(config), "parameters": result.n_parameters,
        "seconds": seconds, "validation_perplexity": perplexity, "ngram_validation_perplexity": ngram_perplexity,
        "data": {"source": str(config.data), "prepared": str(data.path.resolve()), "fingerprint": data.fingerprint,
                 "train_tokens": result.train_tokens},
    })
    known = "" if perplexity is None else f", validation perplexity {perplexity:.2f}"
    say(f"{format_count(result.n_parameters)} numbers in {format_seconds(seconds)}{known}; model in {config.out}")
    return result
