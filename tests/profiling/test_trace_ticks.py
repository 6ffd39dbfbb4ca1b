import json

import pytest

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage
from tickwise.profiling.trace_store import open_trace
from tickwise.profiling.trace_ticks import slowest_ticks, tick_of_number, tick_reports, ticks_as_json, written_token
from tickwise.report.timeline_data import compact

TICK_NS = 1405


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
    assert (report.tick, report.written, report.phase) == (7, {0: "h"}, "decode")
    assert report.slow.wall_ns == TICK_NS + 9 * 500
    assert report.slow.usual_wall_ns == TICK_NS
    assert report.slow.slowest_part.stage == "ffn"
    assert report.slow.slowest_part.excess_ns == 9 * 500
    assert {stage.stage: stage.excess_ns for stage in report.slow.stages if stage.stage != "ffn"} == dict.fromkeys(
        ["embed", "norm", "head", "sample", "host"], 0)


def test_a_tick_is_found_by_its_number(make_trace):
    trace = open_trace(make_trace(n_ticks=5))
    assert tick_of_number(trace, 3) == 3
    for number in (-1, 5):
        with pytest.raises(ConfigError, match=f"--tick {number}: the trace has ticks 0 to 4"):
            tick_of_number(trace, number)


def test_a_slow_tick_says_why(make_trace):
    trace = open_trace(make_trace(n_ticks=20, slow=7, usage=False))
    slow, usual = tick_reports(trace, [7, 8])
    assert slow.why.startswith("all of the 4.5 µs above the typical tick are in ffn, which took 6 × its usual time")
    assert "interruption" in slow.why
    assert usual.why == ""
    assert (slow.slow.unusual, usual.slow.unusual) == (True, False)
    assert slow.slow.saved_ns == 9 * 500
    assert slow.slow.slowest_stage.stage == "ffn"


def test_a_tick_that_was_slow_all_over_blames_the_machine(make_trace):
    slow = tick_reports(open_trace(make_trace(n_ticks=20, slow_tick=9, usage=False)), [9])[0]
    assert "another program" in slow.why


def test_a_stage_that_few_ticks_have_is_what_makes_them_slow(make_trace):
    trace = open_trace(make_trace(n_ticks=20, extra=(Stage.VALIDATION, 11)))
    assert slowest_ticks(trace, 1) == [11]
    report = tick_reports(trace, [11])[0]
    assert report.slow.slowest_part.stage == "validation"
    assert report.slow.slowest_part.excess_ns == 50_000
    assert "all of the 50 µs above the typical tick are in validation, which most ticks do without" in report.why
    assert not report.slow.unusual


def test_the_slowest_of_a_phase(make_trace):
    trace = open_trace(make_trace(n_ticks=20, slow=7))
    assert slowest_ticks(trace, 1, "decode") == [7]
    assert slowest_ticks(trace, 5, "prefill") == [0]


def test_a_token_leads_to_its_tick_and_beyond_the_end_there_is_none(make_trace):
    trace = open_trace(make_trace(n_ticks=6))
    assert [written_token(trace, number).tick for number in (0, 5)] == [0, 5]
    for number in (-1, 6):
        with pytest.raises(ConfigError, match="tokens 0 to 5"):
            written_token(trace, number)


def test_two_stages_that_were_interrupted_are_not_nearly_every_stage(make_trace):
    trace = open_trace(make_trace(n_ticks=20, late={12: [(Stage.EMBED, 14_000), (Stage.SAMPLE, 20_000)]}))
    (report,) = tick_reports(trace, [12])
    assert report.why.startswith("two stages took far longer than usual: sample and embed hold 34.2 µs of the 35.4 µs")
    assert "another program held the core" in report.why
    assert "nearly every stage" not in report.why
    assert report.slow.saved_ns == 33_000  # a microsecond of processor time was before the tick


def test_what_the_stages_took_more_adds_up_to_what_the_tick_took_more(make_trace):
    late = {tick: [(Stage.FFN if tick % 2 else Stage.HEAD, 900 * tick)] for tick in range(20)}
    for report in tick_reports(open_trace(make_trace(n_ticks=20, late=late)), range(20)):
        slow = report.slow
        assert sum(stage.excess_ns for stage in slow.stages) == pytest.approx(slow.wall_ns - slow.usual_wall_ns)


def test_the_page_and_the_table_name_the_same_cause(make_trace):
    """One rule: a pause, a stage that few ticks have, an interruption, and a tick that was slow all over."""
    kinds = {"pause": {"slow": 7}, "validation": {"extra": (Stage.VALIDATION, 7)}, "all": {"slow_tick": 7},
             "held": {"late": {7: [(Stage.EMBED, 14_000), (Stage.SAMPLE, 20_000)]}}}
    for name, made in kinds.items():
        trace = open_trace(make_trace(name, n_ticks=20, **made))
        (report,) = tick_reports(trace, [7])
        page = compact(trace.rows(), trace.tokens(), trace.ticks())
        cause = page["causes"][7]
        assert (cause["why"], cause["remedy"]) == (report.slow.why, report.slow.remedy)
        assert page["stages"][cause["blamed"]] == report.blamed.stage
        assert page["causes"][8] is None
        assert cause["goes_on"] == (report.why != report.slow.why)


def test_a_tick_of_its_own_kind_is_judged_by_its_time_on_the_processor(make_trace):
    """The only one of its phase: there is no typical one, but the system says that it was interrupted."""
    trace = open_trace(make_trace(n_ticks=2, late={1: [(Stage.SAMPLE, 8_000_000)]}))
    (report,) = tick_reports(trace, [1])
    assert not report.slow.phase.has_typical
    assert "another program held the core (interrupted once); for 8" in report.why
    assert "ms no thread of this program ran" in report.why
    assert report.slow.remedy.startswith("nothing in the model")
    (calm,) = tick_reports(open_trace(make_trace("calm", n_ticks=2)), [1])
    assert (calm.why, calm.slow.remedy) == ("", "")
