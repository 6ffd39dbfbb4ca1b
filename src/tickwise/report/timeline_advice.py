"""What would make a stage faster, by what holds it back."""

from collections.abc import Iterable

from tickwise.core.console import format_duration

_SMALLER_FORMAT = {"fp32": "bf16 halves them", "bf16": "int8 halves them", "fp16": "int8 halves them"}
_WEIGHTS = ("qkv", "out", "ffn", "head", "cross_attention", "recurrent")
_WHATEVER_HOLDS_IT_BACK = {
    "host": "It is Python between the operations: fewer, larger operations, or more requests per tick, which share it.",
    "schedule": "It is the engine choosing its work: more tokens per tick (larger batches) spread it over more tokens.",
    "draft": "A smaller draft model, fewer tokens per guess, or guesses from the text itself.",
    "sample": "No penalties, probabilities or grammar that the task does not need; greedy or a small top-k, where the "
              "run is not greedy already.",
    "detokenize": "Sending text less often, in larger pieces.",
    "tokenize": "Tokenising before the tick, in another thread, or reusing the ids of a prompt seen before.",
    "data": "Preparing the data ahead of the step, and reading it from a local disk.",
    "checkpoint": "Saving less often.",
    "validation": "Validating less often, or on fewer batches.",
}


def machine_advice(threads: int | None, wall_ns: float, cpu_ns: float | None) -> str:
    """What helps where other programs took the time of a run with so many ``threads``, whose typical tick took so long
    and had so much processor time (``None``: not known)."""
    fewer = "" if threads == 1 else ", or with fewer threads than cores"
    computed = "" if cpu_ns is None or cpu_ns > wall_ns else (
        f": its own processor time was {format_duration(cpu_ns * 1e-9)} of {format_duration(wall_ns * 1e-9)} "
        f"(measured), so without them and without waiting it takes {100 * (1 - cpu_ns / max(1.0, wall_ns)):.0f} % less")
    return f"Other programs interrupted it{computed}. Measure on a machine with nothing else to do{fewer}."


def advice(phase: str, stage: str, bound: str, number_format: str) -> str:
    """One or two sentences for a stage of a tick in ``phase`` that is held back by ``bound``."""
    if stage in _WHATEVER_HOLDS_IT_BACK:
        return _WHATEVER_HOLDS_IT_BACK[stage]
    if bound == "memory":
        return _fewer_bytes(phase, stage, number_format)
    if bound == "compute":
        return _less_to_compute(phase, stage, number_format)
    if bound == "overhead":
        return _less_overhead(phase)
    return "Not known: without counted bytes and FLOPs, or without measured ceilings, nothing says what holds it back."


def _fewer_bytes(phase: str, stage: str, number_format: str) -> str:
    if stage == "attention":
        return ("Fewer bytes of cache: a shorter context, fewer key-value heads, or a smaller number format for it; "
                "every token reads all of it.")  # fmt: skip
    if stage in _WEIGHTS:
        smaller = _SMALLER_FORMAT.get(number_format)
        fewer = f"Fewer bytes per weight ({smaller})" if smaller else "Fewer bytes per weight"
        vocabulary = ", a smaller vocabulary," if stage == "head" else ""
        batch = "" if phase == "train" else " or more requests per tick: the weights are read once for all of them"
        return f"{fewer}{vocabulary}{batch}."
    if stage == "optimizer":
        return "Fewer bytes of state per parameter, or fewer steps with larger batches."
    return "Fusing it with the stage beside it (a compiled model), so that the same values are not read again."


def _less_to_compute(phase: str, stage: str, number_format: str) -> str:
    less = {
        "prefill": "Computing less: shorter texts to read, or prompts with a shared beginning that the prefix cache "
                   "already holds",
        "train": "A smaller model or a shorter context",
    }.get(phase, "Fewer requests per tick if latency matters more than throughput, or a smaller model")
    faster = ", or bf16 where the machine computes it faster" if number_format == "fp32" else ""
    quadratic = " Attention grows with the square of the prompt." if stage == "attention" and phase != "decode" else ""
    return f"{less}{faster}.{quadratic}"


def _less_overhead(phase: str) -> str:
    together = "a larger batch" if phase == "train" else "more requests per tick"
    return (f"Fewer, larger operations ({together}), fused or compiled kernels, a machine with nothing else to do. "
            "Smaller weights alone would change little: neither bytes nor arithmetic hold it back.")  # fmt: skip


def advice_table(
    phases: Iterable[str], stages: Iterable[str], bounds: Iterable[str], number_format: str
) -> dict[str, str]:
    """``phase/stage/bound`` → what would help."""
    return {
        f"{phase}/{stage}/{bound}": advice(phase, stage, bound, number_format)
        for phase in phases for stage in stages for bound in bounds
    }  # fmt: skip
