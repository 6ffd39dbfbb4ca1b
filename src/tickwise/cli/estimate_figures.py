"""Number format, time, energy and cost of what ``tickwise estimate`` predicts."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tickwise.cli.estimate import Arguments
    from tickwise.profiling.predict import Machine, Prediction


def number_format(arguments: "Arguments", machine: "Machine") -> str:
    """Of the computation."""
    if arguments.dtype != "auto":
        return arguments.dtype
    if arguments.purpose == "serve":
        return "fp32"
    if machine.is_here:
        from tickwise.profiling.ceilings import ceilings
        from tickwise.profiling.choices import training_dtype

        return training_dtype(ceilings(device=machine.device), machine.device)[0]
    return "bf16" if "bf16" in machine.hardware.flops_per_s else "fp32"


def figures(prediction: "Prediction", machine: "Machine", dtype: str, tokens: int,
            arguments: "Arguments") -> dict[str, Any]:
    """Times, energy and cost of one step or tick that works on ``tokens`` tokens."""
    seconds = prediction.seconds
    joules, source = _energy(prediction, machine, dtype)
    cost = cost_of(seconds, joules, arguments)
    return {
        "time_s": {stage.value: spent for stage, spent in prediction.by_stage().items()} | {"total": seconds},
        "time_is": "at best: no overheads are known" if prediction.at_best else "with calibrated overheads",
        "tokens_per_s": tokens / seconds,
        "energy_j": joules, "energy_source": source,
        "cost": cost, "cost_per_million_tokens": None if cost is None else cost / tokens * 1e6,
        "cost_kind": "modelled",
    }


def cost_of(seconds: float, joules: float | None, arguments: "Arguments") -> float | None:
    """Of the machine's time and of the electricity, as far as prices were given; ``None`` where nothing was given, or
    the energy is not known."""
    parts = []
    if arguments.price_per_hour is not None:
        parts.append(seconds / 3600 * arguments.price_per_hour)
    if arguments.price_per_kwh is not None:
        if joules is None:
            return None
        parts.append(joules / 3.6e6 * arguments.price_per_kwh)
    return sum(parts) if parts else None


def _energy(prediction: "Prediction", machine: "Machine", dtype: str) -> tuple[float | None, str]:
    """Joules, and what they are modelled from."""
    from tickwise.profiling.energy import DEFAULT_COEFFICIENTS, energy_model
    from tickwise.profiling.machine import cores

    if machine.hardware.power_w is not None:
        return machine.hardware.power_w * prediction.seconds, "modelled: time × the power that its data sheet allows"
    if not machine.is_here or machine.device.type != "cpu":
        return None, "n/a: no figure power_w"
    model = energy_model(DEFAULT_COEFFICIENTS, dtype, cores())
    if model is None:
        return None, f"n/a: no coefficients for {dtype}"
    moved = sum(row.bytes_read + row.bytes_written for row in prediction.rows)
    flops = sum(row.flops for row in prediction.rows)
    joules = (model.joules_per_flop * flops + model.joules_per_byte * moved + model.idle_watts * prediction.seconds)
    return joules, f"modelled: {DEFAULT_COEFFICIENTS.source}"
