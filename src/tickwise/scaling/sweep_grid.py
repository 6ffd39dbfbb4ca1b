"""The trials of a sweep: models × budgets, with batch and learning rate by stated rules."""

import dataclasses
import math
import re
from dataclasses import dataclass

from tickwise.core.console import format_count
from tickwise.core.errors import ConfigError
from tickwise.models.decoder import Decoder
from tickwise.scaling.runs import FLOPS_PER_PARAMETER_AND_TOKEN
from tickwise.training.config import TrainConfig
from tickwise.training.dial import decoder_from_dial, resolve

BATCH_TOKENS_PER_ROOT_TOKEN = 1.25
"""Tokens in an update over √(tokens of the run). The critical batch grows like the root of the data and hardly with the
model (Zhang et al. 2024, "How does critical batch size scale in pre-training?", section 4); the factor is ours."""
_SIZE = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is to be tried. Each size gets every budget of FLOPs (tokens follow) and every number of tokens."""

    sizes: tuple[str, ...]
    flops: tuple[float, ...] = ()
    tokens: tuple[float, ...] = ()
    least_tokens_per_parameter: float = 0.0
    most_tokens_per_parameter: float = math.inf


@dataclass(frozen=True)
class Trial:
    """One run. ``flops`` is 6·N·D with D the tokens of all its whole updates."""

    name: str
    parameters: int
    tokens: int
    flops: float
    config: TrainConfig
    """Complete but for the folder."""


def parse_size(text: str) -> tuple[int, int]:
    """``4x96`` as depth and width."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or not int(found[1]) or not int(found[2]):
        raise ConfigError(f"--sizes: '{text}' is not DEPTHxWIDTH, such as 4x96")
    return int(found[1]), int(found[2])


def trials(grid: Grid, base: TrainConfig, vocab_size: int, n_train_tokens: int) -> list[Trial]:
    """All trials, least compute first. ``base`` says what they share; a batch size or learning rate set there holds for
    all. ``ConfigError`` for a grid without a trial, or with one twice.
    """
    _check(grid)
    made: list[Trial] = []
    for depth, width in map(parse_size, grid.sizes):
        parameters = count_parameters(base, depth, width, vocab_size)
        wanted = [(f"c{_short(flops)}", flops / (FLOPS_PER_PARAMETER_AND_TOKEN * parameters)) for flops in grid.flops]
        wanted += [(f"d{_short(tokens)}", tokens) for tokens in grid.tokens]
        for label, tokens in wanted:
            if not grid.least_tokens_per_parameter <= tokens / parameters <= grid.most_tokens_per_parameter:
                continue
            made.append(_trial(f"{label}-{depth}x{width}", base, depth, width, parameters, tokens, vocab_size,
                               n_train_tokens))
    if not made:
        raise ConfigError("no trial is left: every size and budget lies outside --tokens-per-parameter")
    names = [trial.name for trial in made]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"trial {twice} occurs twice: give each size and budget once")
    return sorted(made, key=lambda trial: (trial.flops, trial.parameters))


def _check(grid: Grid) -> None:
    if not grid.sizes:
        raise ConfigError("--sizes: give models as DEPTHxWIDTH, such as 2x64 4x96")
    if not grid.flops and not grid.tokens:
        raise ConfigError("give budgets: --flops for equal compute, --tokens for the same tokens at each size, or both")
    for flag, values in (("--flops", grid.flops), ("--tokens", grid.tokens)):
        for value in values:
            if not 0 < value < math.inf:
                raise ConfigError(f"{flag}: must be positive, got {value:g}")
    if not 0 <= grid.least_tokens_per_parameter <= grid.most_tokens_per_parameter:
        raise ConfigError("--tokens-per-parameter: give the least and then the most")


def _short(value: float) -> str:
    return f"{value:.3g}".replace("e+", "e")


def count_parameters(base: TrainConfig, depth: int, width: int, vocab_size: int) -> int:
    """All parameters, embeddings included, a tied matrix once."""
    import torch

    with torch.device("meta"):
        return Decoder(decoder_from_dial(depth, base.context, vocab_size,
                                         dataclasses.replace(base.model, width=width))).n_parameters()


def batch_sequences(tokens: float, context: int) -> int:
    """Sequences in an update of a run on that many tokens, by the rule above."""
    return max(1, round(BATCH_TOKENS_PER_ROOT_TOKEN * math.sqrt(tokens) / context))


def _trial(name: str, base: TrainConfig, depth: int, width: int, parameters: int, tokens: float, vocab_size: int,
           n_train_tokens: int) -> Trial:
    batch = base.batch_size or batch_sequences(tokens, base.context)
    steps = max(1, round(tokens / (batch * base.context)))
    config = dataclasses.replace(
        base, depth=depth, model=dataclasses.replace(base.model, width=width), batch_size=batch, max_steps=steps,
        max_tokens=None, max_seconds=None)
    model = decoder_from_dial(depth, base.context, vocab_size, config.model)
    config = dataclasses.replace(config, optimizer=resolve(config, model, parameters, n_train_tokens).optimizer)
    whole = steps * batch * base.context
    return Trial(name, parameters, whole, FLOPS_PER_PARAMETER_AND_TOKEN * parameters * whole, config)


def describe(trial: Trial) -> str:
    """A few words on one trial."""
    return (f"{trial.name}: {format_count(trial.parameters)} parameters, {format_count(trial.tokens)} tokens, "
            f"{trial.flops:.3g} FLOP")
