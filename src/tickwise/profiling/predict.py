"""How long a program takes on a machine: its listing × the machine's ceilings × what operations really cost there.

On hardware that is not here an instruction takes the longer of its arithmetic at peak rate and its bytes at full
bandwidth (Williams et al. 2009, "Roofline"): a time at best, since nothing is known of its overheads. On this machine
the roofline time of an instruction is multiplied by the measured ratio of operations of its kind and size
(``overheads``), and a ``Correction`` fitted to a few small reference runs adds what no single operation shows:
Python between the operations, autograd's bookkeeping, memory that is handed out anew.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from tickwise.core.paths import cache_directory
from tickwise.core.stages import Stage
from tickwise.profiling.hardware import Hardware, hardware_from_ceilings, named_hardware
from tickwise.profiling.heap import LARGEST_RECYCLED
from tickwise.profiling.overheads import COLD, Overheads, by_kind
from tickwise.profiling.program import Instruction

if TYPE_CHECKING:
    import torch

Phase = Literal["serve", "forward", "backward", "optimizer"]

_PRODUCTS = {"mm", "addmm", "linear", "mv", "addmv", "dot", "matmul"}
_BATCHED = {"bmm", "baddbmm"}
_KINDS = {
    "attention": {"scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu"},
    "softmax": {"_softmax", "_log_softmax", "_softmax_backward_data", "_log_softmax_backward_data", "softmax",
                "log_softmax"},
    "curved": {"silu", "gelu", "tanh", "sigmoid", "exp", "log", "silu_backward", "gelu_backward", "tanh_backward",
               "sigmoid_backward", "cos", "sin", "pow", "rsqrt", "sqrt", "erf", "random_", "normal_"},
    "norm": {"linalg_vector_norm", "norm", "native_layer_norm", "native_layer_norm_backward", "_fused_rms_norm"},
    "reduction": {"sum", "mean", "amax", "max", "argmax", "cumsum", "var", "var_mean", "any",
                  "all", "_foreach_norm", "searchsorted", "topk", "sort"},
    "gather": {"embedding", "index_select", "gather", "scatter", "scatter_", "embedding_dense_backward", "index",
               "nll_loss_forward", "nll_loss_backward", "index_put_", "index_add_"},
    "copy": {"copy_", "clone", "_to_copy", "cat", "stack", "roll", "fill_", "zero_", "zeros", "ones", "zeros_like",
             "ones_like", "new_zeros", "contiguous", "full", "constant_pad_nd", "_foreach_copy_", "arange",
             "slice_backward", "select_backward", "new_empty_strided", "repeat", "index_copy_"},
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
_FORMATS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "int8": "int8"}


def number_format(dtype: str) -> str:
    """``fp32``, ``bf16`` … of an instruction's dtype; integers and booleans move bytes and count as fp32."""
    name = dtype.removeprefix("torch.")
    return name if name in _FORMATS.values() else _FORMATS.get(name, "fp32")


def kind_of(instruction: Instruction) -> str:
    """The kind of operation whose measured curve stands for it."""
    name = instruction.op.removeprefix("aten.").split(".")[0]
    if instruction.bytes_read + instruction.bytes_written == 0:
        return "view"
    if name in _BATCHED:
        return "batched product"
    if name in _PRODUCTS:
        return "product"
    if name.startswith(("_scaled_dot_product", "scaled_dot_product")):
        return "attention"
    kind = _KIND_OF.get(name) or ("in place" if name.endswith("_") else "pointwise")
    # Tensors of four dimensions are heads of attention, with the tokens outside.
    if kind in ("pointwise", "norm") and any(len(shape) >= 4 for shape in (*instruction.shapes, *instruction.outputs)):
        return {"pointwise": "strided", "norm": "strided norm"}[kind]
    return kind


def product_size(instruction: Instruction) -> tuple[int, int, int, int]:
    """(batch, m, k, n) of a matrix product; ``k`` from the FLOPs, so that any operand order will do."""
    out = instruction.outputs[0]
    n = out[-1] if out else 1
    m = out[-2] if len(out) > 1 else 1
    batch = math.prod(out[:-2]) if len(out) > 2 else 1
    if batch > 1 and not _is_batched(instruction):
        m, batch = m * batch, 1
    k = max(1, round(instruction.flops / max(1, 2 * batch * m * n)))
    return batch, m, k, n


def _is_batched(instruction: Instruction) -> bool:
    return instruction.op.removeprefix("aten.").split(".")[0] in _BATCHED


def attention_size(instruction: Instruction) -> tuple[int, int, int, int]:
    """(rows, queries, keys, width) of scaled dot-product attention."""
    q, k = instruction.shapes[0], instruction.shapes[1]
    return math.prod(q[:-2]), q[-2], k[-2], q[-1]


# Operators on lists of tensors run one kernel per tensor: how many lists they take.
_LISTS = {"_foreach_norm": 1, "_foreach_mul_": 1, "_foreach_add_": 2, "_foreach_copy_": 2, "_foreach_lerp_": 2,
          "_fused_adamw_": 5, "_fused_sgd_": 3}


def shares(instruction: Instruction) -> list[float]:
    """How the bytes of an operation divide among its kernels: one, or one for each tensor of a list."""
    lists = _LISTS.get(instruction.op.removeprefix("aten."))
    if lists is None or len(instruction.shapes) < 2 * lists:
        return [1.0]
    numbers = [math.prod(shape) for shape in instruction.shapes[: len(instruction.shapes) // lists]]
    return [n / max(1, sum(numbers)) for n in numbers]


def pass_bytes(instruction: Instruction, kind: str) -> int:
    """What the time of an operation that only passes over memory goes by: the bytes of its largest tensor, or of what
    a look-up takes."""
    if kind == "gather":
        return max(instruction.bytes_written, instruction.bytes_read // 2)
    itemsize = 2 if number_format(instruction.dtype) == "bf16" else 4
    if shares(instruction) != [1.0]:
        lists = _LISTS[instruction.op.removeprefix("aten.")]
        return itemsize * sum(math.prod(shape) for shape in instruction.shapes[: len(instruction.shapes) // lists])
    return itemsize * max((math.prod(shape) for shape in (*instruction.shapes, *instruction.outputs)), default=0)


def fresh_bytes(instruction: Instruction) -> int:
    """Bytes of results that are too large to get memory that was used before."""
    if instruction.op.endswith("_") or instruction.op == "aten.mm":  # large products write into buffers
        return 0
    itemsize = 2 if number_format(instruction.dtype) == "bf16" else 4
    sizes = (itemsize * math.prod(shape) for shape in instruction.outputs)
    return sum(size for size in sizes if size >= LARGEST_RECYCLED) if instruction.bytes_written else 0


def roofline_seconds(instruction: Instruction, hardware: Hardware) -> float:
    """The longer of arithmetic at peak rate and bytes at full bandwidth."""
    moved = (instruction.bytes_read + instruction.bytes_written) / hardware.bandwidth_bytes_per_s()
    if not instruction.flops:
        return moved
    return max(moved, instruction.flops / hardware.peak_flops_per_s(number_format(instruction.dtype)))


class OperationTimes:
    """Seconds of single operations on the calibrated machine, interpolated between its samples."""

    def __init__(self, hardware: Hardware, calibration: Overheads) -> None:
        self.hardware = hardware
        self._fresh_s_per_byte = calibration.fresh_memory_s_per_byte
        self._curves: dict[tuple[str, str], list[tuple[int, _Curve]]] = {}
        grouped = by_kind(calibration.samples)
        for (kind, dtype, footprint), samples in sorted(grouped.items()):
            points = [(sample.size, sample.seconds / self._base(kind, dtype, sample.size)) for sample in samples]
            self._curves.setdefault((kind, dtype), []).append((footprint, _Curve(points)))
        self._known: dict[tuple[str, str, tuple[int, ...], int], float] = {}

    def _base(self, kind: str, dtype: str, size: tuple[int, ...]) -> float:
        """Arithmetic and bytes one after the other, and a microsecond: smooth, and never far from the truth."""
        n_bytes = 2 if dtype == "bf16" else 4
        flops = 0
        if "product" in kind:
            batch, m, k, n = size
            flops, moved = 2 * batch * m * k * n, n_bytes * batch * (m * k + k * n + m * n)
        elif kind == "attention":
            rows, queries, keys, width = size
            flops, moved = 4 * rows * queries * keys * width, n_bytes * rows * 2 * width * (queries + keys)
        else:
            (moved,) = size
        rate = self.hardware.flops_per_s.get(dtype) or self.hardware.peak_flops_per_s("fp32")
        return 1e-6 + flops / rate + moved / self.hardware.bandwidth_bytes_per_s()

    def seconds(self, instruction: Instruction, footprint: int) -> float:
        """Of one operation in a program that touches ``footprint`` bytes between two uses of the same tensor."""
        kind, dtype = kind_of(instruction), number_format(instruction.dtype)
        seconds = self._fresh_s_per_byte * fresh_bytes(instruction)
        if "product" in kind:
            if kind == "product" and instruction.direction == "backward":
                kind = "product backward"
            return seconds + self.of(kind, dtype, product_size(instruction), footprint)
        if kind == "attention":
            # Fused kernels compute the scores a second time in the backward pass: five products for two.
            factor = 2.5 if instruction.op.endswith("backward") else 1.0
            return seconds + factor * self.of(kind, dtype, attention_size(instruction), footprint)
        if kind == "view":
            return self.of(kind, dtype, (1,), footprint)
        size = pass_bytes(instruction, kind)
        sizes = (max(1, round(share * size)) for share in shares(instruction))
        return seconds + sum(self.of(kind, dtype, (one,), footprint) for one in sizes)

    def of(self, kind: str, dtype: str, size: tuple[int, ...], footprint: int) -> float:
        """Seconds of an operation of that kind and size."""
        key = (kind, dtype, size, footprint)
        if key not in self._known:
            curves = self._curves.get((kind, dtype)) or self._curves[kind, "fp32"]
            self._known[key] = self._base(kind, dtype, size) * _between(curves, size, footprint)
        return self._known[key]


def _between(curves: Sequence[tuple[int, "_Curve"]], size: tuple[int, ...], footprint: int) -> float:
    """The ratio between the two calibrated footprints around ``footprint``, on logarithmic axes."""
    if footprint <= curves[0][0]:
        return curves[0][1](size)
    for (low, below), (high, above) in itertools.pairwise(curves):
        if footprint <= high:
            share = math.log(footprint / low) / math.log(high / low)
            return below(size) ** (1 - share) * above(size) ** share
    return curves[-1][1](size)


class _Curve:
    """A ratio as a function of sizes on logarithmic axes: moving least squares with a local plane.

    Outside the samples the ratio at the nearest border is taken.
    """

    def __init__(self, points: Sequence[tuple[tuple[int, ...], float]]) -> None:
        import numpy

        self._numpy = numpy
        self._x = numpy.log([[max(1, s) for s in size] for size, _ in points])
        self._y = numpy.log([ratio for _, ratio in points])
        self._low, self._high = self._x.min(axis=0), self._x.max(axis=0)

    def __call__(self, size: tuple[int, ...]) -> float:
        np = self._numpy
        at = np.clip(np.log([max(1, s) for s in size]), self._low, self._high)
        offset = self._x - at
        distance = (offset**2).sum(axis=1)
        weight = 1 / (distance + 1e-3) ** 2
        weight /= weight.sum()
        mean_x, mean_y = weight @ offset, weight @ self._y
        centred = offset - mean_x
        gram = (centred * weight[:, None]).T @ centred
        slope = np.linalg.solve(gram + 0.05 * np.eye(len(gram)), (centred * weight[:, None]).T @ (self._y - mean_y))
        value = mean_y - mean_x @ slope
        return float(np.exp(np.clip(value, self._y.min(), self._y.max())))


Features = Mapping[str, float]
"""Seconds by kind of operation, and under ``operations``, ``views``, ``runs`` and ``rows`` how many there are, under
``cold …`` how many of them find the caches full of other things."""


def features(instructions: Iterable[Instruction], times: OperationTimes, footprint: int) -> dict[str, float]:
    """What a ``Correction`` multiplies."""
    found: dict[str, float] = {}
    for instruction in instructions:
        kind = kind_of(instruction)
        # Products run in another library for every number format.
        name = f"{kind} {number_format(instruction.dtype)}" if "product" in kind else kind
        found[name] = found.get(name, 0.0) + times.seconds(instruction, footprint)
        count = "views" if kind == "view" else "operations"
        found[count] = found.get(count, 0.0) + len(shares(instruction))
    found["cold operations"] = coldness(footprint) * found.get("operations", 0.0)
    return found


def coldness(footprint: int) -> float:
    """How much of the interpreter's own code and data a program of that footprint has driven out of the caches between
    two operations: from 0 to 1, by the logarithm."""
    return min(1.0, max(0.0, math.log(max(footprint, 1) / _OWN_CACHE) / math.log(COLD / _OWN_CACHE)))


_OWN_CACHE = 2**21
"""Up to about this size a program and the interpreter share a core's own cache."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correction:
    """From the sum of single operations to a whole phase: a factor per kind, and seconds per operation and run."""

    factors: dict[str, float]

    def seconds(self, found: Features) -> float:
        return sum(self.factors.get(name, 1.0 if name not in _PRIOR else 0.0) * value
                   for name, value in found.items())


# Expected factor and its uncertainty. An operation brings a few microseconds of Python and autograd.
_PRIOR = {
    "operations": (1e-6, 2e-6), "cold operations": (1e-6, 4e-6), "views": (0.5e-6, 1e-6), "runs": (20e-6, 50e-6),
    "cold runs": (10e-6, 50e-6), "rows": (10e-6, 20e-6),
}
_PRIOR_KIND = (1.0, 0.25)
_TRUST = 0.05


@dataclasses.dataclass(frozen=True)
class Observation:
    """A part of a reference run: what it did, the seconds it took, and those of the whole run."""

    features: Features
    seconds: float
    of_seconds: float


def fit_correction(observations: Sequence[Observation]) -> Correction:
    """The factors that explain measured seconds best: least squares, drawn towards the expected factors.

    An error counts relative to the geometric mean of the part's and its run's seconds, so that every part has a say and
    the large ones have more. Factors are never negative.
    """
    names = sorted({name for one in observations for name in one.features})
    prior = {name: _PRIOR.get(name, _PRIOR_KIND) for name in names}
    factors = {name: prior[name][0] for name in names}
    rows = []
    for one in observations:
        scale = math.sqrt(max(one.seconds, 1e-7) * max(one.of_seconds, 1e-7))
        rows.append(({name: value / scale for name, value in one.features.items()}, one.seconds / scale))
    for _ in range(2000):
        moved = 0.0
        for name in names:
            expected, spread = prior[name]
            bottom = (_TRUST / spread) ** 2
            top = expected * bottom
            for row, target in rows:
                here = row.get(name, 0.0)
                if here:
                    others = sum(factors[other] * value for other, value in row.items() if other != name)
                    top += here * (target - others)
                    bottom += here * here
            value = max(0.0, top / bottom)
            moved = max(moved, abs(value - factors[name]) / spread)
            factors[name] = value
        if moved < 1e-6:
            break
    return Correction(factors=factors)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictedStage:
    """One stage of one layer (``None``: not part of a layer)."""

    stage: Stage
    layer: int | None
    direction: str
    seconds: float
    flops: int
    bytes_read: int
    bytes_written: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Modelled times of a program; the rows add up to ``seconds``."""

    rows: tuple[PredictedStage, ...]
    at_best: bool
    """Without overheads: a lower bound."""
    kind: str = "modelled"

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)

    def by_stage(self) -> dict[Stage, float]:
        """Seconds of all layers by stage, forward and backward together, in order of first appearance."""
        summed: dict[Stage, float] = {}
        for row in self.rows:
            summed[row.stage] = summed.get(row.stage, 0.0) + row.seconds
        return summed


def footprint(instructions: Iterable[Instruction]) -> int:
    """Bytes between two uses of the same tensor when the program runs again and again: all that it reads once."""
    return sum(instruction.bytes_read for instruction in instructions)


def predict(
    instructions: Sequence[Instruction], hardware: Hardware, *, times: OperationTimes | None = None,
    corrections: Mapping[str, Correction] | None = None, serving: bool = False,
) -> Prediction:
    """Seconds of every (stage, layer, direction) of a program.

    With ``times`` and ``corrections`` as they are on this machine; without them at best. ``ConfigError`` when
    ``hardware`` lacks a figure that the program needs.
    """
    groups: dict[tuple[Stage, int | None, str], list[Instruction]] = {}
    for instruction in instructions:
        groups.setdefault((instruction.stage, instruction.layer, instruction.direction), []).append(instruction)
    touched = footprint(instructions)
    rows = []
    for (stage, layer, direction), members in groups.items():
        if times is None:
            seconds = sum(roofline_seconds(instruction, hardware) for instruction in members)
        else:
            phase = phase_of(stage, direction, serving)
            found = features(members, times, touched)
            seconds = corrections[phase].seconds(found) if corrections else Correction(factors={}).seconds(found)
        rows.append(PredictedStage(
            stage=stage, layer=layer, direction=direction, seconds=seconds,
            flops=sum(i.flops for i in members), bytes_read=sum(i.bytes_read for i in members),
            bytes_written=sum(i.bytes_written for i in members),
        ))  # fmt: skip
    return Prediction(rows=tuple(rows), at_best=times is None)


def phase_of(stage: Stage, direction: str, serving: bool) -> Phase:
    """Which reference runs speak for an instruction."""
    if serving:
        return "serve"
    if stage is Stage.OPTIMIZER:
        return "optimizer"
    return "backward" if direction == "backward" else "forward"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What a prediction is for."""

    hardware: Hardware
    device: "torch.device"
    """Whose kernels the code would choose; a machine that is not here counts as its kind of device."""
    times: OperationTimes | None
    """``None``: no overheads are known, times are at best."""
    memory_bytes: int | None
    """What is free now here, all of it elsewhere."""
    is_here: bool


def find_machine(name: str, refresh: bool = False) -> Machine:
    """``here``, measured and calibrated first where that has not been done, or what ``named_hardware`` knows."""
    import torch

    from tickwise.core.console import say
    from tickwise.core.device import resolve_device
    from tickwise.profiling import overheads
    from tickwise.profiling.ceilings import ceilings
    from tickwise.profiling.machine import memory_bytes, use_cores

    if name != "here":
        hardware = named_hardware(name)
        return Machine(hardware=hardware, device=torch.device("cpu"), times=None, memory_bytes=hardware.memory_bytes,
                       is_here=False)
    device = resolve_device()
    use_cores()
    hardware = hardware_from_ceilings(ceilings(device=device))
    if device.type != "cpu":
        return Machine(hardware=hardware, device=device, times=None, memory_bytes=hardware.memory_bytes, is_here=True)
    if refresh or not overheads.is_cached():
        say(f"calibrating the prediction on this machine, about a minute; once: kept in {cache_directory()}")
    times = OperationTimes(hardware, overheads.overheads(refresh))
    return Machine(hardware=hardware, device=device, times=times, memory_bytes=memory_bytes()[1], is_here=True)


def extrapolated(fewer: Prediction, more: Prediction, steps: float) -> Prediction:
    """``more`` and ``steps`` times what it has above ``fewer``: for programs that grow by the same work."""
    less = {(row.stage, row.layer, row.direction): row for row in fewer.rows}

    def grown(row: PredictedStage) -> PredictedStage:
        base = less[row.stage, row.layer, row.direction]
        return dataclasses.replace(
            row, seconds=max(0.0, row.seconds + steps * (row.seconds - base.seconds)),
            flops=row.flops + round(steps * (row.flops - base.flops)),
            bytes_read=row.bytes_read + round(steps * (row.bytes_read - base.bytes_read)),
            bytes_written=row.bytes_written + round(steps * (row.bytes_written - base.bytes_written)),
        )

    return dataclasses.replace(more, rows=tuple(grown(row) for row in more.rows))
