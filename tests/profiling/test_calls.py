"""Traces of models that answer in one pass."""

import pytest
import torch
from torch import nn

from tickwise.core.stages import Stage, mark
from tickwise.profiling.calls import Call, CallCosts, CallWork, TracedMethod, traced_calls
from tickwise.profiling.trace_store import open_trace


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

    def forward(self, ids_BT):
        mark(Stage.EMBED)
        x_BC = self.table(ids_BT).mean(1)
        mark(Stage.HEAD)
        return self.head(x_BC)


def ids(batch, length):
    return torch.zeros(batch, length, dtype=torch.long)


def test_every_call_is_a_tick_with_its_own_work(tmp_path):
    module = Small()
    with traced_calls(module, tmp_path / "trace", model="small"):
        module(ids(2, 5))
        module(ids(7, 3))
    assert "forward" not in vars(module)
    rows = {(row["tick"], row["stage"]): row for row in open_trace(tmp_path / "trace").rows()}
    assert {tick for tick, _ in rows} == {0, 1}
    assert rows[0, "head"]["flops"] == 2 * 2 * 8 * 3
    assert rows[1, "head"]["flops"] == 2 * 7 * 8 * 3
    assert rows[1, "embed"]["batch"] == 7
    assert rows[0, "host"]["duration_ns"] > 0


def test_without_a_path_nothing_listens(tmp_path):
    module = Small()
    with traced_calls(module, None, model="small"):
        assert "forward" not in vars(module)


def test_an_error_leaves_no_trace_and_the_module_as_it_was(tmp_path):
    module = Small()
    with pytest.raises(IndexError), traced_calls(module, tmp_path / "trace", model="small"):
        module(ids(1, 2) + 99)
    assert not (tmp_path / "trace").exists()
    assert "forward" not in vars(module)


def test_calls_of_one_shape_share_a_table():
    costs, module = CallCosts(), Small()
    calls = [Call(module, "forward", (torch.empty(shape, dtype=torch.long, device="meta"),), {})
             for shape in ((2, 5), (2, 5), (2, 6))]
    a, b, other = (CallWork([call], 2) for call in calls)
    assert costs(a).table is costs(b).table
    assert costs(other).table is not costs(a).table
    assert costs.typical_listing()


class Steps(nn.Module):
    """Reads with a state and says what comes next; ``both`` does either."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

    def read(self, ids_BT, state):
        mark(Stage.EMBED)
        return self.table(ids_BT).sum(1) + state[0], (state[0] + 1,)

    def logits(self, x_BC):
        mark(Stage.HEAD)
        return self.head(x_BC)

    def both(self, ids_BT, state):
        return self.logits(self.read(ids_BT, state)[0])


def test_chosen_methods_begin_ticks_or_belong_to_them(tmp_path):
    module = Steps()
    methods = (TracedMethod(name="read", phase="decode"), TracedMethod(name="logits", begins_tick=False),
               TracedMethod(name="both"))
    with traced_calls(module, tmp_path / "trace", model="steps", methods=methods):
        module.logits(torch.zeros(9, 8))
        state = (torch.zeros(2, 8),)
        for _ in range(2):
            x_BC, state = module.read(ids(2, 1), state)
            module.logits(x_BC)
        module.both(ids(4, 3), (torch.zeros(4, 8),))
    assert "read" not in vars(module)
    trace = open_trace(tmp_path / "trace")
    rows = {(row["tick"], row["stage"]): row for row in trace.rows()}
    assert {tick for tick, _ in rows} == {0, 1, 2}, "the first logits belong to no tick; both is one"
    assert [rows[tick, "head"]["flops"] for tick in range(3)] == [2 * 2 * 8 * 3, 2 * 2 * 8 * 3, 2 * 4 * 8 * 3]
    assert [rows[tick, "embed"]["phase"] for tick in range(3)] == ["decode", "decode", "prefill"]
    assert [rows[tick, "embed"]["batch"] for tick in range(3)] == [2, 2, 4]
