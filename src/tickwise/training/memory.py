"""How much memory a training run needs, by term, before it starts.

The estimate runs steps of the real code (model, loss, backward pass, optimizer) without data and counts the bytes of
its tensors (``profiling/dry_run.py``), so it follows every change of that code.
"""

import functools
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, replace
from typing import NamedTuple

import torch

from tickwise.core.console import format_bytes
from tickwise.core.device import torch_dtype
from tickwise.core.errors import MemoryLimitError
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.dry_run import DryRun, convert
from tickwise.profiling.machine import memory_bytes
from tickwise.training.config import TrainConfig
from tickwise.training.memory_saving import checkpoint_activations
from tickwise.training.next_token import next_token_loss, validation_rows
from tickwise.training.optimizers import MasterWeights, Optimizer, total_norm

_FLAGS = {
    "weights": "--depth or --model.width",
    "gradients": "--depth or --model.width",
    "optimizer": "--depth or --model.width",
    "activations": "--batch-size, --context or --vocab-size, or raise --accumulate",
    "fragmentation": "--batch-size or --context, or raise --accumulate",
}
_COUNTED_TOKENS = 1 << 18
_COUNTED_LAYERS = 24


@dataclass(frozen=True)
class TrainingMemory:
    """Modelled bytes by term at the worst moment of a step; they add up to ``total``."""

    weights: int
    """What the model computes with, its float32 masters and their average."""
    gradients: int
    optimizer: int
    """States that last from step to step."""
    activations: int
    """Everything else that exists at that moment: what autograd keeps, logits, the optimizer's temporaries."""
    fragmentation: int
    """What the C library keeps of freed memory, in holes between tensors that live on: simulated (CPU only)."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def largest(self) -> tuple[str, int]:
        """The largest term and its bytes."""
        return max(asdict(self).items(), key=lambda item: item[1])


def estimate_training_memory(model: DecoderConfig, config: TrainConfig, n_parameters: int,
                             dtype: str, device: torch.device, *, on_cpu: bool | None = None) -> TrainingMemory:
    """Counted on a dry run of steps and one validation batch; the process itself comes on top.

    Every layer adds the same bytes, and every sequence, so very many of them are not counted one by one. ``on_cpu``
    says whether the C library's holes count (left out: what ``device`` says).
    """
    assert config.batch_size is not None
    moments = _moments(model, config, dtype, device, device.type == "cpu" if on_cpu is None else on_cpu)
    lasting = moments.weights + moments.gradients + moments.optimizer
    activations = max(moments.computing, moments.updating, moments.validating)
    resident = max(moments.resident_computing, moments.resident_updating, moments.resident_validating)
    return TrainingMemory(weights=moments.weights, gradients=moments.gradients, optimizer=moments.optimizer,
                          activations=activations, fragmentation=max(0, resident - lasting - activations))


class _Moments(NamedTuple):
    """Bytes at three moments of which each may be the worst; by itself each grows in proportion, or not at all."""

    weights: int
    gradients: int
    optimizer: int
    computing: int
    """Beside the three terms above: while losses and gradients are computed."""
    updating: int
    """While the optimizer works."""
    validating: int
    resident_computing: int
    """All of it, with the C library's holes."""
    resident_updating: int
    resident_validating: int


def _moments(model: DecoderConfig, config: TrainConfig, dtype: str, device: torch.device, holes: bool) -> _Moments:
    """Counted, or where there are very many layers or sequences, extrapolated from fewer."""
    assert config.batch_size is not None
    if model.n_layers > _COUNTED_LAYERS:
        few = _COUNTED_LAYERS // 2
        shallow, deep = (_moments(replace(model, n_layers=n), replace(config, depth=n), dtype, device, holes)
                         for n in (few, _COUNTED_LAYERS))
        return _grown(shallow, deep, (model.n_layers - _COUNTED_LAYERS) / (_COUNTED_LAYERS - few))
    rows, most = config.batch_size // config.accumulate, max(2, _COUNTED_TOKENS // config.context)
    if rows <= most:
        return _counted(model, config, dtype, device, holes)
    fewer, more = (_counted(model, replace(config, batch_size=n * config.accumulate), dtype, device, holes)
                   for n in (most // 2, most))
    return _grown(fewer, more, (rows - most) / (most - most // 2))


def _grown(fewer: _Moments, more: _Moments, steps: float) -> _Moments:
    """``more`` and ``steps`` times what it has above ``fewer``."""
    return _Moments(*(max(0, much + round(steps * (much - less))) for less, much in zip(fewer, more, strict=True)))


@functools.lru_cache(maxsize=128)
def _counted(model: DecoderConfig, config: TrainConfig, dtype: str, device: torch.device, holes: bool) -> _Moments:
    with DryRun(device, simulate_heap=holes) as live:
        return _dry_steps(live, model, config, dtype)


def _dry_steps(live: DryRun, model: DecoderConfig, config: TrainConfig, dtype: str) -> _Moments:
    assert config.batch_size is not None
    module = Decoder(model).train()
    module.to = lambda dtype: convert(module, dtype)  # type: ignore[assignment,method-assign]
    if config.checkpoint_activations:
        checkpoint_activations(module)
    weights = MasterWeights(module, torch_dtype(dtype))
    average = [m.clone() for m in weights.masters] if config.ema_decay is not None else None
    buffers = _bytes(weights.gradients)
    n_weights = live.now - buffers
    optimizer = Optimizer(module, weights, config.optimizer, torch_dtype(dtype))
    rows = config.batch_size // config.accumulate
    peaks = {"computing": (0, 0), "updating": (0, 0), "validating": (0, 0)}

    def end_of(moment: str) -> None:
        peak, resident = peaks[moment]
        peaks[moment] = max(peak, live.peak), max(resident, live.resident_peak)
        live.reset_peak()

    # States are made in the first step. After five the simulated heap holds about what processes hold after thirty;
    # the heap's number of small blocks was fitted to that.
    for _ in range(5 if live.simulates_heap else 2):
        weights.clear()
        inputs_BT = torch.zeros(config.batch_size, config.context, dtype=torch.long)
        for index in range(min(config.accumulate, 2)):
            loss = next_token_loss(module, inputs_BT[:rows], inputs_BT[:rows], config.label_smoothing)
            loss.backward()
            gradients = weights.collect(first=index == 0)
        total_norm(gradients)
        end_of("computing")
        optimizer.step(gradients, 1.0)
        end_of("updating")
    states = _bytes(optimizer.state_tensors().values())
    live.give_back()
    live.among_small = False
    with weights.replaced_by(average):
        validate(module, config.context)
    end_of("validating")
    held = buffers if buffers else _bytes(gradients)
    lasting = n_weights + held + states
    worked, resident = zip(*peaks.values(), strict=True)
    return _Moments(n_weights, held, states, *(peak - lasting for peak in worked), *resident)


@torch.no_grad()
def validate(module: Decoder, context: int) -> None:
    """One batch of a validation, as large as the training loop takes it."""
    module.eval()
    ids_BT = torch.zeros(validation_rows(context), context, dtype=torch.long)
    next_token_loss(module, ids_BT, ids_BT)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(t.nbytes for t in tensors)


def memory_message(need: TrainingMemory, available: int | None) -> str:
    """One line that names the largest term and the flags that shrink it."""
    name, size = need.largest()
    have = f", {format_bytes(available)} are free" if available is not None else ""
    return (f"out of memory: the run needs about {format_bytes(need.total)}{have}; the largest term is {name} with "
            f"{format_bytes(size)}: lower {_FLAGS[name]}")


def check_memory(need: TrainingMemory, n_ranks: int = 1) -> None:
    """Refuse a run that cannot fit on this machine's CPU memory, before anything is allocated. ``need`` is what each of
    that many ranks on this machine needs."""
    _, available = memory_bytes()
    all_of_them = TrainingMemory(*(n_ranks * size for size in astuple(need)))
    if all_of_them.total > available:
        raise MemoryLimitError(memory_message(all_of_them, available))
