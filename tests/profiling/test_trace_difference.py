import dataclasses
import json

import pytest

from tickwise.core.errors import ConfigError, DataError
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
