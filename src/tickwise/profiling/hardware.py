"""What a machine can do: measured here, from a file, or from a data sheet for hardware that is not here."""

import dataclasses
from pathlib import Path
from typing import Any

from tickwise.core.config import closest, from_dict, read_json
from tickwise.core.console import say
from tickwise.core.errors import ConfigError
from tickwise.profiling.ceilings import Ceilings, fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """Peak figures of one device. A figure that nobody stated is ``None`` or absent, and asking for it is an error."""

    name: str
    source: str = ""
    """Where the figures are from."""
    memory_bytes: int | None = None
    """Of the device that computes."""
    read_bandwidth_bytes_per_s: float | None = None
    flops_per_s: dict[str, float] = dataclasses.field(default_factory=dict)
    """Dense matrix products by number format (fp32, bf16, fp16, int8), without structured sparsity."""
    power_w: float | None = None
    """Drawn while it computes."""
    gpu: bool = False
    """Several of them exchange gradients by NCCL, not by gloo."""
    kind: str = "data-sheet"
    """``measured``, ``data-sheet`` or ``file``."""

    def __post_init__(self) -> None:
        figures: dict[str, Any] = {
            "memory_bytes": self.memory_bytes, "read_bandwidth_bytes_per_s": self.read_bandwidth_bytes_per_s,
            "power_w": self.power_w,
        }
        if not isinstance(self.flops_per_s, dict):
            raise ConfigError(f"{self.name}: flops_per_s must map number formats to numbers, got {self.flops_per_s!r}")
        figures |= {f"flops_per_s.{name}": rate for name, rate in self.flops_per_s.items()}
        for name, value in figures.items():
            wrong = isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf")
            if value is not None and wrong:
                raise ConfigError(f"{self.name}: {name} must be a positive number, got {value!r}")

    def peak_flops_per_s(self, number_format: str) -> float:
        """``ConfigError`` in one line when it is not known."""
        rate = self.flops_per_s.get(number_format)
        if rate is None:
            known = ", ".join(self.flops_per_s) or "none"
            raise ConfigError(f"hardware {self.name}: no figure flops_per_s.{number_format} (it has: {known}); choose "
                              "another --dtype or give it in a JSON file")
        return rate

    def bandwidth_bytes_per_s(self) -> float:
        """``ConfigError`` in one line when it is not known."""
        if self.read_bandwidth_bytes_per_s is None:
            raise ConfigError(f"hardware {self.name}: no figure read_bandwidth_bytes_per_s; give it in the JSON file")
        return self.read_bandwidth_bytes_per_s


def _nvidia(name: str, document: str, memory_gb: int, bandwidth_gb_per_s: float, power_w: float,
            **tera: float) -> Hardware:
    return Hardware(
        name=name, source=f"NVIDIA, {document}; dense rates", memory_bytes=memory_gb * 10**9,
        read_bandwidth_bytes_per_s=bandwidth_gb_per_s * 1e9,
        flops_per_s={number_format: rate * 1e12 for number_format, rate in tera.items()}, power_w=power_w,
        gpu=True,
    )


# fp32 is the rate of true float32 products, not TF32; bf16 and fp16 accumulate in float32; power is the board's limit.
_DATA_SHEETS = {
    "a100": _nvidia("A100 SXM 80 GB", "A100 Tensor Core GPU data sheet", 80, 2039, 400,
                    fp32=19.5, bf16=312, fp16=312, int8=624),
    "h100": _nvidia("H100 SXM", "H100 Tensor Core GPU data sheet", 80, 3350, 700,
                    fp32=67, bf16=989.5, fp16=989.5, int8=1979),
    "rtx4090": _nvidia("GeForce RTX 4090", "Ada GPU architecture white paper", 24, 1008, 450,
                       fp32=82.6, bf16=165.2, fp16=165.2, int8=660.6),
}


def hardware_from_ceilings(measured: Ceilings) -> Hardware:
    """This machine, as ``doctor`` measured it; its power is not known."""
    return Hardware(
        name=f"here ({measured.device_name})", source=f"measured on {measured.date}",
        memory_bytes=measured.memory_bytes, read_bandwidth_bytes_per_s=measured.read_bandwidth_bytes_per_s,
        flops_per_s=dict(measured.flops_per_s), gpu=measured.device.startswith("cuda"), kind="measured",
    )


def named_hardware(name: str) -> Hardware:
    """A device of the table of data sheets, or the one that a JSON file describes.

    The file holds the fields of ``Hardware``; what ``tickwise doctor --json`` prints is such a file too.
    ``ConfigError`` for a name that is neither.
    """
    if name.lower() in _DATA_SHEETS:
        return _DATA_SHEETS[name.lower()]
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"--hardware {name}: neither a file nor one of here, {', '.join(_DATA_SHEETS)}"
                          f"{closest(name.lower(), ['here', *_DATA_SHEETS])}")
    values = read_json(path, "the hardware description")
    size = values.get("memory_bytes")
    if isinstance(size, float) and size.is_integer():  # 8e9
        values = {**values, "memory_bytes": int(size)}
    if "fingerprint" in values:  # printed by doctor, on whichever machine
        return _from_doctor(values, path)
    return from_dict(Hardware, {"name": path.stem, "source": str(path), "kind": "file"} | values, where=str(path))


def _from_doctor(values: dict[str, Any], path: Path) -> Hardware:
    """What doctor measured on some machine; a line says whether it was this one."""
    here = values["fingerprint"] == fingerprint()
    if here:
        say(f"{path}: measured on this machine; --hardware here also knows what its operations cost beyond that")
    else:
        say(f"{path}: its fingerprint {values['fingerprint']} is not that of this machine, {fingerprint()}: measured "
            "on another machine, or with another number of threads or version of torch")
    known = {field.name for field in dataclasses.fields(Hardware)}
    figures = {key: value for key, value in values.items() if key in known} | {
        "name": str(values.get("processor", path.stem)), "source": f"{path}, doctor on {values.get('measured_on')}",
        "kind": "measured" if here else "measured elsewhere", "gpu": str(values.get("device")).startswith("cuda"),
    }
    return from_dict(Hardware, figures, where=str(path))
