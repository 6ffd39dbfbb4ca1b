"""Training an encoder–decoder on pairs of texts, whatever their task: the loop's settings, and the run."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from tickwise.data.pair_batches import EncodedPairs
from tickwise.models.encoder_decoder import EncoderDecoder
from tickwise.tasks.text_to_text_options import PairOptions
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.dial import PAIR_ADAMW, peak_lr
from tickwise.training.text_to_text import TextToTextObjective

if TYPE_CHECKING:
    from tickwise.training.config import LoopConfig, ParallelOptions
    from tickwise.training.run import TrainResult


class PairRun(TypedDict, total=False):
    """How a training on pairs runs, whatever the pairs are; the fields are the loop's (``training/config.py``)."""

    seed: int
    max_seconds: float | None
    resume: bool
    """Go on from the newest checkpoint."""
    overwrite: bool
    device: str
    dtype: str
    accumulate: int
    parallel: "ParallelOptions"
    trace: Path | None
    """Folder for a trace of every step."""


def pair_loop_config(options: PairOptions, *, out: Path, width: int | None = None,
                     **run: Unpack[PairRun]) -> "LoopConfig":
    """What the training loop is told; ``width`` is the model's where it is not that of the options. Raises
    ``OutputError`` when the run directory, or the folder for a trace, holds something or cannot be written."""
    from tickwise.training.config import OptimizerOptions, ParallelOptions, ScheduleOptions, TaskLoopConfig
    from tickwise.training.run import check_outputs

    lr = options.lr if options.lr is not None else peak_lr(options.optimizer, width or options.width, PAIR_ADAMW)
    config = TaskLoopConfig(
        out=Path(out), seed=run.get("seed", 1), device=run.get("device", "auto"),
        dtype=run.get("dtype", "auto"), compile="off",  # type: ignore[arg-type]
        accumulate=run.get("accumulate", 1), parallel=run.get("parallel", ParallelOptions()),
        max_seconds=run.get("max_seconds"), evaluate_tokens=sys.maxsize, label_smoothing=options.label_smoothing,
        optimizer=OptimizerOptions(name=options.optimizer, lr=lr, beta2=0.98, weight_decay=options.weight_decay),
        schedule=ScheduleOptions(name="wsd", warmup=0.05, decay=options.decay), ema_decay=0.995,
        resume="auto" if run.get("resume") else "never", overwrite=run.get("overwrite", False),
    )
    check_outputs(config, run.get("trace"))
    return config


def train_pairs(config: "LoopConfig", module: EncoderDecoder, training: EncodedPairs | Callable[[int], EncodedPairs],
                development: EncodedPairs, tokenizer: Tokenizer, options: PairOptions, *, data: dict[str, Any],
                lines: Sequence[str] = (), trace: Path | None = None) -> "TrainResult":
    """Train ``module`` for ``options.epochs`` passes and keep the model that predicts the development part best.

    ``data`` is what ``run.json`` says of the pairs, ``lines`` what is said of them before the first step.
    """
    from tickwise.training.run import train_module

    objective = TextToTextObjective(training, development, batch_tokens=options.batch_tokens,
                                    label_smoothing=options.label_smoothing, seed=config.seed)
    max_steps = max(1, round(options.epochs * objective.batches.n_batches))
    shape = module.config
    described = (
        f"encoder–decoder: {shape.n_encoder_layers} + {shape.n_decoder_layers} layers, width {shape.width}, "
        f"{shape.n_heads} heads, vocabulary {tokenizer.vocab_size:,}, "
        f"{sum(p.numel() for p in module.parameters()):,} parameters, at most {max_steps:,} steps; "
        f"{objective.batches.pairs.n_target_tokens:,} tokens to predict in a pass")
    return train_module(replace(config, max_steps=max_steps), module, objective, tokenizer, data=data,
                        lines=[*lines, described], trace=trace)
