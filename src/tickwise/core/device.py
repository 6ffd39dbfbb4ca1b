"""Which device and number format a run uses, and the one line that says why."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

DType = Literal["fp32", "bf16"]
_OMP_PAUSE_SOFT = 1  # omp.h


def torch_dtype(name: str) -> "torch.dtype":
    """``fp32`` or ``bf16`` as a torch dtype; ``ConfigError`` for anything else."""
    import torch

    table = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if name not in table:
        raise ConfigError(f"--dtype {name}: not one of {', '.join(table)}")
    return table[name]


def resolve_device(name: str = "auto") -> "torch.device":
    """``auto`` takes CUDA, then Apple's MPS, then the CPU; a named device must exist."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name}: not a device; use auto, cpu, cuda, cuda:0 or mps") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"--device {name}: this machine has no MPS device; use cpu")
    return device


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Inside, this thread and those that PyTorch computes with take numbers below the smallest normal one for zero.

    Gradients and averages decay into that range, where a CPU computes many times slower. It holds for all arithmetic
    of the thread, Python's too, so it is undone at the end. PyTorch's workers take the setting over from the thread
    that starts them, so they are started anew; without an OpenMP that can do so, those that ran before keep theirs.
    """
    import torch

    was_on = sys.float_info.min / 2 == 0
    torch.set_flush_denormal(True)
    _restart_workers()
    try:
        yield
    finally:
        torch.set_flush_denormal(was_on)
        _restart_workers()


def _restart_workers() -> None:
    """End the threads of OpenMP that wait for this thread's work; the next parallel operation starts others."""
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None) if os.name == "posix" else None
    if pause is not None:
        pause(_OMP_PAUSE_SOFT)


def usable_cores() -> int:
    """Cores this process may run on (the affinity mask, not the machine's total)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_fast_bf16(device: "torch.device") -> bool:
    """Whether bf16 matrix products have hardware support: AVX-512 BF16 or AMX on a CPU, Ampere on CUDA."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return False
