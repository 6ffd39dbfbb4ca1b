import dataclasses
import json

import pytest

from tickwise.cli import doctor, main
from tickwise.profiling import ceilings as measuring
from tickwise.profiling.ceilings import Ceilings
from tickwise.profiling.choices import choose

FIGURES = Ceilings(
    device="cpu", device_name="a processor", cores=2, threads=2, memory_bytes=8 * 10**9,
    read_bandwidth_bytes_per_s=20e9, flops_per_s={"fp32": 100e9, "bf16": 190e9},
    measured_with={"read_bandwidth": "sum", "fp32": "linear", "bf16": "linear"}, cpu_share={"fp32": 1.0}, quick=False,
    seconds=5.0, torch_version="2", fingerprint="0" * 16, date="2020-01-01T00:00:00+00:00",
)


@pytest.fixture
def figures(monkeypatch):
    def use(**changes):
        monkeypatch.setattr(
            measuring, "ceilings", lambda *arguments, **options: dataclasses.replace(FIGURES, **changes)
        )
    use()
    return use


def test_json_has_the_promised_keys_and_nothing_else_on_stdout(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TICKWISE_CACHE", str(tmp_path))
    assert main(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["cores"] >= 1
    assert found["memory_bytes"] >= found["memory_available_bytes"] > 0
    assert found["read_bandwidth_bytes_per_s"] > 1e8
    assert set(found["flops_per_s"]) >= {"fp32", "bf16"}
    assert found["uses"]["device"] in ("cpu", "cuda", "mps")
    assert found["uses"]["dtype"] in ("fp32", "bf16")
    assert set(found["uses"]["why"]) == {"device", "dtype", "threads", "compile", "allocator"}
    assert found["kind"] == "measured"
    assert "measuring" in captured.err

    assert main(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["flops_per_s"] == found["flops_per_s"]
    assert "measuring" not in captured.err


def test_the_tables_name_figures_choices_and_reasons(figures, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for text in ("20 GB/s", "100 GFLOP/s", "190 GFLOP/s", "measured on 2020-01-01", "dtype for training",
                 "torch.compile"):
        assert text in out
    assert "PyTorch was imported before" in " ".join(out.split()), "why memory is not set up here"


def test_figures_from_a_busy_machine_are_called_that(figures, capsys):
    figures(cpu_share={"fp32": 0.6})
    assert main(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["disturbed"] is True
    assert "--refresh" in captured.err


@pytest.mark.parametrize(("supported", "bf16", "expected"), [
    (True, 190e9, "bf16"), (True, 90e9, "fp32"), (True, None, "fp32"), (False, 190e9, "fp32"),
])
def test_bf16_is_chosen_only_where_supported_and_measured_faster(monkeypatch, supported, bf16, expected):
    import torch

    monkeypatch.setattr("tickwise.profiling.choices.has_fast_bf16", lambda device: supported)
    rates = {"fp32": 100e9} | ({"bf16": bf16} if bf16 else {})
    choices = choose(dataclasses.replace(FIGURES, flops_per_s=rates), torch.device("cpu"), None)
    assert choices.dtype == expected
    assert not choices.compile
    assert "compiler" in choices.why["compile"]


@pytest.mark.parametrize(("bf16", "share", "expected", "why"), [
    (90e9, 0.5, "bf16", "estimated on a busy machine at 1.80 times"),
    (90e9, 0.85, "bf16", "too busy to measure"),  # hardly slower, and nobody knows
    (50e9, 0.85, "fp32", "estimated on a busy machine at 0.59 times"),
    (95e9, 0.95, "fp32", "measured at 0.95 times"),  # that it was disturbed elsewhere says nothing here
])
def test_figures_from_a_busy_machine_are_compared_by_the_time_they_got(monkeypatch, bf16, share, expected, why):
    import torch

    monkeypatch.setattr("tickwise.profiling.choices.has_fast_bf16", lambda device: True)
    figures = dataclasses.replace(FIGURES, flops_per_s={"fp32": 100e9, "bf16": bf16},
                                  cpu_share={"fp32": 1.0, "bf16": share, "read_bandwidth": 0.8})
    assert figures.disturbed
    choices = choose(figures, torch.device("cpu"), None)
    assert choices.dtype == expected
    assert why in choices.why["dtype"]


def test_doctor_is_importable_without_torch_or_rich():
    import subprocess
    import sys

    code = "import sys, tickwise.cli.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert doctor.Arguments().refresh is False
