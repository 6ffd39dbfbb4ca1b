"""What torch.compile adds to the memory of a training process, and whether a run comes to it."""

import dataclasses

import torch

from tickwise.core.console import format_bytes
from tickwise.profiling import reference
from tickwise.profiling.choices import compilation_possible
from tickwise.profiling.machine import compiler
from tickwise.training.checkpoint import Counters
from tickwise.training.compilation import LEAST_REMAINING_S, remaining_seconds
from tickwise.training.config import TrainConfig
from tickwise.training.prediction import run_smallest

_COMPILED_STEP_BYTES, _COMPILED_LAYER_BYTES = 68_000_000, 2_000_000
"""Of graphs and generated code, which stay for the run: peaks of 72, 77 and 78 MB above the compiler's own libraries
with 1, 2 and 8 layers (width 32 to 128, fp32, torch 2.13 on Linux), 81 with 5 layers of 256."""


@dataclasses.dataclass(frozen=True)
class CompilationMemory:
    """Modelled: the compiler's libraries are measured, the rest is fitted. The C++ compiler runs beside it, as a
    process of its own of some 250 MB."""

    tried: bool | None
    """Whether the run compiles, or tries to; ``None``: it does if it takes long enough, and how long is not known."""
    bytes: int

    @property
    def term(self) -> dict[str, int]:
        """What it adds to the run's terms."""
        return {"compilation": self.bytes} if self.tried else {}

    @property
    def sentence(self) -> str:
        """What a table of terms leaves out; empty where there is nothing to say."""
        if self.tried is False or not self.bytes:
            return ""
        beside = "its C++ compiler runs beside it, in some 250 MB of its own"
        if self.tried:
            return f"torch.compile (--compile): {beside}"
        return (f"not in it: a run of more than {LEAST_REMAINING_S / 60:.0f} minutes tries torch.compile, which takes "
                f"{format_bytes(self.bytes)} more; {beside} (--compile off: neither)")


def compilation_memory(config: TrainConfig, n_layers: int, dtype: str, device: torch.device,
                       step_seconds: float | None) -> CompilationMemory:
    """Of a run on this machine whose steps are predicted to take ``step_seconds`` (``None``: not known)."""
    tried = _tried(config, device, step_seconds)
    if tried is False or device.type != "cpu":
        return CompilationMemory(tried, 0)
    with_compiler = reference.process_bytes(f"compiler-{dtype}", f"{__name__}:load_compiler('{dtype}')")
    without = reference.process_bytes(f"training-{dtype}", f"tickwise.training.prediction:run_smallest('{dtype}')")
    return CompilationMemory(tried, max(0, with_compiler - without) + _COMPILED_STEP_BYTES
                             + n_layers * _COMPILED_LAYER_BYTES)


def _tried(config: TrainConfig, device: torch.device, step_seconds: float | None) -> bool | None:
    if config.compile == "off" or not compilation_possible(device, compiler())[0]:
        return False
    if config.compile == "on":
        return True
    if config.max_seconds is not None and config.max_seconds < LEAST_REMAINING_S:
        return False
    if config.max_steps is None and config.max_tokens is None:
        return None if config.max_seconds is None else True
    if step_seconds is None:
        return None
    assert config.batch_size is not None
    return remaining_seconds(config, step_seconds, config.batch_size * config.context, Counters()) >= LEAST_REMAINING_S


def load_compiler(dtype: str) -> None:
    """Train the smallest model, and load what torch.compile needs before it compiles anything."""
    run_smallest(dtype)
    torch.compile(run_smallest)
