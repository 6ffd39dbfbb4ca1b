"""Whether torch.compile pays for this run: measured, decided once, said in one line."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tickwise.core import console
from tickwise.core.console import format_seconds
from tickwise.core.errors import ConfigError
from tickwise.core.seeds import restore_rng_state, rng_state
from tickwise.profiling.choices import compilation_possible
from tickwise.profiling.machine import compiler
from tickwise.training.checkpoint import Counters
from tickwise.training.config import LoopConfig
from tickwise.training.loop import Training

_TRIALS = 7
# Compiling takes up to a minute on two cores, and the plain path has hand-written CPU kernels of its own: a trial
# may cost a twentieth of the work that remains.
LEAST_REMAINING_S = 1200.0
_LEAST_GAIN = 1.05


def _median_seconds(training: Training, loss: Callable[..., Any], inputs: Sequence[Tensor]) -> float:
    times = []
    for _ in range(_TRIALS):
        start = time.perf_counter()
        loss(training.module, *inputs)[0].backward()
        if training.device.type == "cuda":
            torch.cuda.synchronize(training.device)
        times.append(time.perf_counter() - start)
        training.weights.clear()
    return statistics.median(times[1:])


def decide_compilation(training: Training) -> None:
    """Set ``training.compiled_loss`` and ``training.counters.compiled``.

    A resumed run keeps its decision. Neither weights, the data's order nor random-number state are changed.
    """
    config, counters = training.config, training.counters
    if counters.compiled is False or (counters.compiled is None and config.compile == "off"):
        counters.compiled = False
        return
    possible, why = compilation_possible(training.device, compiler())
    if not training.objective.fixed_shapes:
        possible, why = False, "the batches differ in shape, and each shape would be compiled anew"
    if not possible:
        if config.compile == "on" or counters.compiled:
            raise ConfigError(f"--compile on: torch.compile cannot run here: {why}; use --compile off and a new --out")
        counters.compiled = False
        console.note(f"torch.compile: off, {why}")
        return
    if counters.compiled or config.compile == "on":
        training.compiled_loss, counters.compiled = _compiled(training), True
        console.say("torch.compile: on")
        return
    states = rng_state()
    example = training.objective.split(training.objective.example(), config.accumulate)[0]
    inputs = [x.to(training.device) for x in example.inputs]
    training.module.train()
    try:
        plain = _median_seconds(training, training.objective.loss, inputs)
        remaining = remaining_seconds(config, plain * config.accumulate, example.n_tokens * config.accumulate, counters)
        if remaining < LEAST_REMAINING_S:
            counters.compiled = False
            console.note(f"torch.compile: not tried, only about {format_seconds(remaining)} of work remain")
            return
        start = time.perf_counter()
        try:
            compiled = _compiled(training)
            compiled(training.module, *inputs)[0].backward()
            fast = _median_seconds(training, compiled, inputs)
        except Exception as problem:  # a compiler can fail in any way; the plain path is always there
            counters.compiled = False
            console.say(f"torch.compile: not used, it failed ({type(problem).__name__})")
            return
        cost = time.perf_counter() - start
        gain = plain / fast
        counters.compiled = gain >= _LEAST_GAIN
        if counters.compiled:
            training.compiled_loss = compiled
        verdict = "on" if counters.compiled else "off"
        console.say(f"torch.compile: {verdict}, forward and backward measured {gain:.2f}× the plain speed after "
                    f"{cost:.0f}s of compiling")
    finally:
        training.weights.clear()
        restore_rng_state(states)


def _compiled(training: Training) -> Callable[..., Any]:
    """Only where it is needed: asking for it alone loads some 100 MB of PyTorch's compiler."""
    return torch.compile(training.objective.loss, dynamic=False)


def remaining_seconds(config: LoopConfig, step_seconds: float, step_tokens: int, counters: Counters) -> float:
    """What is left of a run by the nearest of its limits; infinite without one."""
    estimates = [math.inf]
    if config.max_steps is not None:
        estimates.append((config.max_steps - counters.step) * step_seconds)
    if config.max_tokens is not None:
        estimates.append((config.max_tokens - counters.tokens) / step_tokens * step_seconds)
    if config.max_seconds is not None:
        estimates.append(config.max_seconds - counters.seconds)
    return min(estimates)
