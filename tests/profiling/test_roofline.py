import dataclasses
import random
import re

import numpy
import pytest

from tickwise.core.stages import Stage
from tickwise.profiling.roofline import Roofline, StageWork, judge, place

# 100 GFLOP/s and 10 GB/s: work of 10 FLOPs a byte takes the same time at both ceilings.
ROOF = Roofline(number_format="fp32", flops_per_s=100e9, bytes_per_s=10e9)


def stage(duration_ns, flops=0, read=0, written=0, name=Stage.FFN):
    return StageWork(stage=name, duration_ns=duration_ns, flops=flops, bytes_read=read, bytes_written=written)


def test_a_stage_near_the_bandwidth_is_memory_bound_and_says_how_near():
    # 1.8 MB at 10 GB/s take 180 µs; measured 253.5 µs.
    verdict = judge(stage(253_521, flops=1_000_000, read=1_800_000), ROOF)
    assert verdict.bound == "memory"
    assert verdict.roofline_share == pytest.approx(0.71, abs=1e-4)
    assert verdict.sentence == "memory-bound: read 1.8 MB at 71 % of this machine's measured bandwidth"


def test_a_stage_near_the_peak_is_compute_bound():
    verdict = judge(stage(1_000_000, flops=80_000_000, read=1000), ROOF)
    assert verdict.bound == "compute"
    assert verdict.sentence == "compute-bound: 80 MFLOP at 80 % of this machine's measured fp32 peak"


def test_a_stage_far_from_both_is_overhead_bound():
    verdict = judge(stage(1_000_000, flops=10_000_000, read=3_600_000), ROOF)
    assert verdict.bound == "overhead"
    assert verdict.sentence == "overhead-bound: 64 % of the time is neither moving bytes nor computing"


def test_data_from_a_cache_never_reads_as_more_than_the_bandwidth():
    verdict = judge(stage(100_000, flops=1, read=2_400_000), ROOF)
    assert verdict.bound == "memory"
    assert verdict.roofline_share == pytest.approx(2.4)
    assert "from cache, at 24 GB/s; main memory gives 10 GB/s" in verdict.sentence
    assert "240" not in verdict.sentence


def test_written_bytes_count_like_read_ones():
    both = judge(stage(100_000, read=100_000, written=700_000), ROOF)
    assert both.roofline_share == pytest.approx(0.8)
    assert both.sentence == "memory-bound: read 100 kB and wrote 700 kB at 80 % of this machine's measured bandwidth"
    assert "read" not in judge(stage(100_000, read=1_000, written=700_000), ROOF).sentence, "nothing worth the name"


def percent_in(sentence):
    return int(re.search(r"at (\d+) %", sentence)[1]) / 100


def test_the_percentage_of_a_sentence_is_what_it_names_over_time_and_ceiling():
    generator = random.Random(0)
    for _ in range(200):
        duration_ns = 10 ** generator.uniform(4, 7)
        read, written = (generator.uniform(0, 0.5) * duration_ns * 10 for _ in range(2))
        verdict = judge(stage(duration_ns, flops=1, read=read, written=written), ROOF)
        if verdict.bound == "memory":
            units, amounts = {"B": 1, "kB": 1e3, "MB": 1e6}, re.findall(r"([\d.]+) ([kM]?B) ", verdict.sentence)
            named = sum(float(number) * units[unit] for number, unit in amounts)
            assert named / duration_ns / 10 == pytest.approx(percent_in(verdict.sentence), abs=0.012)


def test_a_share_above_one_says_why():
    fast = stage(500_000, flops=80_000_000, name=Stage.ATTENTION)
    assert judge(fast, ROOF).roofline_share == pytest.approx(1.6)
    assert "causal mask" in judge(fast, ROOF).sentence
    assert "160" not in judge(fast, ROOF).sentence
    busy = dataclasses.replace(ROOF, disturbed=True)
    assert "busy machine" in judge(stage(500_000, flops=80_000_000), busy).sentence
    assert "busy machine" in judge(stage(100_000, flops=1, read=2_400_000), busy).sentence


def test_nearly_all_of_the_time_is_not_all_of_it():
    assert "over 99 %" in judge(stage(1_000_000, flops=1000, read=1000), ROOF).sentence


def test_compiled_work_is_counted_before_compilation_and_says_so():
    assert "before compilation" in judge(stage(100_000, read=900_000, name=Stage.FORWARD), ROOF).sentence


def test_sums_over_ticks_are_told_per_tick():
    work = StageWork(stage=Stage.HEAD, duration_ns=1_000_000, flops=1, bytes_read=8_000_000, bytes_written=0, ticks=10)
    assert "read 800 kB at 80 %" in judge(work, ROOF).sentence


def test_unknown_stays_unknown():
    nothing = StageWork(stage=Stage.SAMPLE, duration_ns=1000, flops=None, bytes_read=None, bytes_written=None)
    assert judge(nothing, ROOF).bound is None
    assert judge(nothing, ROOF).roofline_share is None
    assert judge(nothing, ROOF).sentence.startswith("n/a")
    no_peak = Roofline(number_format="fp32", flops_per_s=None, bytes_per_s=10e9)
    assert judge(stage(1_000_000, flops=10_000_000, read=1_000_000), no_peak).bound is None
    assert judge(stage(1_000_000, flops=10_000_000, read=9_000_000), no_peak).bound == "memory"


def test_time_outside_the_model_is_overhead():
    host = StageWork(stage=Stage.HOST, duration_ns=1000, flops=None, bytes_read=None, bytes_written=None)
    assert judge(host, ROOF).bound == "overhead"


def test_many_rows_at_once_agree_with_one_by_one():
    generator = numpy.random.default_rng(0)
    duration, flops, n_bytes = (10 ** generator.uniform(3, 8, 200) for _ in range(3))
    share, bound = place(duration, flops, n_bytes, ROOF)
    assert set(bound) == {"compute", "memory", "overhead"}
    for i in range(200):
        at_roof_ns = max(flops[i] / 100, n_bytes[i] / 10)
        assert share[i] == pytest.approx(at_roof_ns / duration[i])
        if at_roof_ns < 0.5 * duration[i]:
            assert bound[i] == "overhead"
        else:
            assert bound[i] == ("compute" if flops[i] / 100 > n_bytes[i] / 10 else "memory")
