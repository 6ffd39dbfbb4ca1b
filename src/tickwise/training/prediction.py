"""What a training step costs, predicted: its program with the optimizer's part, and the reference runs behind it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tickwise.core.device import flushed_denormals, torch_dtype
from tickwise.core.stages import Stage, mark
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.dry_run import DryRun, convert
from tickwise.profiling.machine import use_cores
from tickwise.profiling.predict import (
    Correction,
    Machine,
    Observation,
    OperationTimes,
    Phase,
    Prediction,
    extrapolated,
    features,
    fit_correction,
    footprint,
    predict,
)
from tickwise.profiling.program import Instruction, list_call, list_training_program
from tickwise.profiling.reference import by_stage, cached_corrections, stage_seconds
from tickwise.training.config import ModelOptions, TrainConfig
from tickwise.training.dial import decoder_from_dial, resolve
from tickwise.training.memory import validate
from tickwise.training.next_token import next_token_loss
from tickwise.training.optimizers import MasterWeights, Optimizer, total_norm

_LISTED_TOKENS = 1 << 16
"""Of a micro-batch; steps with larger ones are extrapolated."""


def predict_step(model: DecoderConfig, config: TrainConfig, dtype: str, machine: Machine) -> Prediction:
    """One update of ``config.batch_size`` sequences. ``ConfigError`` for hardware with missing figures."""
    assert config.batch_size is not None
    rows, most = config.batch_size // config.accumulate, max(2, _LISTED_TOKENS // config.context)
    if rows > most:
        fewer, more = (predict_step(model, replace(config, batch_size=n * config.accumulate), dtype, machine)
                       for n in (most // 2, most))
        return extrapolated(fewer, more, (rows - most) / (most - most // 2))
    corrections = None
    if machine.times is not None:
        corrections = training_corrections(machine.times, machine.device)
    program = step_program(model, config, dtype)
    return predict(program, machine.hardware, times=machine.times, corrections=corrections)


def step_program(model: DecoderConfig, config: TrainConfig, dtype: str) -> list[Instruction]:
    """Every instruction of one update: all micro-batches forward and backward, then the optimizer."""
    assert config.batch_size is not None
    micro_batch = _micro_batch_program(model, config.batch_size // config.accumulate, config.context,
                                       config.label_smoothing, dtype)
    return list(micro_batch) * config.accumulate + _update_program(model, config, dtype)


@lru_cache(maxsize=4)
def _micro_batch_program(model: DecoderConfig, rows: int, context: int, label_smoothing: float,
                         dtype: str) -> tuple[Instruction, ...]:
    """Forward and backward; kept, because plans ask for the same one with several numbers of micro-batches."""
    with torch.device("meta"):
        module = Decoder(model).to(torch_dtype(dtype)).train()
        ids_BT = torch.zeros(rows, context, dtype=torch.long)

    def loss(module: Decoder, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return next_token_loss(module, inputs_BT, targets_BT, label_smoothing)

    return tuple(list_training_program(module, ids_BT, ids_BT, call=loss).instructions)


def _update_program(model: DecoderConfig, config: TrainConfig, dtype: str) -> list[Instruction]:
    """The optimizer's second step (the first one also makes its states)."""
    with DryRun():
        module = Decoder(model)
        module.to = lambda dtype: convert(module, dtype)  # type: ignore[assignment,method-assign]
        weights = MasterWeights(module, torch_dtype(dtype))
        optimizer = Optimizer(module, weights, config.optimizer, torch_dtype(dtype))
        for parameter in weights.parameters:
            parameter.grad = torch.empty_like(parameter)
        optimizer.step([torch.empty_like(m) for m in weights.masters], 1.0)

        def update() -> None:
            gradients = weights.collect(first=True)
            total_norm(gradients).item()
            optimizer.step(gradients, 1.0)

        return list(list_call(update, stage=Stage.OPTIMIZER, item=1.0).instructions)


# (architecture, depth, width, heads, vocabulary, batch, context, number format): small, and of shapes that nobody uses.
_REFERENCES: tuple[tuple[Any, ...], ...] = (
    ("qwen3", 1, 96, 3, 300, 2, 40, "fp32"),
    ("qwen3", 3, 96, 3, 300, 2, 40, "bf16"),
    ("qwen3", 3, 192, 3, 700, 3, 96, "fp32"),
    ("qwen3", 2, 448, 7, 700, 5, 96, "bf16"),
    ("llama", 2, 320, 5, 3000, 6, 160, "fp32"),
    ("qwen3", 3, 320, 5, 3000, 6, 160, "bf16"),
    ("qwen3", 2, 192, 3, 5000, 2, 320, "fp32"),
    ("gpt2", 2, 192, 3, 700, 4, 400, "bf16"),
    ("tickwise", 2, 448, 7, 10_000, 2, 224, "bf16"),
    ("qwen3", 5, 576, 9, 6000, 1, 224, "bf16"),
    ("llama", 3, 448, 7, 300, 3, 480, "fp32"),
)


def training_corrections(times: OperationTimes, device: torch.device, refresh: bool = False) -> dict[str, Correction]:
    """Fitted to reference runs on this machine (some seconds), or read from the cache."""
    return cached_corrections("training", lambda: _measure_corrections(times, device), refresh)


def _measure_corrections(times: OperationTimes, device: torch.device) -> Mapping[str, Correction]:
    settings = []
    for architecture, depth, width, heads, vocabulary, batch, context, dtype in _REFERENCES:
        options = ModelOptions(architecture=architecture, width=width, n_heads=heads)
        model = decoder_from_dial(depth, context, vocabulary, options)
        config = TrainConfig(data=Path(), context=context, batch_size=batch, depth=depth, max_steps=1)
        settings.append((model, resolve(config, model, n_parameters=1, n_train_tokens=1), dtype))
    measured = stage_seconds([step_runner(Decoder(model).initialise(seed=1).to(device), config, dtype)
                              for model, config, dtype in settings], "training steps")
    observed: dict[Phase, list[Observation]] = {"forward": [], "backward": [], "optimizer": []}
    for (model, config, dtype), seconds in zip(settings, measured, strict=True):
        instructions = step_program(model, config, dtype)
        touched, total = footprint(instructions), sum(seconds.values())
        forward = by_stage([i for i in instructions if i.direction == "forward" and i.stage is not Stage.OPTIMIZER])
        rows: list[tuple[Phase, list[Instruction], float]] = [
            ("forward", members, seconds[stage]) for stage, members in forward.items() if stage in seconds
        ]
        rows.append(("backward", [i for i in instructions if i.direction == "backward"], seconds[Stage.BACKWARD]))
        rows.append(("optimizer", [i for i in instructions if i.stage is Stage.OPTIMIZER], seconds[Stage.OPTIMIZER]))
        for phase, members, spent in rows:
            observed[phase].append(Observation(features(members, times, touched), spent, total))
    return {phase: fit_correction(rows) for phase, rows in observed.items()}


def run_smallest(dtype: str) -> None:
    """Three steps and a validation of the smallest model."""
    model = decoder_from_dial(1, 64, 256, ModelOptions(width=32))
    config = TrainConfig(data=Path(), context=64, batch_size=1, depth=1, max_steps=1)
    run_steps(model, resolve(config, model, n_parameters=1, n_train_tokens=1), dtype)


@flushed_denormals()
def run_steps(model: DecoderConfig, config: TrainConfig, dtype: str) -> None:
    """Three steps and a validation of a fresh model."""
    use_cores()
    module = Decoder(model).initialise(seed=1)
    step = step_runner(module, config, dtype)
    for _ in range(3):
        step()
    validate(module, config.context)


def step_runner(module: Decoder, config: TrainConfig, dtype: str) -> Callable[[], None]:
    """A callable that trains ``module`` on one batch, by one step per call, marked like the training loop."""
    assert config.batch_size is not None
    device = next(module.parameters()).device
    module.train()
    weights = MasterWeights(module, torch_dtype(dtype))
    optimizer = Optimizer(module, weights, config.optimizer, torch_dtype(dtype))
    generator = torch.Generator().manual_seed(1)
    shape = (config.batch_size, config.context)
    ids_BT = torch.randint(module.config.vocab_size, shape, generator=generator).to(device)

    def step() -> None:
        weights.clear()
        for index, ids in enumerate(ids_BT.chunk(config.accumulate)):
            loss = next_token_loss(module, ids, ids, config.label_smoothing) / config.accumulate
            mark(Stage.BACKWARD)
            loss.backward()
            loss.item()
            gradients = weights.collect(first=index == 0)
        mark(Stage.OPTIMIZER)
        total_norm(gradients).item()
        optimizer.step(gradients, 1e-3)
        mark(Stage.HOST)

    return step
