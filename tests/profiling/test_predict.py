"""Times predicted from listings: against hand-made machines whose answers are known."""

import pytest
import torch
from torch import nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage
from tickwise.profiling.hardware import Hardware
from tickwise.profiling.overheads import COLD, HOT, Overheads, Sample
from tickwise.profiling.predict import (
    Observation,
    OperationTimes,
    coldness,
    fit_correction,
    kind_of,
    predict,
    product_size,
    shares,
)
from tickwise.profiling.program import Instruction, list_program

BOX = Hardware(name="box", read_bandwidth_bytes_per_s=1e9, flops_per_s={"fp32": 1e10}, memory_bytes=10**9)


def instruction(op, shapes, outputs, flops=0, read=0, written=0, stage=Stage.FFN, dtype="float32", direction="forward"):
    return Instruction(stage=stage, layer=0, op=op, shapes=shapes, outputs=outputs, dtype=dtype, flops=flops,
                       bytes_read=read, bytes_written=written, direction=direction, module="")


PRODUCT = instruction("aten.mm", ((8, 100), (100, 50)), ((8, 50),), flops=80_000, read=23_200, written=1_600)


def test_without_overheads_an_instruction_takes_the_longer_of_its_bytes_and_its_flops():
    adding = instruction("aten.add", ((1000,), (1000,)), ((1000,),), read=8000, written=4000, stage=Stage.NORM)
    found = predict([PRODUCT, adding], BOX)
    assert found.at_best
    assert found.by_stage() == pytest.approx({Stage.FFN: 24_800 / 1e9, Stage.NORM: 12_000 / 1e9})
    slow = Hardware(name="slow", read_bandwidth_bytes_per_s=1e12, flops_per_s={"fp32": 1e6})
    assert predict([PRODUCT], slow).seconds == pytest.approx(80_000 / 1e6)
    assert found.seconds == pytest.approx(sum(row.seconds for row in found.rows))


def test_a_missing_figure_is_one_clear_line():
    half = instruction("aten.mm", ((8, 100), (100, 50)), ((8, 50),), flops=80_000, read=1, written=1, dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"box: no figure flops_per_s\.bf16"):
        predict([half], BOX)
    with pytest.raises(ConfigError, match="empty: no figure read_bandwidth"):
        predict([PRODUCT], Hardware(name="empty"))


def test_sizes_and_kinds_are_read_off_a_real_listing():
    module = nn.Sequential(nn.Linear(48, 80, bias=False), nn.SiLU(), nn.Linear(80, 16))
    program = list_program(module, torch.zeros(5, 48))
    kinds = [kind_of(i) for i in program.instructions if kind_of(i) != "view"]
    assert kinds == ["product", "curved", "product"]
    products = [product_size(i) for i in program.instructions if kind_of(i) == "product"]
    assert products == [(1, 5, 48, 80), (1, 5, 80, 16)]


def test_an_operation_on_a_list_is_a_kernel_for_every_tensor():
    lists = instruction("aten._foreach_add_", ((3, 4), (6,), (3, 4), (6,)), ())
    assert shares(lists) == pytest.approx([12 / 18, 6 / 18])


def calibration(seconds_of):
    """Samples of a machine on which an operation takes ``seconds_of(kind, size, footprint)``."""
    samples = []
    sizes = {"product": [(1, m, k, n) for m in (1, 8, 64) for k in (64, 512) for n in (64, 512)],
             "pointwise": [(400,), (40_000,), (4_000_000,)], "view": [(1,)]}
    for kind, several in sizes.items():
        for size in several:
            for footprint in (HOT, COLD):
                samples.append(Sample(kind=kind, dtype="fp32", footprint=footprint, size=size,
                                      seconds=seconds_of(kind, size, footprint)))
    return Overheads(samples=tuple(samples), fresh_memory_s_per_byte=0.0, threads=1, seconds=1.0, fingerprint="",
                     date="")


def test_calibrated_times_equal_the_samples_and_lie_between_them():
    def seconds(kind, size, footprint):
        if kind == "product":
            return 3e-6 + 2 * size[1] * size[2] * size[3] / 4e9
        return 2e-6 + size[0] / (2e9 if footprint == HOT else 5e8)

    times = OperationTimes(BOX, calibration(seconds))
    for size in ((1, 8, 64, 512), (1, 64, 512, 512), (1, 1, 64, 64)):
        assert times.of("product", "fp32", size, HOT) == pytest.approx(seconds("product", size, HOT), rel=0.03)
    between = times.of("product", "fp32", (1, 20, 200, 200), HOT)
    assert between == pytest.approx(seconds("product", (1, 20, 200, 200), HOT), rel=0.2)  # a grid of steps of eight
    hot, warm, cold = (times.of("pointwise", "fp32", (4_000_000,), f) for f in (HOT // 4, 2**22, 4 * COLD))
    assert hot == pytest.approx(seconds("pointwise", (4_000_000,), HOT), rel=0.03)
    assert cold == pytest.approx(seconds("pointwise", (4_000_000,), COLD), rel=0.03)
    assert hot < warm < cold
    # Beyond the grid the ratio to the roofline is kept: ten times the work takes about ten times as long.
    assert times.of("product", "fp32", (1, 640, 512, 512), HOT) == pytest.approx(
        10 * times.of("product", "fp32", (1, 64, 512, 512), HOT), rel=0.25)


def test_a_number_format_without_samples_takes_those_of_fp32():
    times = OperationTimes(BOX, calibration(lambda kind, size, footprint: 1e-5))
    assert times.of("view", "bf16", (1,), HOT) == pytest.approx(1e-5)


def test_a_correction_finds_the_factors_behind_measured_seconds():
    observations = []
    runs = ((10, 1e-4, 2e-5), (40, 3e-4, 9e-4), (100, 5e-3, 1e-4), (20, 2e-3, 3e-3), (60, 1e-5, 1e-5))
    for operations, product, copies in runs:
        features = {"operations": operations, "product": product, "copy": copies}
        seconds = 5e-6 * operations + 1.3 * product + 0.8 * copies
        observations.append(Observation(features, seconds, seconds))
    factors = fit_correction(observations).factors
    assert factors["operations"] == pytest.approx(5e-6, rel=0.05)
    assert factors["product"] == pytest.approx(1.3, rel=0.05)
    assert factors["copy"] == pytest.approx(0.8, rel=0.05)


def test_a_kind_that_no_reference_run_has_keeps_its_measured_time():
    correction = fit_correction([Observation({"product": 1.0}, 2.0, 2.0)])
    assert correction.seconds({"softmax": 0.25}) == 0.25
    assert correction.seconds({"cold operations": 7.0}) == 0.0


def test_no_factor_is_negative():
    factors = fit_correction([Observation({"product": 1.0, "copy": 5.0}, 0.1, 0.1),
                              Observation({"product": 1.0, "copy": 0.1}, 1.0, 1.0)]).factors
    assert min(factors.values()) >= 0


def test_coldness_runs_from_a_core_s_own_cache_to_memory():
    assert coldness(0) == coldness(HOT) == 0.0
    assert 0.3 < coldness(2**24) < 0.7
    assert coldness(COLD) == coldness(COLD * 100) == 1.0
