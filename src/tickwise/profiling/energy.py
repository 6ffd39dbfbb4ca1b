"""Energy of a run: measured by the processor's or the accelerator's own counter, otherwise modelled and marked so.

Measured: RAPL counters of the Linux power capping framework (Documentation/power/powercap; packages and their DRAM,
which packages do not include), or NVML on NVIDIA accelerators (library ``nvidia-ml-py``, extra ``tickwise[energy]``).
They advance about every millisecond, so they are read over stretches of at least ``MEASURE_EVERY_NS`` and divided
among the rows of a stretch by time.

Modelled: ``FLOPs · J/FLOP + bytes · J/byte + seconds · idle watts``. Rough, and wrong both ways: what
instructions themselves cost is left out, and every counted byte costs what one of DRAM does, also where a cache served
it. It compares stages and number formats, not machines.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy
from numpy.typing import NDArray

from tickwise.core.config import from_dict, read_json
from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

EnergySource = Literal["measured", "modelled", "none"]
MEASURE_EVERY_NS = 100_000_000
_POWERCAP = Path("/sys/class/powercap")


class EnergyMeter(Protocol):
    """A counter of energy."""

    name: str

    def joules(self) -> float:
        """Energy since the meter was made."""


class RaplMeter:
    """The sum of the packages' and their DRAM's counters."""

    def __init__(self, zones: list[Path]) -> None:
        """Raises ``PermissionError`` where only root may read them."""
        self._counters = [zone / "energy_uj" for zone in zones]
        self._wraps_at_uj = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._last_uj = [int(counter.read_text()) for counter in self._counters]
        self._total_uj = 0
        self.name = "RAPL: " + ", ".join((zone / "name").read_text().strip() for zone in zones)

    def joules(self) -> float:
        """Counts a counter that has wrapped around; it may do so once between two calls (minutes to hours)."""
        for index, counter in enumerate(self._counters):
            now_uj = int(counter.read_text())
            step_uj = now_uj - self._last_uj[index]
            self._total_uj += step_uj if step_uj >= 0 else step_uj + self._wraps_at_uj[index]
            self._last_uj[index] = now_uj
        return self._total_uj * 1e-6


class NvmlMeter:
    """The board's energy counter of one NVIDIA accelerator."""

    def __init__(self, device: "torch.device") -> None:
        """Raises ``ImportError`` without the library, and its ``NVMLError`` where the board has no counter."""
        import pynvml
        import torch

        pynvml.nvmlInit()
        # torch numbers the accelerators that it may use, NVML all that there are: they agree on the identifier only.
        uuid = torch.cuda.get_device_properties(device).uuid
        self._nvml, self._handle = pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        self._start_mj = self._read_mj()
        self.name = f"NVML: accelerator GPU-{uuid}"

    def _read_mj(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def joules(self) -> float:
        return (self._read_mj() - self._start_mj) * 1e-3


def rapl_zones(root: Path = _POWERCAP) -> list[Path]:
    """Counters to add up: every package and every DRAM; not ``psys``, which contains both."""
    zones = []
    for zone in sorted(root.glob("intel-rapl:*")):  # AMD's are named so, too
        try:
            name = (zone / "name").read_text().strip()
        except OSError:
            continue
        if name.startswith("package") or name == "dram":
            zones.append(zone)
    return zones


def find_meter(device: "torch.device", root: Path = _POWERCAP) -> tuple[EnergyMeter | None, str]:
    """The meter for ``device`` and its name, or ``None`` and why there is none."""
    if device.type == "cuda":
        try:
            return _named(NvmlMeter(device))
        except ImportError:
            return None, "install tickwise[energy] to read the accelerator's energy counter"
        except Exception as problem:  # NVMLError is a class of the library that may be missing
            return None, f"the accelerator's energy counter cannot be read: {problem}"
    if device.type != "cpu":
        return None, f"no energy counter is known for {device.type}"
    zones = rapl_zones(root)
    if not zones:
        return None, "this machine shows no energy counter (RAPL)"
    try:
        return _named(RaplMeter(zones))
    except PermissionError:
        return None, (f"only root may read this machine's energy counters; to let everybody: "
                      f"sudo chmod a+r {root}/*/energy_uj")
    except (OSError, ValueError) as problem:
        return None, f"the energy counters cannot be read: {problem}"


def _named(meter: EnergyMeter) -> tuple[EnergyMeter, str]:
    return meter, meter.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyCoefficients:
    """What the model of a processor's energy is made of."""

    joules_per_flop: dict[str, float]
    """By number format; the mean of an addition and a multiplication."""
    joules_per_byte: float
    """Between main memory and the processor."""
    idle_watts_per_core: float
    source: str

    def __post_init__(self) -> None:
        figures: Mapping[str, Any] = {
            "joules_per_byte": self.joules_per_byte, "idle_watts_per_core": self.idle_watts_per_core,
            **{f"joules_per_flop.{name}": value for name, value in self.joules_per_flop.items()},
        }
        for name, value in figures.items():
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
                raise ConfigError(f"{name}: must be a number of at least 0, got {value!r}")


DEFAULT_COEFFICIENTS = EnergyCoefficients(
    # Addition and multiplication: fp32 0.9 and 3.7 pJ, fp16 0.4 and 1.1 pJ, int8 0.03 and 0.2 pJ.
    joules_per_flop={"fp32": 2.3e-12, "bf16": 0.75e-12, "fp16": 0.75e-12, "int8": 0.115e-12},
    # 1.3 nJ for 64 bits, the lower end of the published range.
    joules_per_byte=1.3e-9 / 8,
    idle_watts_per_core=0.74,
    source="operations and DRAM: Horowitz, ISSCC 2014, figure 1.1.9 (45 nm; bf16 taken as fp16); idle power per core: "
           "Cloud Carbon Footprint's average over cloud processors (SPECpower)",
)


def read_coefficients(path: Path) -> EnergyCoefficients:
    """Coefficients from a JSON file with the fields of ``EnergyCoefficients``; what it leaves out keeps its default.

    Raises ``ConfigError`` for unknown keys and values that are no numbers.
    """
    try:
        return from_dict(EnergyCoefficients, read_json(path, "energy coefficients"), where=str(path),
                         default=DEFAULT_COEFFICIENTS)
    except ConfigError as problem:
        text = str(problem)
        raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyModel:
    """The coefficients that apply to one run."""

    joules_per_flop: float
    joules_per_byte: float
    idle_watts: float

    def joules(
        self, duration_ns: NDArray[numpy.float64], flops: NDArray[numpy.float64], n_bytes: NDArray[numpy.float64]
    ) -> NDArray[numpy.float64]:
        """Of many rows; NaN where the work is not known."""
        return flops * self.joules_per_flop + n_bytes * self.joules_per_byte + duration_ns * 1e-9 * self.idle_watts


def energy_model(coefficients: EnergyCoefficients, number_format: str, cores: int) -> EnergyModel | None:
    """The model of a run on ``cores`` cores; ``None`` where the number format has no coefficient."""
    per_flop = coefficients.joules_per_flop.get(number_format)
    if per_flop is None:
        return None
    return EnergyModel(joules_per_flop=per_flop, joules_per_byte=coefficients.joules_per_byte,
                       idle_watts=coefficients.idle_watts_per_core * cores)


