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
    assert "1.64× as slow; ffn pays most" in decode.sentence
    assert "100 % of the difference" in decode.sentence
    ffn = next(stage for stage in decode.stages if stage.stage == "ffn")
    assert ffn.a_flops == ffn.b_flops == 16_000
    back = next(phase for phase in difference(b, a).phases if phase.phase == "decode")
    assert "1.64× as fast; ffn gains most" in back.sentence
    same = next(phase for phase in difference(a, a).phases if phase.phase == "decode")
    assert "no difference worth the name" in same.sentence
    assert not same.is_worth_the_name


def test_interrupted_tokens_do_not_pass_for_a_difference(make_trace):
    """8 of B's 19 tokens waited for a core: a mean would make it thousands of times as slow."""
    a = open_trace(make_trace("a", n_ticks=20))
    b = open_trace(make_trace("b", n_ticks=20, late={tick: [(Stage.FFN, 8_000_000)] for tick in range(2, 10)}))
    decode = next(phase for phase in difference(a, b).phases if phase.phase == "decode")
    assert (decode.a_ns, decode.b_ns) == (TICK_NS, TICK_NS)
    assert (decode.matched, decode.compared, decode.a_interrupted, decode.b_interrupted) == (19, 11, 0, 8)
    assert decode.warning == "of the 19 tokens, other programs interrupted 8 in B; they are left out"
    assert decode.b_all_ns - decode.a_all_ns == 8 * 8_000_000
    everywhere = open_trace(make_trace("c", n_ticks=20, late={tick: [(Stage.FFN, 8_000_000)] for tick in range(20)}))
    busy = next(phase for phase in difference(a, everywhere).phases if phase.phase == "decode")
    assert busy.compared == busy.matched
    assert "figures of a busy machine" in busy.warning
    assert busy.disturbed
    assert not busy.is_worth_the_name
    assert busy.sentence == ("B takes 8 ms for a typical token where A takes 1.41 µs, with what other programs took: "
                             "record both again with nothing else running to see who pays")
    older = open_trace(make_trace("d", n_ticks=20, usage=False))
    unknown = next(phase for phase in difference(a, older).phases if phase.phase == "decode")
    assert (unknown.a_interrupted, unknown.b_interrupted, unknown.warning) == (0, None, "")
