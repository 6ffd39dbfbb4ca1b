"""Loss, perplexity per token and per word, and bits per byte of a model on a text, or its choices between minimal
pairs; with 95 % intervals; and whether another model does better on the same text."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import format_number
from tickwise.core.device import DType

if TYPE_CHECKING:
    from tickwise.engine.language_model import LanguageModel
    from tickwise.evaluation.corpus import Corpus
    from tickwise.evaluation.model_comparison import ModelComparison
    from tickwise.evaluation.perplexity import PerplexityResult

_LABELS = {
    "loss": "loss (nats per token)",
    "perplexity": "perplexity per token",
    "word_perplexity": "perplexity per word",
    "byte_perplexity": "perplexity per byte",
    "bits_per_byte": "bits per byte",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    model: tyro.conf.Positional[Path]
    """Model directory, or run directory (its best or newest model)."""
    task: Literal["perplexity", "blimp"] = "perplexity"
    """blimp: how often the model finds the grammatical one of two sentences likelier."""
    data: Path | None = None
    """Prepared directory, or a UTF-8 text file; the data that the model was trained on if left out. For blimp: a folder
    of .jsonl files, or one, with sentence_good and sentence_bad; the known data set blimp if left out."""
    against: Path | None = None
    """Another model, to be compared with this one on the same text by a paired bootstrap."""
    split: Literal["train", "validation", "test"] | None = None
    """Which part of a prepared directory; test if it has one, else validation."""
    clean: bool = False
    """Give a text file the form of training text first: plain line ends, Unicode NFC, no control characters."""
    context: int | None = None
    """Tokens per window; the model's context length if left out."""
    stride: int | None = None
    """Tokens from one window to the next; below --context, windows overlap. Default: no overlap."""
    batch_size: int | None = None
    """Windows per forward pass."""
    words: Literal["whitespace", "wikitext"] = "whitespace"
    """How words are counted; wikitext adds one end mark per line, as in published WikiText perplexities."""
    bootstrap_samples: int = 1000
    """Resamples behind the intervals."""
    seed: int = 0
    """Seed of the resampling."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
    dtype: DType = "fp32"
    """Number format of the weights; losses are always summed in float64."""
    trace: Path | None = None
    """Folder for a trace: every batch's stages with time, FLOPs and bytes (tickwise trace show)."""


def run(arguments: Arguments) -> int:
    if arguments.task == "blimp":
        return _blimp(arguments)
    from tickwise.engine.language_model import load
    from tickwise.engine.tracing import traced
    from tickwise.evaluation.costs import WindowCosts
    from tickwise.evaluation.model_comparison import check_comparable, compare_models
    from tickwise.evaluation.perplexity import corpus_of, evaluate, windows_of

    model = load(arguments.model, arguments.device, arguments.dtype)
    other: LanguageModel | None = None
    data: Path | Corpus | None = arguments.data
    again: Corpus | None = None
    if arguments.against is not None:  # before anything is measured: what cannot be read or compared is said at once
        other = load(arguments.against, arguments.device, arguments.dtype)
        for each in (model, other):
            windows_of(each, arguments.context, arguments.stride, arguments.batch_size)
        data = first = corpus_of(model, arguments.data, arguments.split, arguments.words, cleaned=arguments.clean)
        again = corpus_of(other, first.path, arguments.split, arguments.words, cleaned=arguments.clean)
        check_comparable((first, again), (model, other))
    settings: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("split", "clean", "context", "stride", "batch_size",
                                                    "bootstrap_samples", "seed", "words")}
    with traced(model, arguments.trace, WindowCosts(model.module)):
        result = evaluate(model, data, **settings)
    if other is None:
        print(json.dumps(result.to_json(), allow_nan=False) if arguments.json else table(result))
        return 0
    second = evaluate(other, again, **settings)
    comparison = compare_models(result, second, (model, other), samples=arguments.bootstrap_samples,
                                seed=arguments.seed, checked=True)
    if arguments.json:
        print(json.dumps(result.to_json() | {"comparison": comparison.to_json()}, allow_nan=False))
    else:
        print(f"{table(result)}\n\n{comparison_table(comparison, result, second)}")
    return 0


def _blimp(arguments: Arguments) -> int:
    from tickwise.core.errors import ConfigError
    from tickwise.engine.language_model import load
    from tickwise.evaluation import minimal_pairs

    idle = [name for name in ("split", "clean", "context", "stride", "batch_size", "trace", "against")
            if getattr(arguments, name)]
    if idle:
        raise ConfigError(f"--{idle[0].replace('_', '-')}: has no meaning with --task blimp")
    sets = minimal_pairs.read_pair_sets(arguments.data)
    model = load(arguments.model, arguments.device, arguments.dtype)
    scores = minimal_pairs.evaluate_pairs(model, sets, samples=arguments.bootstrap_samples, seed=arguments.seed)
    if arguments.json:
        print(json.dumps(scores.to_json(str(arguments.model))))
    else:
        print(minimal_pairs.table(scores))
    return 0


def table(result: "PerplexityResult") -> str:
    """The result for people."""
    from tickwise.evaluation.perplexity import unknown_note

    overlap = "windows do not overlap" if result.stride == result.context else f"stride {result.stride}"
    speed = result.tokens / max(result.seconds, 1e-9)
    lines = [
        f"{result.task}: {result.tokens:,} tokens, {result.words:,} words, {result.bytes:,} bytes",
        f"context {result.context}, {overlap}, {result.dtype} on {result.device}, {speed:,.0f} tokens/s",
        "",
        f"{'metric':<22} {'value':>12}   95 % interval",
    ]
    for name, metric in result.metrics.items():
        known = metric.interval
        between = f"{_number(known.low)} to {_number(known.high)}" if known else "n/a"
        lines.append(f"{_LABELS[name]:<22} {_number(metric.value):>12}   {between}")
    if result.unknown:
        lines += ["", unknown_note(result.unknown, result.tokens)]
    if result.loss.interval is not None:
        lines += ["", f"intervals: {result.bootstrap_samples} resamples of {result.blocks} blocks "
                      f"of {result.block_tokens} tokens"]
    return "\n".join(lines)


def comparison_table(comparison: "ModelComparison", first: "PerplexityResult", second: "PerplexityResult") -> str:
    """Both models' perplexity and what of the difference is more than chance, for people."""
    lines = [f"{result.model}: perplexity per word {_number(result.word_perplexity.value)}, "
             f"{result.bits_per_byte.value:.4f} bits per byte" for result in (first, second)]
    shown = {"difference in nats per word": (comparison.nats_per_word, "+.4f"),
             "difference in bits per byte": (comparison.bits_per_byte, "+.4f"),
             "perplexity per word, ratio": (comparison.word_perplexity_ratio, ".4f")}
    lines += ["", f"{'first against second':<28} {'value':>9}   95 % interval"]
    for label, (metric, form) in shown.items():
        known = metric.interval
        between = f"{known.low:{form}} to {known.high:{form}}" if known else "n/a"
        lines.append(f"{label:<28} {format(metric.value, form):>9}   {between}")
    if comparison.p is None:
        return "\n".join([*lines, "the text is too short to say whether they differ"])
    verdict = "they differ" if comparison.p < 0.05 else "they do not differ at the 5 % level"
    return "\n".join([*lines, f"paired bootstrap over {comparison.blocks:,} pieces of the text: p = "
                              f"{comparison.p:.3g}: {verdict}"])


def _number(value: float) -> str:
    return f"{value:.4f}" if value < 1000 else f"{value:,.1f}" if value < 1e9 else format_number(value)
