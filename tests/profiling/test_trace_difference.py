import dataclasses
import json

import pytest

from tickwise.core.errors import ConfigError, DataError
from tickwise.core.stages import Stage
from tickwise.profiling.trace_difference import difference
from tickwise.profiling.trace_store import open_trace

TICK_NS = 1405


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
    assert "1.64× as slow (95 %: 1.64 to 1.64); ffn pays most" in decode.sentence
    assert "100 % of the difference" in decode.sentence
    ffn = next(stage for stage in decode.stages if stage.stage == "ffn")
    assert ffn.a_flops == ffn.b_flops == 16_000
    back = next(phase for phase in difference(b, a).phases if phase.phase == "decode")
    assert "1.64× as fast (95 %: 1.64 to 1.64); ffn gains most" in back.sentence
    same = next(phase for phase in difference(a, a).phases if phase.phase == "decode")
    assert same.sentence.endswith("no stage stands out: no difference of the program shown")
    assert same.stands_out == ()


def test_interrupted_tokens_do_not_pass_for_a_difference(make_trace):
    """8 of B's 19 tokens waited for a core: a mean would make it thousands of times as slow."""
    a = open_trace(make_trace("a", n_ticks=20))
    b = open_trace(make_trace("b", n_ticks=20, late={tick: [(Stage.FFN, 8_000_000)] for tick in range(2, 10)}))
    decode = next(phase for phase in difference(a, b).phases if phase.phase == "decode")
    assert (decode.a_ns, decode.b_ns) == (TICK_NS, TICK_NS)
    assert (decode.matched, decode.compared, decode.a_interrupted, decode.b_interrupted) == (19, 11, 0, 8)
    assert decode.warning == "of the 19 tokens, other programs interrupted 8 in B; they are left out"
    assert decode.b_all_ns - decode.a_all_ns == 8 * 8_000_000
    assert (decode.a_left_out_ns, decode.b_left_out_ns) == (8 * TICK_NS, 8 * (TICK_NS + 8_000_000))
    everywhere = open_trace(make_trace("c", n_ticks=20, late={tick: [(Stage.FFN, 8_000_000)] for tick in range(20)}))
    busy = next(phase for phase in difference(a, everywhere).phases if phase.phase == "decode")
    assert busy.compared == busy.matched
    assert "figures of a busy machine" in busy.warning
    assert busy.disturbed
    assert busy.stands_out == ()
    assert busy.sentence == ("B takes 8 ms for a typical token where A takes 1.41 µs, with what other programs took: "
                             "record both again with nothing else running to see who pays")
    older = open_trace(make_trace("d", n_ticks=20, usage=False))
    unknown = next(phase for phase in difference(a, older).phases if phase.phase == "decode")
    assert (unknown.a_interrupted, unknown.b_interrupted, unknown.warning) == (0, None, "")


def paced(path, pace, seed, ffn=1.0):
    """The trace as a machine would have recorded it that is so many times as slow, with some noise."""
    trace = open_trace(path)
    noise = f"exp(0.1 * sin(tick * tick * {7 + seed} + {seed}))"
    trace.select(f"UPDATE ledger SET duration_ns = round(1000 * duration_ns * {pace} * {noise} * "
                 f"CASE stage WHEN 'ffn' THEN {ffn} ELSE 1 END)::BIGINT")
    return trace


def decode_of(a, b):
    return next(phase for phase in difference(a, b).phases if phase.phase == "decode")


def test_a_slower_machine_is_no_slower_program(make_trace):
    path = make_trace("a", n_ticks=60, command="tickwise trace m --out a")
    a = paced(path, 1, 1)
    same = decode_of(a, paced(path, 1, 2))
    assert same.stands_out == ()
    assert "no difference of the program shown" in same.sentence
    assert "the machine" not in same.sentence
    slower = decode_of(a, paced(path, 1.5, 2))
    assert slower.stands_out == ()
    assert "× as slow (95 %: 1." in slower.sentence
    assert "all stages take about 1.5" in slower.sentence
    assert slower.sentence.endswith("at the same FLOPs and bytes: the machine was slower; no stage stands out: "
                                    "no difference of the program shown")
    both = decode_of(a, paced(path, 1.5, 2, ffn=2))
    assert both.stands_out == ("ffn",)
    assert "the others take about 1.5" in both.sentence
    assert "the machine was slower; ffn pays most beyond that (+1." in both.sentence
    other = open_trace(make_trace("b", n_ticks=60, command="tickwise trace m --dtype bf16 --out a", threads=2))
    other.select("UPDATE ledger SET duration_ns = 3000 * duration_ns")
    assert "slower, or what was set differently acts on all alike" in decode_of(a, other).sentence


def test_of_one_tick_there_is_no_verdict(make_trace):
    path = make_trace("a", n_ticks=60)
    prefill = next(one for one in difference(paced(path, 1, 1), paced(path, 4, 2)).phases if one.phase == "prefill")
    assert prefill.ratio is None
    assert "for the token where A takes" in prefill.sentence
    assert prefill.sentence.endswith(": no verdict from one tick, it takes 8 to know how they scatter")


def test_a_token_is_a_part_of_its_tick_and_the_tick_is_shown_beside(make_trace):
    a, b = open_trace(make_trace("a", n_ticks=20)), open_trace(make_trace("b", n_ticks=20))
    b.select("UPDATE ledger SET duration_ns = 2 * duration_ns")
    b.select("INSERT INTO tokens SELECT tick, 'b', position, token_id, text FROM tokens WHERE tick > 0")
    b.select("UPDATE ledger SET phase = 'prefill' WHERE tick = 1")
    found = difference(a, b)
    prefill, decode = found.phases
    assert (decode.a_ns, decode.b_ns) == (TICK_NS, TICK_NS)
    assert (decode.a_tick_ns, decode.b_tick_ns) == (TICK_NS, 2 * TICK_NS)
    assert ("(time of a tick ÷ tokens written in it); the tick itself, for which each text waits, takes 2.81 µs where "
            "it took 1.41 µs") in decode.sentence
    beside = "a tick that reads any prompt counts as prefill, also for the texts that go on in it"
    assert decode.unmatched == ("only in A: 1 that B wrote in a prefill tick; only in B: 18 that A does not have; "
                                f"{beside}")
    assert prefill.unmatched == f"only in B: 1 that A wrote in a decode tick and 1 that A does not have; {beside}"


def test_the_tokens_of_a_beam_share_all_of_its_ticks(make_trace):
    """They are entered in the last tick, and yet took as long as if each had been entered in its own."""
    path = make_trace("a", n_ticks=20)
    plain, beam, shorter = open_trace(path), open_trace(path), open_trace(path)
    beam.select("UPDATE tokens SET tick = 19")
    found = difference(plain, beam)
    prefill, decode = found.phases
    assert (prefill.matched, decode.matched, decode.only_a, decode.only_b) == (1, 19, 0, 0)
    assert (decode.a_ns, decode.a_all_ns) == (decode.b_ns, decode.b_all_ns) == (TICK_NS, 19 * TICK_NS)
    assert all(stage.a_flops == stage.b_flops and stage.has_equal_work for stage in decode.stages)
    assert "(of a beam search: all of its ticks ÷ its tokens)" in decode.sentence
    assert "tokens written in it" not in decode.sentence
    assert decode.ratio is not None
    shorter.select("UPDATE tokens SET tick = 19")
    shorter.select("DELETE FROM tokens WHERE position > 10 + 12")  # 13 are left of 20 ticks
    prefill, decode = difference(plain, shorter).phases
    assert (prefill.matched, prefill.b_all_ns, decode.matched, decode.only_a) == (1, TICK_NS, 12, 7)
    assert decode.b_all_ns == pytest.approx(19 * TICK_NS)
    assert decode.b_ns == pytest.approx(19 / 12 * TICK_NS)
    ffn = next(stage for stage in decode.stages if stage.stage == "ffn")
    assert ffn.b_flops == pytest.approx(19 / 12 * ffn.a_flops)


def test_beams_side_by_side_share_their_ticks(make_trace):
    path = make_trace("a", n_ticks=20)
    plain, beams = open_trace(path), open_trace(path)
    beams.select("UPDATE ledger SET request_ids = ['a', 'a', 'b', 'b']")
    beams.select("UPDATE tokens SET tick = 19")
    beams.select("INSERT INTO tokens SELECT tick, 'b', position, token_id, text FROM tokens")
    decode = decode_of(plain, beams)
    assert (decode.b_ns, decode.b_tick_ns) == (TICK_NS / 2, TICK_NS)
    assert "time of a tick ÷ tokens written in it" in decode.sentence


def test_a_stage_that_pays_is_not_said_to_gain(make_trace):
    path = make_trace("a", n_ticks=60)
    a, b = open_trace(path), open_trace(path)
    for stage, factor in (("ffn", 3), ("embed", 3), ("head", 0.1)):
        b.select(f"UPDATE ledger SET duration_ns = round({factor} * duration_ns)::BIGINT WHERE stage = '{stage}'")
    for trace in (a, b):
        trace.select("UPDATE ledger SET duration_ns = 1000 * duration_ns")
    assert decode_of(a, b).sentence.endswith(
        "; ffn pays most (+1.8 ms, 104 % of the difference), then embed (+200 µs); head (-270 µs) gains")
    assert decode_of(b, a).sentence.endswith(
        "; ffn gains most (-1.8 ms, 104 % of the difference), then embed (-200 µs); head (+270 µs) pays")


def test_no_stage_is_named_where_either_run_was_interrupted_while_the_other_was_not(make_trace):
    """Each has calm ticks of its own, but none of the same place: what is compared are ticks of a busy machine."""
    late = [{tick: [(Stage.FFN, 8_000_000)] for tick in ticks} for ticks in (range(0, 12), range(10, 20))]
    a, b = (open_trace(make_trace(name, n_ticks=20, late=ticks)) for name, ticks in zip("ab", late, strict=True))
    decode = decode_of(a, b)
    assert decode.compared == decode.matched
    assert decode.disturbed
    assert "record both again" in decode.sentence


def test_guesses_are_counted_from_what_the_head_read(make_trace):
    path = make_trace("a", n_ticks=20)
    plain, guessing = open_trace(path), open_trace(path)
    guessing.select("UPDATE ledger SET flops = 20000 WHERE stage = 'head'")
    guessing.select("UPDATE ledger SET flops = 5 * 20000 WHERE stage = 'head' AND tick IN (4, 7)")
    guessing.select("UPDATE ledger SET stage = 'draft' WHERE stage = 'sample' AND tick > 3")
    guessing.select("INSERT INTO tokens SELECT tick, request_id, position, token_id, 'x' FROM tokens WHERE tick = 7")
    first, second = difference(plain, guessing).guesses
    assert first is None
    assert (second.made, second.accepted) == (8, 1)
