import pytest

from tickwise.core.stages import Stage
from tickwise.profiling.trace_phases import between_ticks, phase_summaries
from tickwise.profiling.trace_store import open_trace
from tickwise.profiling.trace_ticks import tick_reports

TICK_NS = 1405


def test_the_stages_of_a_phase_add_up_to_its_time(make_trace):
    prefill, decode = phase_summaries(open_trace(make_trace(n_ticks=20)))
    assert (prefill.phase, prefill.ticks, prefill.tokens) == ("prefill", 1, 1)
    assert (decode.phase, decode.ticks, decode.tokens) == ("decode", 19, 19)
    assert decode.wall_ns == 19 * TICK_NS == sum(stage.duration_ns for stage in decode.stages)
    assert sum(stage.time_share for stage in decode.stages) == pytest.approx(1)
    assert decode.median_tick_ns == TICK_NS
    stages = {stage.stage: stage for stage in decode.stages}
    assert list(stages) == ["embed", "norm", "ffn", "head", "sample", "host"], "in the order of a tick"
    assert stages["ffn"].flops == 19 * 16_000
    assert stages["head"].bytes_read == sum(1_000 + 10 * (10 + tick) for tick in range(1, 20))
    assert stages["sample"].flops is None
    assert stages["host"].bound == "overhead"
    # 16,000 FLOPs at 100 GFLOP/s take 160 ns, 5,000 bytes at 10 GB/s take 500 ns, of 900 ns.
    assert stages["ffn"].roofline_share == pytest.approx(500 / 900)
    assert stages["ffn"].sentence.startswith("memory-bound: read 4 kB and wrote 1 kB at 56 % of")


def test_a_tick_of_a_busy_machine_does_not_pass_for_typical(make_trace):
    """13 of 19 ticks wait 8 ms for a core, in turn in every stage: no median of stages would add up to one tick."""
    late = {tick: [(Stage.FFN, 8_000_000)] for tick in range(1, 20) if tick % 3}
    trace = open_trace(make_trace(n_ticks=20, late=late))
    decode = phase_summaries(trace)[1]
    assert decode.median_tick_ns > 8_000_000
    assert decode.typical.wall_ns / decode.typical.ticks == TICK_NS
    assert sum(stage.duration_ns for stage in decode.typical.stages) == decode.typical.wall_ns
    assert (decode.interrupted, decode.typical.uninterrupted, decode.typical.chosen_from) == (13, True, 6)
    assert decode.lost_ns == pytest.approx(13 * 8_000_000)
    assert decode.disturbance.startswith("13 of 19 ticks were interrupted by other programs")
    assert not decode.blames_the_machine
    assert "another program held the core (interrupted once)" in tick_reports(trace, [1])[0].why


def test_where_every_tick_was_interrupted_the_machine_is_to_blame(make_trace):
    trace = open_trace(make_trace(n_ticks=20, late={tick: [(Stage.FFN, 8_000_000)] for tick in range(20)}))
    decode = phase_summaries(trace)[1]
    assert decode.disturbance.startswith("every tick was interrupted by other programs")
    assert decode.blames_the_machine
    assert not decode.typical.uninterrupted


def test_a_quiet_machine_and_one_that_does_not_count_say_nothing(make_trace):
    for name, usage in (("quiet", True), ("unknown", False)):
        decode = phase_summaries(open_trace(make_trace(name, n_ticks=20, slow=7, usage=usage)))[1]
        assert decode.disturbance == ""
        assert decode.interrupted == (0 if usage else None)
        assert not decode.typical.uninterrupted


def test_the_time_between_ticks_is_known(make_trace):
    between = between_ticks(open_trace(make_trace(n_ticks=5)))
    assert (between.total_ns, between.median_ns, between.span_ns) == (4_000, 1_000, 5 * TICK_NS + 4_000)
    assert between_ticks(open_trace(make_trace("one", n_ticks=1))) is None
