"""Figures of hardware that is not here: complete or refused in one line."""

import json

import pytest

from tickwise.core.errors import ConfigError
from tickwise.profiling.ceilings import fingerprint
from tickwise.profiling.hardware import _DATA_SHEETS, Hardware, named_hardware


def test_every_data_sheet_names_its_document_and_has_plausible_figures():
    for hardware in _DATA_SHEETS.values():
        assert "NVIDIA" in hardware.source
        assert hardware.kind == "data-sheet"
        assert hardware.flops_per_s["fp32"] < hardware.flops_per_s["fp16"] < hardware.flops_per_s["int8"]
        assert 10e9 < hardware.memory_bytes < 1e12
        assert 100e9 < hardware.bandwidth_bytes_per_s() < 10e12


def test_names_do_not_depend_on_case_and_unknown_ones_get_a_suggestion():
    assert named_hardware("H100").peak_flops_per_s("bf16") == pytest.approx(989.5e12)
    with pytest.raises(ConfigError, match="did you mean 'h100'"):
        named_hardware("h10")


def test_a_missing_figure_is_named_with_those_that_are_known():
    old = Hardware(name="old", flops_per_s={"fp32": 1e12, "fp16": 2e12})
    with pytest.raises(ConfigError, match=r"old: no figure flops_per_s\.bf16 \(it has: fp32, fp16\)"):
        old.peak_flops_per_s("bf16")


def write(tmp_path, values):
    path = tmp_path / "box.json"
    path.write_text(json.dumps(values))
    return str(path)


def test_a_file_gives_its_figures_and_is_named_as_their_source(tmp_path):
    path = write(tmp_path, {"memory_bytes": 8_000_000_000, "flops_per_s": {"fp32": 1e11}})
    hardware = named_hardware(path)
    assert (hardware.name, hardware.source, hardware.kind) == ("box", path, "file")
    assert hardware.peak_flops_per_s("fp32") == 1e11
    with pytest.raises(ConfigError, match="box: no figure read_bandwidth_bytes_per_s"):
        hardware.bandwidth_bytes_per_s()


def test_what_doctor_prints_is_such_a_file_and_says_whose_it_is(tmp_path, capsys):
    printed = {
        "cores": 2, "memory_bytes": 10**10, "read_bandwidth_bytes_per_s": 2e10, "flops_per_s": {"fp32": 1e11},
        "uses": {"device": "cpu"}, "processor": "a processor", "measured_on": "2020-01-01",
    }
    for mark, kind, said in (("0" * 16, "measured elsewhere", "is not that of this machine"),
                             (fingerprint(), "measured", "measured on this machine")):
        hardware = named_hardware(write(tmp_path, printed | {"fingerprint": mark}))
        assert (hardware.name, hardware.kind) == ("a processor", kind)
        assert hardware.bandwidth_bytes_per_s() == 2e10
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("values", [
    {"memory_bytes": -1}, {"memory_bytes": True}, {"read_bandwidth_bytes_per_s": 0.0}, {"power_w": float("nan")},
    {"flops_per_s": {"fp32": "fast"}}, {"flops_per_s": [1]}, {"memory": 5},
])
def test_wrong_figures_are_refused(tmp_path, values):
    with pytest.raises(ConfigError):
        named_hardware(write(tmp_path, values))


def test_a_file_that_is_no_json_object_is_refused(tmp_path):
    (tmp_path / "box.json").write_text("[1")
    with pytest.raises(ConfigError, match="not valid JSON"):
        named_hardware(str(tmp_path / "box.json"))


def test_figures_must_be_positive_in_python_too():
    with pytest.raises(ConfigError, match="power_w"):
        Hardware(name="x", power_w=-3.0)
