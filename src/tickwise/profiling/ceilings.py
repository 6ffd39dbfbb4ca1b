"""Machine ceilings, measured here: read bandwidth and FLOP/s per number format. Never data-sheet figures.

A ceiling is the best sustained rate over windows of tens of milliseconds, over several candidate kernels:
interference from other programs only ever makes a window slower, so the best window is the estimate of
what the machine can do. How much of the processor that window got is kept beside it.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tickwise.core.config import from_dict, read_json, to_dict
from tickwise.core.device import resolve_device
from tickwise.core.errors import ConfigError, OutputError
from tickwise.core.paths import cache_directory, write_text_atomic
from tickwise.profiling import machine

if TYPE_CHECKING:
    import torch

_FORMAT_VERSION = 2
_WINDOW_S = 0.05
_WINDOW_QUICK_S = 0.03
DISTURBED_BELOW = 0.9
"""Share of its cores that a process got, below which a figure may be too low."""
_RETRY_S = 600.0
# m, k, n of (m,k) @ (k,n): square, and the shapes of a projection over a batch of tokens.
_GEMM_SHAPES_CPU = ((512, 512, 512), (1024, 4096, 1024))
_GEMM_SHAPES_ACCELERATOR = ((4096, 4096, 4096), (8192, 8192, 8192), (8192, 4096, 8192))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What this machine was measured to do at best."""

    device: str
    """``cpu``, ``cuda:0`` or ``mps``."""
    device_name: str
    cores: int
    threads: int
    memory_bytes: int
    """Main memory that this process may use; on an accelerator, its own memory."""
    read_bandwidth_bytes_per_s: float
    flops_per_s: dict[str, float]
    """By number format; a format that could not be measured here is absent. ``int8`` counts integer
    multiplications and additions."""
    measured_with: dict[str, str]
    """Which kernel and shape gave each figure: keys as in ``flops_per_s``, and ``read_bandwidth``."""
    cpu_share: dict[str, float]
    """Share of ``threads`` cores that this process really got while it reached the figure: keys as in
    ``measured_with``. Empty on accelerators."""
    quick: bool
    seconds: float
    """How long measuring took."""
    torch_version: str
    fingerprint: str
    date: str
    """UTC, ISO 8601."""
    kind: str = "measured"

    def __post_init__(self) -> None:
        tables = {"flops_per_s": self.flops_per_s, "cpu_share": self.cpu_share}
        for name, table in tables.items():
            if not isinstance(table, dict) or not all(isinstance(v, float) and v > 0 for v in table.values()):
                raise ConfigError(f"{name}: expected positive numbers by name, got {table!r}")

    @property
    def disturbed(self) -> bool:
        """Whether other programs took so much of the processor that some figure may be too low."""
        return any(share < DISTURBED_BELOW for share in self.cpu_share.values())

    def peak_flops_per_s(self, number_format: str) -> float | None:
        """The figure to take shares of; ``None`` where it was not measured, or on too busy a machine."""
        if self.cpu_share.get(number_format, 1.0) < DISTURBED_BELOW:
            return None
        return self.flops_per_s.get(number_format)


def device_name(device: "torch.device") -> str:
    """The name the device gives itself."""
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return machine.cpu_name()


def fingerprint(device: "torch.device | None" = None) -> str:
    """Sixteen hex digits that change when the processor, cores, memory, torch or its threads do."""
    import torch

    device = device or resolve_device()
    facts = (
        _FORMAT_VERSION, str(device), device_name(device), machine.cpu_name(), machine.cores(),
        # Rounded, because the kernel reserves a slightly different amount at every start.
        round(machine.memory_bytes()[0] / 2**28), torch.__version__, torch.get_num_threads(),
    )
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def ceilings(refresh: bool = False, *, device: "torch.device | None" = None, quick: bool = False) -> Ceilings:
    """This machine's ceilings from the cache, measured first when there are none or ``refresh`` is set.

    Figures from a busy machine are measured again after a while. A busy measurement never lowers a figure.
    A cache that cannot be read is measured anew; one that cannot be written is done without.
    """
    device = device or resolve_device()
    mark = fingerprint(device)
    path = _cache_path(mark)
    known: Ceilings | None = None
    with contextlib.suppress(ConfigError):
        known = from_dict(Ceilings, read_json(path, "measured ceilings"), where=str(path))
    if known is not None and known.fingerprint != mark:
        known = None
    if known is not None and not refresh:
        settled = not known.disturbed or _age_s(known) < _RETRY_S
        if settled and (quick or not known.quick):
            return known
    measured = measure_ceilings(quick=quick, device=device)
    if known is not None and (known.disturbed or measured.disturbed):
        measured = _higher_of(known, measured)
    with contextlib.suppress(OutputError, OSError):
        write_text_atomic(path, json.dumps(to_dict(measured), indent=2) + "\n")
    return measured


def is_cached(device: "torch.device") -> bool:
    """Whether ``ceilings`` has figures to read; they may still be from a busy machine."""
    return _cache_path(fingerprint(device)).is_file()


def _cache_path(mark: str) -> Path:
    return cache_directory() / f"ceilings-{mark}.json"


def _age_s(known: Ceilings) -> float:
    then = datetime.datetime.fromisoformat(known.date)
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds()


def _higher_of(old: Ceilings, new: Ceilings) -> Ceilings:
    """Each figure from whichever measurement has it higher: the lower one was disturbed, not truer."""

    def rates(of: Ceilings) -> dict[str, float]:
        return {"read_bandwidth": of.read_bandwidth_bytes_per_s, **of.flops_per_s}

    best, measured_with = rates(new), dict(new.measured_with)
    raised = {name: rate for name, rate in rates(old).items() if rate > best.get(name, 0.0)}
    if len(raised) == len(best) and not old.disturbed:
        return old
    cpu_share = dict(new.cpu_share)
    for name in raised:
        best[name], measured_with[name] = raised[name], old.measured_with[name]
        if name in old.cpu_share:
            cpu_share[name] = old.cpu_share[name]
    bandwidth = best.pop("read_bandwidth")
    return dataclasses.replace(
        new, flops_per_s=best, measured_with=measured_with, read_bandwidth_bytes_per_s=bandwidth,
        cpu_share=cpu_share,
    )


def measure_ceilings(quick: bool = False, *, device: "torch.device | None" = None) -> Ceilings:
    """Measure now, on all of torch's threads: about 5 s, or about 2 s when ``quick``.

    Draws no number from torch's global generator and leaves its settings as they were.
    """
    import torch

    device = device or resolve_device()
    # Seconds for the bandwidth and for each number format.
    budget_s = 0.3 if quick else 1.0
    clock = _Clock(device, _WINDOW_QUICK_S if quick else _WINDOW_S)
    start = time.perf_counter()
    found: dict[str, _Best] = {}
    with torch.inference_mode(), _full_precision():
        found["read_bandwidth"] = _read_bandwidth(clock, device, budget_s, quick)
        for name in ("fp32", "bf16", "fp16", "int8"):
            candidates = _gemm_candidates(name, device)
            if candidates:
                found[name] = _best_rate(clock, candidates, budget_s)
    seconds = time.perf_counter() - start
    total = machine.memory_bytes()[0]
    if device.type == "cuda":
        total = int(torch.cuda.get_device_properties(device).total_memory)
    return Ceilings(
        device=str(device),
        device_name=device_name(device),
        cores=machine.cores(),
        threads=torch.get_num_threads(),
        memory_bytes=total,
        read_bandwidth_bytes_per_s=found["read_bandwidth"].rate,
        flops_per_s={name: best.rate for name, best in found.items() if name != "read_bandwidth"},
        measured_with={name: best.kernel for name, best in found.items()},
        cpu_share={name: best.cpu_share for name, best in found.items() if best.cpu_share is not None},
        quick=quick,
        seconds=seconds,
        torch_version=torch.__version__,
        fingerprint=fingerprint(device),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


@dataclasses.dataclass(frozen=True)
class _Best:
    """The best window of a kernel, and the share of the processor that it had."""

    rate: float
    kernel: str
    cpu_share: float | None


class _Clock:
    """Times windows of repeated calls."""

    def __init__(self, device: "torch.device", window_s: float) -> None:
        self.device, self.window_s = device, window_s

    def _synchronize(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def calls(self, function: Callable[[], object], n: int) -> tuple[float, float | None]:
        """Seconds that ``n`` calls took, and the share of torch's threads' time that the process got.

        One thread's seconds are those that it had the core for: what other programs took does not lower the rate.
        """
        import torch

        if self.device.type == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(n):
                function()
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1e3, None
        self._synchronize()
        cpu_start, start = time.process_time(), time.perf_counter()
        for _ in range(n):
            function()
        self._synchronize()
        seconds = time.perf_counter() - start
        cpu_seconds = time.process_time() - cpu_start
        threads = torch.get_num_threads()
        if threads == 1 and self.device.type == "cpu":
            seconds = min(seconds, max(cpu_seconds, 1e-9))
        share = min(1.0, cpu_seconds / (seconds * threads))
        return seconds, share if self.device.type == "cpu" else None

    def window(self, function: Callable[[], object]) -> tuple[float, float | None]:
        """Mean seconds of one call over a window of about ``window_s``, and the processor share in it."""
        once, _ = self.calls(function, 1)
        n = max(1, round(self.window_s / max(once, 1e-7)))
        seconds, share = self.calls(function, n)
        return seconds / n, share


def _best_rate(
    clock: _Clock, candidates: Mapping[str, tuple[float, Callable[[], object]]], budget_s: float
) -> _Best:
    """The best units/s of any candidate (name → units per call, call).

    Every candidate gets a first window; what is left of ``budget_s`` goes in turns to the three fastest.
    """
    end = time.perf_counter() + budget_s
    best: dict[str, _Best] = {}

    def measure(name: str) -> None:
        units, function = candidates[name]
        seconds, share = clock.window(function)
        if name not in best or units / seconds > best[name].rate:
            best[name] = _Best(units / seconds, name, share)

    for name, (_, function) in candidates.items():
        function()
        measure(name)
    finalists = sorted(best, key=lambda name: best[name].rate, reverse=True)[:3]
    while time.perf_counter() < end:
        for name in finalists:
            measure(name)
    return max(best.values(), key=lambda one: one.rate)


def _read_bandwidth(clock: _Clock, device: "torch.device", budget_s: float, quick: bool) -> _Best:
    """Bytes/s of reductions over a buffer that no cache holds."""
    import torch

    n_bytes = 256 * 2**20 if quick else 512 * 2**20
    if device.type == "cpu":
        n_bytes = max(n_bytes, 8 * (machine.last_level_cache_bytes() or 0))
        n_bytes = min(n_bytes, machine.memory_bytes()[1] // 4)
    else:
        n_bytes *= 4
    n_floats = n_bytes // 4 // 4096 * 4096
    # Written, not only reserved: untouched pages all map to one page of zeros, which a cache holds.
    buffer = torch.empty(n_floats, dtype=torch.float32, device=device).fill_(1.0)
    size = float(buffer.numel() * buffer.element_size())
    candidates: dict[str, tuple[float, Callable[[], object]]] = {"max float32": (size, buffer.max)}
    if device.type != "mps":
        words = buffer.view(torch.int64)
        candidates["sum int64"] = (size, words.sum)
    rows = buffer.view(4096, -1)
    candidates["row sums float32"] = (size, lambda: rows.sum(1))
    return _best_rate(clock, candidates, budget_s)


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Keep fp32 products in fp32: a lower setting would pass bf16 or TF32 off as fp32."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _gemm_candidates(name: str, device: "torch.device") -> dict[str, tuple[float, Callable[[], object]]]:
    """Matrix products in format ``name`` that run on ``device``; empty when it has none worth a figure."""
    import torch

    on_cpu = device.type == "cpu"
    if name == "fp16" and on_cpu:
        return {}
    if name == "int8" and device.type == "mps":
        return {}
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}[name]
    # Own generator: measuring must not move the caller's random numbers.
    generator = torch.Generator().manual_seed(0)
    candidates: dict[str, tuple[float, Callable[[], object]]] = {}
    for m, k, n in _GEMM_SHAPES_CPU if on_cpu else _GEMM_SHAPES_ACCELERATOR:
        if name == "int8":
            a = torch.randint(-127, 128, (m, k), dtype=dtype, generator=generator).to(device)
            weight = torch.randint(-127, 128, (n, k), dtype=dtype, generator=generator).to(device)
        else:
            a = torch.randn(m, k, generator=generator).to(device, dtype)
            weight = torch.randn(n, k, generator=generator).to(device, dtype)
        for kernel, function in _gemm_kernels(name, a, weight).items():
            try:
                function()
            except (RuntimeError, NotImplementedError, TypeError):
                continue
            candidates[f"{kernel} {m}x{k}x{n}"] = (2.0 * m * k * n, function)
    return candidates


def _gemm_kernels(name: str, a: "torch.Tensor", weight: "torch.Tensor") -> dict[str, Callable[[], object]]:
    """The kernels that compute ``a @ weight.T`` (m,k) x (n,k), by name."""
    import torch

    if name == "int8":
        transposed = weight.t()
        return {"_int_mm": lambda: torch._int_mm(a, transposed)}
    kernels: dict[str, Callable[[], object]] = {
        "linear": lambda: torch.nn.functional.linear(a, weight),
    }
    packed = _packed_linear(a, weight)
    if packed is not None:
        kernels["packed linear"] = packed
    return kernels


def _packed_linear(a: "torch.Tensor", weight: "torch.Tensor") -> Callable[[], object] | None:
    """oneDNN's product with weights in its own blocked layout, the one that torch.compile freezes into."""
    import torch

    if a.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    operators: Any = torch.ops.mkldnn
    try:
        blocked = operators._reorder_linear_weight(weight, a.shape[0])
        operators._linear_pointwise(a, blocked, None, "none", [], "")
    except (RuntimeError, AttributeError, NotImplementedError):
        return None
    return lambda: operators._linear_pointwise(a, blocked, None, "none", [], "")
