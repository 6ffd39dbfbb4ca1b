import json
import sys
import types

import numpy
import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.profiling import energy

CPU = torch.device("cpu")


def zone(root, folder, name, energy_uj, wraps_at_uj=1_000_000):
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{wraps_at_uj}\n")
    return path


def test_packages_and_their_dram_are_added_up(tmp_path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 500)
    zone(tmp_path, "intel-rapl:0:0", "core", 400)
    dram = zone(tmp_path, "intel-rapl:0:1", "dram", 100)
    zone(tmp_path, "intel-rapl:1", "psys", 900)
    meter, name = energy.find_meter(CPU, tmp_path)
    assert name == "RAPL: package-0, dram"
    assert meter.joules() == 0
    (package / "energy_uj").write_text("2500\n")
    (dram / "energy_uj").write_text("600\n")
    assert meter.joules() == pytest.approx(2.5e-3)


def test_a_counter_that_wraps_around_goes_on_counting(tmp_path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 999_000, wraps_at_uj=1_000_000)
    meter, _ = energy.find_meter(CPU, tmp_path)
    (package / "energy_uj").write_text("4000\n")
    assert meter.joules() == pytest.approx(5e-3)
    (package / "energy_uj").write_text("3000\n")
    assert meter.joules() == pytest.approx(1.004)


def test_counters_for_root_only_say_what_to_do(tmp_path, monkeypatch):
    zone(tmp_path, "intel-rapl:0", "package-0", 1)

    def refuse(_zones):
        raise PermissionError

    monkeypatch.setattr(energy, "RaplMeter", refuse)
    meter, why = energy.find_meter(CPU, tmp_path)
    assert meter is None
    assert "chmod a+r" in why


def test_no_counter_says_so(tmp_path):
    assert energy.find_meter(CPU, tmp_path / "nothing") == (None, "this machine shows no energy counter (RAPL)")
    assert energy.find_meter(torch.device("mps"))[0] is None


def test_an_accelerator_is_read_through_nvml(monkeypatch):
    readings = iter([7_000, 7_000, 9_500])
    asked = []
    properties = {torch.device("cuda:1"): types.SimpleNamespace(uuid="1234-abcd")}
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
    library = types.SimpleNamespace(nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=asked.append,
                                    nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(readings))
    monkeypatch.setitem(sys.modules, "pynvml", library)
    meter, name = energy.find_meter(torch.device("cuda:1"))
    assert asked == ["GPU-1234-abcd"], "NVML's numbers are not torch's where CUDA_VISIBLE_DEVICES hides some"
    assert name == "NVML: accelerator GPU-1234-abcd"
    assert [meter.joules(), meter.joules()] == pytest.approx([0.0, 2.5])
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "tickwise[energy]" in energy.find_meter(torch.device("cuda"))[1]


def test_the_model_adds_work_and_idle_power():
    coefficients = energy.EnergyCoefficients(joules_per_flop={"fp32": 2e-12}, joules_per_byte=1e-10,
                                             idle_watts_per_core=0.5, source="a test")
    model = energy.energy_model(coefficients, "fp32", cores=4)
    joules = model.joules(numpy.array([1e9, 1e9]), numpy.array([1e12, numpy.nan]), numpy.array([1e10, 0.0]))
    assert joules[0] == pytest.approx(2.0 + 1.0 + 2.0)
    assert numpy.isnan(joules[1]), "unknown work has no known energy"
    assert energy.energy_model(coefficients, "fp8", cores=4) is None


def test_coefficients_can_be_given_in_a_file(tmp_path):
    file = tmp_path / "energy.json"
    file.write_text(json.dumps({"joules_per_byte": 5e-11, "joules_per_flop": {"fp32": 1e-12}}))
    given = energy.read_coefficients(file)
    assert (given.joules_per_byte, given.joules_per_flop) == (5e-11, {"fp32": 1e-12})
    assert given.idle_watts_per_core == energy.DEFAULT_COEFFICIENTS.idle_watts_per_core


@pytest.mark.parametrize("content", [
    '{"joules_per_byte": -1}', '{"joules_per_byte": "a"}', '{"joules_per_flop": {"fp32": null}}',
    '{"idle_watts_per_core": Infinity}', '{"watts": 3}', "[]", "{",
])  # fmt: skip
def test_bad_coefficients_are_one_line_that_names_the_file(tmp_path, content):
    file = tmp_path / "energy.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"energy\.json") as caught:
        energy.read_coefficients(file)
    assert "\n" not in str(caught.value)
