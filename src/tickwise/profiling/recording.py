"""From a running program to a trace on disk: ceilings, energy, ledger and files put together."""

import contextlib
import datetime
import secrets
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tickwise.core import console
from tickwise.core.config import to_dict
from tickwise.core.paths import atomic_directory, remove_temporaries
from tickwise.core.signals import postponed, termination_interrupts
from tickwise.profiling import machine
from tickwise.profiling.ceilings import Ceilings, ceilings
from tickwise.profiling.energy import DEFAULT_COEFFICIENTS, EnergyCoefficients, energy_model, find_meter
from tickwise.profiling.ledger import CostModel, Ledger, synchronizer
from tickwise.profiling.roofline import roofline_of
from tickwise.profiling.trace_store import TraceWriter, check_trace_output
from tickwise.profiling.usage import usage_reader

if TYPE_CHECKING:
    import torch

_NUMBER_FORMATS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
Listing = Sequence[Mapping[str, Any]]


class _NothingRecordedError(Exception):
    """Leaves the folder of a trace without ticks unwritten."""


@contextlib.contextmanager
def record_trace(
    path: Path, *, model: str, dtype: "torch.dtype", device: "torch.device", costs: CostModel | None = None,
    listing: Callable[[], Listing | None] = lambda: None, overwrite: bool | None = None,
    coefficients: EnergyCoefficients = DEFAULT_COEFFICIENTS,
) -> Iterator[Ledger]:
    """A ``Ledger`` whose rows become the trace at ``path`` when the block ends, also when Ctrl-C or SIGTERM ends it
    (one that comes while the trace is written waits until it is); any other exception leaves nothing behind, nor does a
    block without a finished tick. ``listing`` gives the instructions of a typical tick, asked at the end.

    Raises ``OutputError`` when ``path`` cannot be written or holds something already.
    """
    check_trace_output(path, overwrite)
    if path.parent.is_dir():
        remove_temporaries(path.parent)
    limits = ceilings(device=device, quick=True)
    name = str(dtype).removeprefix("torch.")
    roof = roofline_of(limits, _NUMBER_FORMATS.get(name, name))
    meter, energy_source = find_meter(device)
    model_of_energy = energy_model(coefficients, roof.number_format, limits.cores) if device.type == "cpu" else None
    if meter is None:
        console.note(f"energy: {energy_source}; " + ("modelled instead" if model_of_energy else "not known"))
    header = _header(model, roof.number_format, limits)
    header["roofline"] = asdict(roof)
    header["energy"] = _energy_header(meter is not None, energy_source, coefficients if model_of_energy else None)
    interrupt: KeyboardInterrupt | None = None
    with termination_interrupts(), contextlib.ExitStack() as writing:
        with contextlib.suppress(_NothingRecordedError), atomic_directory(path) as folder:
            writer = TraceWriter(folder, secrets.token_hex(4))
            ledger = Ledger(writer, roofline=roof, costs=costs, energy=meter or model_of_energy,
                            synchronize=synchronizer(device), usage=usage_reader())
            try:
                yield ledger
            except KeyboardInterrupt as stop:
                interrupt = stop
            writing.enter_context(postponed(signal.SIGINT, signal.SIGTERM))
            ledger.flush()
            if not writer.n_ticks:
                raise _NothingRecordedError
            header["recording"] = {"pauses": ledger.pauses, "pause_ns": ledger.pause_ns}
            writer.close(header, listing())
        if writer.n_ticks:
            ticks = "1 tick" if writer.n_ticks == 1 else f"{writer.n_ticks:,} ticks"
            console.say(f"trace: {ticks} in {path}; look at it with tickwise trace show {path}")
        else:
            console.say(f"no trace was written to {path}: the run ended before its first tick was over")
        if interrupt is not None:
            raise interrupt


def _header(model: str, number_format: str, limits: Ceilings) -> dict[str, Any]:
    from tickwise import __version__

    return {
        "command": shlex.join(["tickwise", *sys.argv[1:]]), "model": model, "dtype": number_format,
        "device": limits.device, "threads": limits.threads,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {"processor": machine.cpu_name(), "device": limits.device_name, "cores": limits.cores,
                    "memory_bytes": limits.memory_bytes, "cache_bytes": machine.last_level_cache_bytes()},
        "ceilings": to_dict(limits),
        "versions": {"tickwise": __version__, "torch": limits.torch_version},
        "kinds": {"duration_ns": "measured", "flops": "counted", "bytes_read": "counted", "bytes_written": "counted",
                  "bound": "modelled", "roofline_share": "modelled", "interruptions": "counted", "cpu_ns": "measured",
                  "core_wait_ns": "measured", "major_faults": "counted"},
        "timing": "every mark reads the clock" if limits.device == "cpu" else
                  "every mark waits for the accelerator, so the run is slower than without a trace",
    }  # fmt: skip


def _energy_header(measured: bool, source: str, coefficients: EnergyCoefficients | None) -> dict[str, Any]:
    if measured:
        return {"source": "measured", "meter": source}
    if coefficients is None:
        return {"source": "none", "why": source}
    return {"source": "modelled", "why": source, "coefficients": to_dict(coefficients)}
