"""Loss, perplexity and bits per byte of a model on a text, with bootstrap intervals."""

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from tickwise import __version__
from tickwise.core.console import progress, say
from tickwise.core.errors import ConfigError, DataError
from tickwise.engine.language_model import LanguageModel, load
from tickwise.evaluation.bootstrap import Interval, interval, resample_sums
from tickwise.evaluation.corpus import Corpus, WordRule, open_corpus, open_training_data, words_and_bytes_per_block
from tickwise.evaluation.windows import default_batch_size, token_losses

# An interval needs this many blocks at least to say anything, and a block this many tokens so that the
# dependence between neighbouring tokens stays inside it.
_FEWEST_BLOCKS, _SHORTEST_BLOCK = 50, 32


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % interval, which is ``None`` for a text too short to resample and for numbers too
    large for a float."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class PerplexityResult:
    """What ``evaluate`` found. ``losses`` are the nats of every scored token, in order, float32."""

    task: str
    model: str
    loss: Metric
    """Nats per token."""
    perplexity: Metric
    """Per token of this model's tokenizer."""
    word_perplexity: Metric
    byte_perplexity: Metric
    bits_per_byte: Metric
    tokens: int
    """Scored tokens."""
    unknown: int
    """Of these, tokens that stand for any word that the tokenizer does not know."""
    words: int
    bytes: int
    """UTF-8 bytes of the scored text."""
    word_rule: WordRule
    context: int
    stride: int
    batch_size: int
    dtype: str
    device: str
    block_tokens: int
    """Tokens of the blocks that were resampled."""
    blocks: int
    bootstrap_samples: int
    seed: int
    seconds: float
    losses: NDArray[numpy.float32] = dataclasses.field(repr=False, compare=False)
    corpus: Corpus = dataclasses.field(repr=False, compare=False)
    """The text, with the bytes that were scored."""

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by their name in lm-evaluation-harness."""
        names = ("loss", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """lm-evaluation-harness's result layout, with ``intervals`` besides; ``None`` where a number is
        infinite or unknown."""
        results: dict[str, Any] = {"alias": self.task}
        intervals = {}
        for name, metric in self.metrics.items():
            results[f"{name},none"] = _finite(metric.value)
            known = metric.interval
            results[f"{name}_stderr,none"] = _finite(known.stderr) if known else None
            intervals[name] = [_finite(known.low), _finite(known.high)] if known else None
        return {
            "results": {self.task: results},
            "intervals": {self.task: intervals},
            "configs": {
                self.task: {
                    "task": self.task,
                    "output_type": "loglikelihood_rolling",
                    "words": self.word_rule,
                    "context": self.context,
                    "stride": self.stride,
                    "block_tokens": self.block_tokens,
                }
            },
            "versions": {self.task: 1},
            "n-shot": {self.task: 0},
            "higher_is_better": {self.task: dict.fromkeys(self.metrics, False)},
            "n-samples": {
                self.task: {"tokens": self.tokens, "unknown_tokens": self.unknown, "words": self.words,
                            "bytes": self.bytes, "blocks": self.blocks}
            },
            "config": {
                "model": "tickwise",
                "model_args": {"path": self.model, "dtype": self.dtype},
                "batch_size": self.batch_size,
                "device": self.device,
                "bootstrap_iters": self.bootstrap_samples,
                "random_seed": self.seed,
            },
            "tickwise_version": __version__,
            "total_evaluation_time_seconds": self.seconds,
        }


def refuse_sources(model: LanguageModel) -> None:
    """``ConfigError`` for a model that cannot score a text without its source."""
    if model.has_source:
        raise ConfigError("an encoder–decoder predicts a target from its source, not a text by itself; tickwise run "
                          "translate --test evaluates one on pairs")


def evaluate(
    model: LanguageModel | str | Path,
    data: str | Path | Corpus | None = None,
    split: str | None = None,
    *,
    context: int | None = None,
    stride: int | None = None,
    batch_size: int | None = None,
    bootstrap_samples: int = 1000,
    seed: int = 0,
    words: WordRule = "whitespace",
    device: str = "auto",
    dtype: str | None = None,
    clean: bool = False,
) -> PerplexityResult:
    """Measure how well ``model`` predicts ``data``: a text file, or the ``split`` of a prepared directory (``test``
    if it has one, else ``validation``), or what ``corpus_of`` gave. Without ``data``, of the data that the model was
    trained on.

    A text file is scored as it is; ``clean`` gives it the form of training text first.

    The text is read in windows of ``context`` tokens (default: the model's context length) that do not
    overlap; a ``stride`` below ``context`` makes them overlap, and every token is still scored exactly once.
    Windows of models that look back over a few tokens only (n-grams, factors) overlap by those, so that it changes
    nothing where one begins.
    The first token is read after the tokenizer's beginning- or end-of-text token; a tokenizer without either
    leaves the first token unscored and does not count its bytes. End-of-text tokens between documents count
    as tokens, not as text.

    Intervals: the 2.5 % and 97.5 % quantiles of ``bootstrap_samples`` resamples of blocks of consecutive
    tokens, each block with its own loss, words and bytes. Sums are float64.

    Raises ``ConfigError``, ``DataError``, ``CheckpointError`` or ``NumericsError`` in one line.

    >>> result = tickwise.evaluate("runs/shakespeare")                              # doctest: +SKIP
    >>> result.bits_per_byte.value, result.bits_per_byte.interval.low               # doctest: +SKIP
    """
    if not isinstance(model, LanguageModel):
        name, model = str(model), load(model, device=device, dtype=dtype)
    else:
        name = str(model.path or type(model.module).__name__)
    context, stride, batch_size = windows_of(model, context, stride, batch_size)
    _check(bootstrap_samples, seed, words)

    corpus = data if isinstance(data, Corpus) else corpus_of(model, data, split, words, cleaned=clean)
    stream = with_start_token(corpus, model)
    n_scored = len(stream) - 1
    corpus = without_unscored_bytes(corpus, model, n_scored)
    if n_scored < 1:
        raise DataError(f"{corpus.title}: {len(corpus.tokens)} tokens are too few to score")
    say(f"evaluating on {corpus.title}: {n_scored:,} tokens")
    started = time.perf_counter()
    with progress("evaluate", n_scored, "tokens") as bar:
        losses = token_losses(
            model.module, stream, context=context, stride=stride, batch_size=batch_size, on_scored=bar.advance,
            ledger=model.ledger,
        )
    seconds = time.perf_counter() - started

    block_tokens = min(context, max(_SHORTEST_BLOCK, n_scored // _FEWEST_BLOCKS))
    blocks = loss_blocks(losses, corpus, model, block_tokens, words)
    metrics = _metrics(blocks, bootstrap_samples, seed)
    return PerplexityResult(
        task=corpus.name, model=name, **metrics, tokens=n_scored, unknown=n_unknown(model, stream[1:]),
        words=corpus.n_words, bytes=corpus.n_bytes, word_rule=words, context=context, stride=stride,
        batch_size=batch_size, dtype=str(model.dtype).removeprefix("torch."), device=str(model.device),
        block_tokens=block_tokens, blocks=len(blocks), bootstrap_samples=bootstrap_samples, seed=seed,
        seconds=seconds, losses=losses, corpus=corpus,
    )


def n_unknown(model: LanguageModel, tokens: NDArray[Any]) -> int:
    """How many of the tokens hide what word they are."""
    mark = model.tokenizer.unk_id
    return 0 if mark is None else int(numpy.count_nonzero(tokens == mark))


def unknown_note(unknown: int, tokens: int) -> str:
    """What people must know of a likelihood where so many of the tokens are ``<unk>``."""
    return (f"{unknown / tokens:.1%} of the tokens are <unk>, which hides what word it was:\n"
            "the text itself costs more, and the figures compare with models of the same vocabulary only")


def _default_stride(model: LanguageModel, context: int) -> int:
    reach = getattr(model.config, "n_history", 0)
    return context - reach if context > reach else context


def corpus_of(
    model: LanguageModel, data: str | Path | None, split: str | None, words: WordRule, *, cleaned: bool
) -> Corpus:
    """What ``evaluate`` measures: the text as the model's tokens. Raises what it raises of ``data`` and ``split``."""
    if data is not None:
        return open_corpus(Path(data), model.tokenizer, split, words, cleaned=cleaned)
    if cleaned:
        raise ConfigError("--clean is for text files; give one with --data")
    if model.path is None:
        raise ConfigError("this model was not loaded from a directory that says what it was trained on; give --data")
    return open_training_data(model.path, model.tokenizer, split, words)


def windows_of(model: LanguageModel, context: int | None, stride: int | None,
               batch_size: int | None) -> tuple[int, int, int]:
    """The windows in which ``evaluate`` reads, with what was left out; ``ConfigError`` for a model that reads sources,
    and for windows that it cannot read."""
    refuse_sources(model)
    longest = model.config.context_length
    context = longest if context is None else context
    stride = _default_stride(model, context) if stride is None else stride
    batch_size = default_batch_size(context) if batch_size is None else batch_size
    if not 1 <= context <= longest:
        raise ConfigError(f"--context {context}: must be from 1 to the model's context of {longest} tokens")
    if not 1 <= stride <= context:
        raise ConfigError(f"--stride {stride}: must be from 1 to the context of {context} tokens")
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size}: must be at least 1")
    return context, stride, batch_size


def _check(bootstrap_samples: int, seed: int, words: str) -> None:
    if bootstrap_samples < 2:
        raise ConfigError(f"--bootstrap-samples {bootstrap_samples}: must be at least 2")
    if seed < 0:
        raise ConfigError(f"--seed {seed}: must be at least 0")
    if words not in ("whitespace", "wikitext"):
        raise ConfigError(f"--words {words}: not one of whitespace, wikitext")


def with_start_token(corpus: Corpus, model: LanguageModel) -> NDArray[Any]:
    """The corpus after a token that stands for the beginning of a document, where there is one."""
    tokenizer = model.tokenizer
    first = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    if first is None or (len(corpus.tokens) and corpus.tokens[0] == first):
        return corpus.tokens
    return numpy.concatenate([numpy.array([first], dtype=corpus.tokens.dtype), corpus.tokens])


def without_unscored_bytes(corpus: Corpus, model: LanguageModel, n_scored: int) -> Corpus:
    """The corpus with the bytes that were scored: an unscored first token must not lower the bits per byte."""
    unscored = corpus.tokens[: len(corpus.tokens) - n_scored].tolist()
    text = model.tokenizer.decode(unscored)
    return dataclasses.replace(corpus, n_bytes=corpus.n_bytes - len(text.encode("utf-8")))


def loss_blocks(
    losses: NDArray[numpy.float32], corpus: Corpus, model: LanguageModel, block_tokens: int, words: WordRule
) -> NDArray[numpy.float64]:
    """(blocks, 4): nats, tokens, words and bytes of runs of ``block_tokens`` scored tokens."""
    starts = numpy.arange(0, len(losses), block_tokens)
    boundaries = numpy.append(starts, len(losses))
    nats = numpy.add.reduceat(losses.astype(numpy.float64), starts)
    # The scored tokens are the last ones of the corpus: all of them, or all but its first.
    unscored = len(corpus.tokens) - len(losses)
    n_words, n_bytes = words_and_bytes_per_block(corpus, model.tokenizer, boundaries + unscored, words)
    return numpy.stack([nats, numpy.diff(boundaries).astype(numpy.float64), n_words, n_bytes], axis=1)


def _metrics(blocks: NDArray[numpy.float64], samples: int, seed: int) -> dict[str, Metric]:
    """All metrics are functions of the same four totals, so they share one set of resamples."""
    total = blocks.sum(axis=0, keepdims=True)
    resampled = resample_sums(blocks, samples, seed) if len(blocks) > 1 else None
    spread = _ratios(resampled) if resampled is not None else {}
    return {
        name: Metric(
            float(value[0]),
            interval(spread[name]) if name in spread and numpy.isfinite(spread[name]).all() else None,
        )
        for name, value in _ratios(total).items()
    }


def _ratios(totals: NDArray[numpy.float64]) -> dict[str, NDArray[numpy.float64]]:
    nats, tokens, words, n_bytes = totals.T
    with numpy.errstate(over="ignore", divide="ignore"):
        return {
            "loss": nats / tokens,
            "perplexity": numpy.exp(nats / tokens),
            "word_perplexity": numpy.exp(nats / words),
            "byte_perplexity": numpy.exp(nats / n_bytes),
            "bits_per_byte": nats / n_bytes / math.log(2),
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
