import dataclasses
import json

import pytest

from tickwise.core.errors import ConfigError, DataError
from tickwise.core.stages import Stage
from tickwise.profiling.trace_store import open_trace
from tickwise.profiling.trace_views import (
    between_ticks,
    difference,
    phase_summaries,
    slowest_ticks,
    tick_of_token,
    tick_reports,
    ticks_as_json,
)

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


def test_json_has_every_tick_with_its_stages(make_trace):
    ticks = ticks_as_json(open_trace(make_trace(n_ticks=5)))
    json.dumps(ticks, allow_nan=False)
    assert [tick["tick"] for tick in ticks] == list(range(5))
    for tick in ticks:
        assert tick["wall_ns"] == TICK_NS == sum(stage["duration_ns"] for stage in tick["stages"])
        assert "host" in [stage["stage"] for stage in tick["stages"]]
    assert set(ticks[0]["stages"][0]) >= {"stage", "layer", "duration_ns", "flops", "bytes_read", "bytes_written",
                                          "bound", "roofline_share", "energy_j", "energy_source"}
    assert ticks[2]["tokens"] == [{"request_id": "a", "position": 12, "token_id": 2, "text": "c"}]
    assert [tick["tick"] for tick in ticks_as_json(open_trace(make_trace("b")), [3, 1])] == [1, 3]


def test_the_slowest_tick_is_found_with_the_stage_that_made_it_slow(make_trace):
    trace = open_trace(make_trace(n_ticks=20, slow=7))
    assert slowest_ticks(trace, 3)[0] == 7
    (report,) = tick_reports(trace, [7])
    assert (report.tick, report.text, report.phase) == (7, "h", "decode")
    assert report.wall_ns == TICK_NS + 9 * 500
    assert report.usual_wall_ns == TICK_NS
    assert report.slowest_part.stage == "ffn"
    assert report.slowest_part.excess_ns == 9 * 500
    assert {stage.stage: stage.excess_ns for stage in report.stages if stage.stage != "ffn"} == dict.fromkeys(
        ["embed", "norm", "head", "sample", "host"], 0)


def test_a_slow_tick_says_why(make_trace):
    trace = open_trace(make_trace(n_ticks=20, slow=7, usage=False))
    slow, usual = tick_reports(trace, [7, 8])
    assert slow.why.startswith("all of the 4 µs above the typical tick are in ffn, which took 6 × its usual time")
    assert "interruption" in slow.why
    assert usual.why == ""
    assert (slow.unusual, usual.unusual) == (True, False)
    assert slow.unusual_ns == 9 * 500
    assert slow.slowest_stage.stage == "ffn"


def test_a_tick_that_was_slow_all_over_blames_the_machine(make_trace):
    slow = tick_reports(open_trace(make_trace(n_ticks=20, slow_tick=9, usage=False)), [9])[0]
    assert "another program" in slow.why


def test_a_stage_that_few_ticks_have_is_what_makes_them_slow(make_trace):
    trace = open_trace(make_trace(n_ticks=20, extra=(Stage.VALIDATION, 11)))
    assert slowest_ticks(trace, 1) == [11]
    report = tick_reports(trace, [11])[0]
    assert report.slowest_part.stage == "validation"
    assert report.slowest_part.excess_ns == 50_000
    assert "all of the 50 µs above the typical tick are in validation, which most ticks do without" in report.why
    assert not report.unusual


def test_the_slowest_of_a_phase(make_trace):
    trace = open_trace(make_trace(n_ticks=20, slow=7))
    assert slowest_ticks(trace, 1, "decode") == [7]
    assert slowest_ticks(trace, 5, "prefill") == [0]


def test_traces_without_a_phase_in_common_are_not_compared(make_trace):
    a, b = open_trace(make_trace("a", n_ticks=5)), open_trace(make_trace("b", n_ticks=5, phase="train"))
    with pytest.raises(ConfigError, match=r"a has prefill and decode ticks, .*b train ticks: nothing to compare"):
        difference(a, b)
    silent = open_trace(make_trace("silent", n_ticks=5, said=False))
    with pytest.raises(ConfigError, match=r"no token or tick in common"):
        difference(a, silent)
    empty = open_trace(make_trace("empty", n_ticks=0))
    with pytest.raises(DataError, match=r"empty: the trace has no ticks"):
        difference(a, empty)


def test_a_token_leads_to_its_tick_and_beyond_the_end_there_is_none(make_trace):
    trace = open_trace(make_trace(n_ticks=6))
    assert [tick_of_token(trace, number) for number in (0, 5)] == [0, 5]
    for number in (-1, 6):
        with pytest.raises(ConfigError, match="tokens 0 to 5"):
            tick_of_token(trace, number)


def test_the_difference_names_the_stage_that_pays(make_trace):
    a, b = open_trace(make_trace("a", n_ticks=10)), open_trace(make_trace("b", n_ticks=12, ffn_factor=2, dtype="bf16"))
    found = difference(a, b)
    json.dumps(dataclasses.asdict(found), allow_nan=False)
    assert found.settings == {"dtype": ("fp32", "bf16")}
    decode = next(phase for phase in found.phases if phase.phase == "decode")
    assert (decode.unit, decode.matched, decode.only_a, decode.only_b) == ("token", 9, 0, 2)
    assert (decode.a_ns, decode.b_ns) == pytest.approx((TICK_NS, TICK_NS + 900))
    changes = {stage.stage: stage.difference_ns for stage in decode.stages}
    assert changes.pop("ffn") == pytest.approx(900)
    assert all(change == pytest.approx(0) for change in changes.values())
    assert "1.64× as slow; ffn pays most" in decode.sentence
    assert "100 % of the difference" in decode.sentence
    ffn = next(stage for stage in decode.stages if stage.stage == "ffn")
    assert ffn.a_flops == ffn.b_flops == 16_000
    back = next(phase for phase in difference(b, a).phases if phase.phase == "decode")
    assert "1.64× as fast; ffn gains most" in back.sentence
    same = next(phase for phase in difference(a, a).phases if phase.phase == "decode")
    assert "no difference worth the name" in same.sentence


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


def test_two_stages_that_were_interrupted_are_not_nearly_every_stage(make_trace):
    trace = open_trace(make_trace(n_ticks=20, late={12: [(Stage.EMBED, 14_000), (Stage.SAMPLE, 20_000)]}))
    (report,) = tick_reports(trace, [12])
    assert report.why.startswith("two stages took far longer than usual: sample and embed hold 0.0341 of the 0.0354 ms")
    assert "another program held the core" in report.why
    assert "nearly every stage" not in report.why
    assert report.unusual_ns == 34_000


def test_what_the_stages_took_more_adds_up_to_what_the_tick_took_more(make_trace):
    late = {tick: [(Stage.FFN if tick % 2 else Stage.HEAD, 900 * tick)] for tick in range(20)}
    for report in tick_reports(open_trace(make_trace(n_ticks=20, late=late)), range(20)):
        assert sum(stage.excess_ns for stage in report.stages) == pytest.approx(report.wall_ns - report.usual_wall_ns)


def test_the_time_between_ticks_is_known(make_trace):
    between = between_ticks(open_trace(make_trace(n_ticks=5)))
    assert (between.total_ns, between.median_ns, between.span_ns) == (4_000, 1_000, 5 * TICK_NS + 4_000)
    assert between_ticks(open_trace(make_trace("one", n_ticks=1))) is None
