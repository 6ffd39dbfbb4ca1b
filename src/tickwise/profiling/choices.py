"""What tickwise will use on this machine, and why: device, number format, threads, torch.compile."""

import dataclasses
import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tickwise.core.device import has_fast_bf16
from tickwise.profiling import machine
from tickwise.profiling.ceilings import DISTURBED_BELOW, Ceilings

if TYPE_CHECKING:
    import torch

_UNSURE = 0.25
"""How far from 1 a ratio of speeds may be on a busy machine and mean nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """The defaults that follow from what was found and measured."""

    device: str
    dtype: str
    """Of the computation while training; weights and optimizer state stay fp32."""
    threads: int
    compile: bool
    """Whether torch.compile can run here; whether it pays is measured per run."""
    why: Mapping[str, str]
    """The reason for each of the others, in a few words."""


def choose(ceilings: Ceilings, device: "torch.device", compiler: str | None) -> Choices:
    """The choices for ``device`` with these ``ceilings`` and C++ ``compiler`` (``None``: there is none)."""
    dtype, why_dtype = training_dtype(ceilings, device)
    possible, why_compile = compilation_possible(device, compiler)
    return Choices(
        device=str(device),
        dtype=dtype,
        threads=ceilings.threads,
        compile=possible,
        why={
            "device": "no CUDA or MPS accelerator was found" if device.type == "cpu" else "an accelerator was found",
            "dtype": why_dtype,
            "threads": _why_threads(ceilings),
            "compile": why_compile,
        },
    )


def training_dtype(ceilings: Ceilings, device: "torch.device") -> tuple[str, str]:
    """The number format that ``--dtype auto`` stands for, and why."""
    fp32, bf16 = ceilings.flops_per_s.get("fp32"), ceilings.flops_per_s.get("bf16")
    if not has_fast_bf16(device):
        return "fp32", "no hardware support for bf16 products"
    if fp32 is None or bf16 is None:
        return "fp32", "bf16 could not be measured here"
    shares = ceilings.cpu_share.get("fp32", 1.0), ceilings.cpu_share.get("bf16", 1.0)
    ratio, how = bf16 / fp32, "measured"
    if min(shares) < DISTURBED_BELOW:
        ratio, how = ratio * shares[0] / shares[1], "estimated on a busy machine"
        if abs(ratio - 1) < _UNSURE:
            return "bf16", "hardware support; this machine was too busy to measure how much faster it is"
    if ratio <= 1:
        return "fp32", f"bf16 is supported, but {how} at {ratio:.2f} times fp32's speed"
    return "bf16", f"hardware support, {how} at {ratio:.2f} times fp32's speed"


def _why_threads(ceilings: Ceilings) -> str:
    named = os.environ.get("OMP_NUM_THREADS")
    if named:
        return f"OMP_NUM_THREADS={named}"
    if ceilings.threads == ceilings.cores:
        return "one per usable core"
    return f"torch's choice, for {ceilings.cores} usable cores"


def compilation_possible(device: "torch.device", compiler: str | None) -> tuple[bool, str]:
    """Whether torch.compile can run here, and why."""
    if device.type == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            return False, "needs Triton, which is not installed"
        return True, "Triton is installed"
    if device.type != "cpu":
        return False, f"not used on {device.type}"
    if compiler is None:
        return False, "needs a C++ compiler and found none (install g++ or clang)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return False, "needs Python's header files and found none (install python3-dev)"
    return True, f"{compiler} was found"


def format_support(device: "torch.device") -> dict[str, str | None]:
    """Number format → the hardware's instructions for its products, ``None`` where there are none."""
    import torch

    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        generation = f"compute capability {major}.{minor}"
        return {"fp32": generation, "bf16": generation if major >= 8 else None, "int8": generation}
    if device.type != "cpu":
        return {"fp32": str(device)}
    capabilities = torch.cpu.get_capabilities()
    instructions = {
        "fp32": (("avx512_f", "AVX-512"), ("avx2", "AVX2"), ("neon", "NEON"), ("asimd", "NEON")),
        "bf16": (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512 BF16"), ("bf16", "BF16")),
        "fp16": (("amx_fp16", "AMX"), ("avx512_fp16", "AVX-512 FP16"), ("fp16", "FP16")),
        "int8": (("amx_int8", "AMX"), ("avx512_vnni", "AVX-512 VNNI"), ("avx_vnni", "AVX VNNI"),
                 ("i8mm", "I8MM"), ("dotprod", "dot product")),
    }  # fmt: skip
    return {
        name: next((label for key, label in known if capabilities.get(key)), None)
        for name, known in instructions.items()
    }


def accelerators() -> list[str]:
    """Names of the CUDA and MPS devices that torch can use."""
    import torch

    found = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    return [*found, f"mps {machine.cpu_name()}"] if torch.backends.mps.is_available() else found
