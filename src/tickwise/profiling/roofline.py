"""How near a stage comes to this machine's ceilings, what bounds it, and both as a plain sentence.

Roofline (Williams, Waterman and Patterson 2009): work of F FLOPs that moves M bytes takes at least
``max(F ÷ peak FLOP/s, M ÷ bandwidth)``. The ceilings are measured (``profiling/ceilings.py``): the peak is that of the
model's number format, the bandwidth that of reading main memory; written bytes count like read ones.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy
from numpy.typing import NDArray

from tickwise.core.console import format_bytes, format_count
from tickwise.core.stages import Stage

if TYPE_CHECKING:
    from tickwise.profiling.ceilings import Ceilings

Bound = Literal["compute", "memory", "overhead"]
BOUND_FROM = 0.5
"""A stage that spends at least this share of its time at a ceiling is bound by it; below, by overhead."""

PYTHON_STAGES = frozenset(
    {Stage.DATA, Stage.SCHEDULE, Stage.TOKENIZE, Stage.DETOKENIZE, Stage.CHECKPOINT, Stage.HOST}
)
"""Stages in which the model does nothing: all of their time is overhead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roofline:
    """This machine's ceilings for one number format; ``None`` where one is not known."""

    number_format: str
    flops_per_s: float | None
    bytes_per_s: float | None
    disturbed: bool = False
    """Other programs used the processor while the ceilings were measured: they may be too low, and shares too high."""


def roofline_of(ceilings: "Ceilings", number_format: str) -> Roofline:
    """The ceilings that a model in ``number_format`` (``fp32``, ``bf16`` …) works under."""
    return Roofline(number_format=number_format, flops_per_s=ceilings.flops_per_s.get(number_format),
                    bytes_per_s=ceilings.read_bandwidth_bytes_per_s, disturbed=ceilings.disturbed)


Numbers = NDArray[numpy.float64]


def place(
    duration_ns: Numbers, flops: Numbers, n_bytes: Numbers, roof: Roofline
) -> tuple[Numbers, NDArray[numpy.object_]]:
    """``roofline_share`` (time at the roofline ÷ measured time) and ``bound`` of many stages at once.

    Unknown work is NaN. The share is NaN and the bound ``None`` where work or ceilings are not known. Data that come
    from a cache can raise the share above 1.
    """
    seconds = numpy.maximum(duration_ns, 1.0) * 1e-9
    compute = flops / (roof.flops_per_s or numpy.nan) / seconds
    memory = n_bytes / (roof.bytes_per_s or numpy.nan) / seconds
    share = numpy.fmax(compute, memory)
    bound = numpy.full(share.shape, None, dtype=object)
    near = share >= BOUND_FROM
    bound[near & (compute == share)] = "compute"
    bound[near & (memory == share)] = "memory"
    # With one ceiling unknown, a small share may only mean that the other one was reached.
    bound[~near & ~numpy.isnan(compute) & ~numpy.isnan(memory)] = "overhead"
    return share, bound


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageWork:
    """Time and work of a stage, summed over whatever one looks at; ``None``: not counted."""

    stage: Stage
    duration_ns: float
    flops: float | None
    bytes_read: float | None
    bytes_written: float | None
    ticks: int = 1
    """How many ticks are summed."""

    @property
    def bytes_moved(self) -> float | None:
        """Read and written."""
        if self.bytes_read is None or self.bytes_written is None:
            return None
        return self.bytes_read + self.bytes_written


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What bounds a stage."""

    bound: Bound | None
    roofline_share: float | None
    sentence: str


_TOO_LOW = "that was measured on a busy machine and may be too low; run tickwise doctor --refresh"
_OF_PYTHON = {
    Stage.DATA: "overhead: the next batch is fetched; the model waits",
    Stage.SCHEDULE: "overhead: choosing what the tick computes; the model waits",
    Stage.TOKENIZE: "overhead: text becomes tokens; the model waits",
    Stage.DETOKENIZE: "overhead: tokens become text; the model waits",
    Stage.CHECKPOINT: "overhead: files are written; the model waits",
    Stage.HOST: "overhead: Python between the stages; the model waits",
}


def judge(work: StageWork, roof: Roofline) -> Verdict:
    """Bound and share of a stage, and both in a sentence.

    The percentage in a sentence is what it names (bytes or FLOPs), divided by the time and by the ceiling.
    """
    if work.stage in PYTHON_STAGES:
        return Verdict("overhead", None, _OF_PYTHON[work.stage])
    if work.flops is None and work.bytes_moved is None:
        return Verdict(None, None, "n/a: the work of this stage is not counted")
    duration, flops, n_bytes = (
        numpy.array([numpy.nan if value is None else value], dtype=numpy.float64)
        for value in (work.duration_ns, work.flops, work.bytes_moved)
    )
    shares, bounds = place(duration, flops, n_bytes, roof)
    share: float | None = None if numpy.isnan(shares[0]) else float(shares[0])
    bound: Bound | None = bounds[0]
    if share is None or bound is None:
        return Verdict(None, share, "n/a: a ceiling of this machine is not known; run tickwise doctor --refresh")
    if bound == "compute":
        return Verdict(bound, share, _compute_sentence(work, roof, share))
    if bound == "memory":
        return Verdict(bound, share, _memory_sentence(work, roof, share))
    lost = "over 99 %" if share < 0.005 else f"{100 * (1 - share):.0f} %"
    return Verdict(bound, share, f"overhead-bound: {lost} of the time is neither moving bytes nor computing")


def _per_tick(amount: float | None, work: StageWork) -> float:
    return (amount or 0.0) / max(1, work.ticks)


def _compute_sentence(work: StageWork, roof: Roofline, share: float) -> str:
    """Above the peak, with the reason."""
    count = format_count(_per_tick(work.flops, work))
    amount = f"{count[:-1]} {count[-1]}FLOP" if count[-1].isalpha() else f"{count} FLOP"
    peak = f"this machine's measured {roof.number_format} peak"
    if share <= 1:
        return f"compute-bound: {amount} at {100 * share:.0f} % of {peak}{_doubt(roof)}"
    masked = work.stage in (Stage.ATTENTION, Stage.FORWARD, Stage.BACKWARD)
    why = ("attention counts in full, and its kernel leaves out what the causal mask hides" if masked
           else _TOO_LOW if roof.disturbed else "the peak was measured on matrices that suit this machine less")
    return f"compute-bound: {amount} in less time than {peak} allows: {why}"


def _memory_sentence(work: StageWork, roof: Roofline, share: float) -> str:
    read, written = work.bytes_read or 0.0, work.bytes_written or 0.0
    moved = read + written
    parts = [f"{verb} {format_bytes(_per_tick(amount, work))}" for verb, amount in (("read", read), ("wrote", written))
             if amount >= 0.005 * moved]
    did = "memory-bound: " + " and ".join(parts)
    if work.stage is Stage.FORWARD:
        did += " (counted before compilation, which moves less)"
    if share <= 1:
        return f"{did} at {100 * share:.0f} % of this machine's measured bandwidth{_doubt(roof)}"
    rate, ceiling = (f"{format_bytes(value)}/s" for value in (moved / (work.duration_ns * 1e-9), roof.bytes_per_s or 0))
    return f"{did} from cache, at {rate}; main memory gives {ceiling}{_doubt(roof)}"


def _doubt(roof: Roofline) -> str:
    return f" ({_TOO_LOW})" if roof.disturbed else ""
