import dataclasses
import json
import time

import pytest
import torch

from tickwise.profiling import ceilings as module
from tickwise.profiling import machine
from tickwise.profiling.ceilings import Ceilings, _Clock, ceilings, fingerprint, measure_ceilings

CPU = torch.device("cpu")
FIGURES = ("read_bandwidth", "fp32", "bf16", "int8")
QUIET, BUSY = dict.fromkeys(FIGURES, 1.0), dict.fromkeys(FIGURES, 0.5)


@pytest.fixture(scope="module")
def measured():
    return measure_ceilings(quick=True, device=CPU)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TICKWISE_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def fake(measured, monkeypatch):
    """Replaces measuring by ready figures; the list counts how often it was asked for."""
    calls = []

    def measure(quick=False, *, device=None):
        calls.append(quick)
        return dataclasses.replace(measured, quick=quick, fingerprint=fingerprint(device),
                                   cpu_share=QUIET)

    monkeypatch.setattr(module, "measure_ceilings", measure)
    return calls


def test_no_ordinary_product_or_read_beats_the_ceiling(measured):
    a, b = torch.randn(700, 900), torch.randn(900, 800)
    data = torch.ones(64 * 2**20)
    rates, bandwidths = [], []
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        rates.append(2 * 700 * 900 * 800 / (time.perf_counter() - start))
        start = time.perf_counter()
        data.sum()
        bandwidths.append(data.numel() * 4 / (time.perf_counter() - start))
    # The machine may be busier in one of the two measurements; twice the ceiling would be a false ceiling.
    assert sorted(rates)[2] < 2 * measured.flops_per_s["fp32"]
    assert sorted(bandwidths)[2] < 2 * measured.read_bandwidth_bytes_per_s
    assert sorted(rates)[2] > measured.flops_per_s["fp32"] / 20


def test_figures_are_physically_possible_and_say_that_they_are_measured(measured):
    assert measured.kind == "measured"
    assert measured.quick
    assert {"fp32", "bf16"} <= set(measured.flops_per_s) == set(measured.measured_with) - {"read_bandwidth"}
    # No core of today does more than 256 fp32 FLOPs per cycle at 6 GHz, nor reads 100 GB/s from memory.
    assert 1e8 < measured.flops_per_s["fp32"] < measured.cores * 256 * 6e9
    assert 1e8 < measured.read_bandwidth_bytes_per_s < measured.cores * 100e9
    assert set(measured.cpu_share) == set(measured.measured_with)
    assert all(0 < share <= 1 for share in measured.cpu_share.values())


def test_measuring_moves_neither_random_numbers_nor_settings():
    torch.set_float32_matmul_precision("high")
    try:
        state = torch.get_rng_state()
        measure_ceilings(quick=True, device=CPU)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_int8_kernel_computes_exact_integer_products():
    a, b = (torch.randint(-127, 128, (48, 48), dtype=torch.int8) for _ in range(2))
    assert torch.equal(torch._int_mm(a, b).long(), a.long() @ b.long())


def test_the_packed_kernel_computes_the_same_product_as_linear():
    a, weight = torch.randn(64, 128), torch.randn(96, 128)
    packed = module._packed_linear(a, weight)
    if packed is None:
        pytest.skip("this build of torch has no packed linear")
    torch.testing.assert_close(packed(), torch.nn.functional.linear(a, weight), rtol=1e-4, atol=1e-4)


def test_the_second_call_reads_the_cache_and_refresh_measures_anew(cache, fake):
    first = ceilings(device=CPU)
    assert ceilings(device=CPU) == first
    assert fake == [False]
    ceilings(refresh=True, device=CPU)
    assert fake == [False, False]
    stored = json.loads(next(cache.glob("ceilings-*.json")).read_text())
    assert stored["flops_per_s"] == first.flops_per_s


def test_quick_figures_do_not_stand_in_for_full_ones_but_full_ones_for_quick(cache, fake):
    assert ceilings(device=CPU, quick=True).quick
    assert not ceilings(device=CPU).quick
    assert not ceilings(device=CPU, quick=True).quick
    assert fake == [True, False]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"cores": 2}', "a wrong table"])
def test_a_broken_cache_is_measured_anew(cache, fake, content, measured):
    if content == "a wrong table":
        content = json.dumps(dataclasses.asdict(measured) | {"quick": False, "flops_per_s": 5})
    (cache / f"ceilings-{fingerprint(CPU)}.json").write_text(content)
    assert isinstance(ceilings(device=CPU), Ceilings)
    assert fake == [False]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, fake):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TICKWISE_CACHE", str(tmp_path / "file"))
    assert ceilings(device=CPU).flops_per_s["fp32"] > 0


def test_other_threads_are_another_fingerprint():
    before = torch.get_num_threads()
    one = fingerprint(CPU)
    try:
        torch.set_num_threads(before + 1)
        assert fingerprint(CPU) != one
    finally:
        torch.set_num_threads(before)
    assert fingerprint(CPU) == one


def test_figures_from_a_busy_machine_are_raised_later_never_lowered(cache, fake, measured):
    path = cache / f"ceilings-{fingerprint(CPU)}.json"
    bandwidth = 10 * measured.read_bandwidth_bytes_per_s
    busy = dataclasses.replace(
        measured, quick=False, fingerprint=fingerprint(CPU), cpu_share=BUSY, date="2020-01-01T00:00:00+00:00",
        flops_per_s={**measured.flops_per_s, "fp32": 1.0}, read_bandwidth_bytes_per_s=bandwidth,
    )
    assert busy.disturbed
    path.write_text(json.dumps(dataclasses.asdict(busy)))
    later = ceilings(device=CPU)
    assert fake == [False]
    assert later.flops_per_s["fp32"] == measured.flops_per_s["fp32"]
    assert later.read_bandwidth_bytes_per_s == bandwidth
    # The bandwidth is still the busy one's; fp32 is not.
    assert later.disturbed
    assert later.cpu_share == {**QUIET, "read_bandwidth": 0.5}


def test_no_share_is_taken_of_a_figure_from_a_busy_machine(measured):
    busy = dataclasses.replace(measured, cpu_share={**QUIET, "bf16": 0.5})
    assert busy.peak_flops_per_s("fp32") == measured.flops_per_s["fp32"]
    assert busy.peak_flops_per_s("bf16") is None
    assert busy.peak_flops_per_s("fp8") is None


def test_refreshing_on_a_busy_machine_keeps_the_figures_of_the_quiet_one(cache, measured, monkeypatch):
    quiet = dataclasses.replace(measured, quick=False, fingerprint=fingerprint(CPU), cpu_share=QUIET)
    half = {name: rate / 2 for name, rate in quiet.flops_per_s.items()}
    slow = dataclasses.replace(quiet, flops_per_s=half, date="2030-01-01T00:00:00+00:00",
                               read_bandwidth_bytes_per_s=quiet.read_bandwidth_bytes_per_s / 2)
    (cache / f"ceilings-{fingerprint(CPU)}.json").write_text(json.dumps(dataclasses.asdict(quiet)))
    busy = dataclasses.replace(slow, cpu_share=BUSY)
    monkeypatch.setattr(module, "measure_ceilings", lambda **options: busy)
    assert ceilings(refresh=True, device=CPU) == quiet
    monkeypatch.setattr(module, "measure_ceilings", lambda **options: slow)
    assert ceilings(refresh=True, device=CPU) == slow


def test_a_container_limit_below_the_machines_memory_is_what_counts(tmp_path):
    inner = tmp_path / "pod" / "container"
    inner.mkdir(parents=True)
    (tmp_path / "self").write_text("0::/pod/container\n")
    (inner / "memory.max").write_text("max\n")
    assert machine.cgroup_memory(tmp_path, tmp_path / "self") is None
    (tmp_path / "pod" / "memory.max").write_text("1000000\n")
    (tmp_path / "pod" / "memory.current").write_text("400000\n")
    (tmp_path / "pod" / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    assert machine.cgroup_memory(tmp_path, tmp_path / "self") == (1_000_000, 300_000)


def test_limits_are_found_in_version_1_groups_and_when_the_path_is_the_hosts(tmp_path):
    (tmp_path / "self").write_text("5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert machine.cgroup_memory(tmp_path, tmp_path / "self") is None
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("2000")
    assert machine.cgroup_memory(tmp_path, tmp_path / "self") == (2000, 0)


def test_a_cpu_quota_is_read_in_cores(tmp_path):
    (tmp_path / "self").write_text("0::/\n")
    assert machine.cgroup_cpu_quota(tmp_path, tmp_path / "self") is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cgroup_cpu_quota(tmp_path, tmp_path / "self") is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.cgroup_cpu_quota(tmp_path, tmp_path / "self") == 1.5


def test_memory_is_within_what_the_machine_has():
    total, available = machine.memory_bytes()
    assert 0 < available <= total


@pytest.mark.parametrize(("threads", "counts"), [(1, False), (2, True)])
def test_of_one_thread_only_the_time_on_the_core_counts(threads, counts):
    """Sleeping stands for what other programs take."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seconds, share = _Clock(CPU, 0.01).calls(lambda: time.sleep(0.05), 1)
    finally:
        torch.set_num_threads(before)
    assert (seconds >= 0.05) is counts
    assert share < 0.5 if counts else share == 1
