"""Traces of models that answer in one pass."""

import pytest
import torch
from torch import nn

from tickwise.core.stages import Stage, mark
from tickwise.profiling.calls import CallCosts, CallWork, traced_calls
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
    assert not module._forward_hooks
    assert not module._forward_pre_hooks
    rows = {(row["tick"], row["stage"]): row for row in open_trace(tmp_path / "trace").rows()}
    assert {tick for tick, _ in rows} == {0, 1}
    assert rows[0, "head"]["flops"] == 2 * 2 * 8 * 3
    assert rows[1, "head"]["flops"] == 2 * 7 * 8 * 3
    assert rows[1, "embed"]["batch"] == 7
    assert rows[0, "host"]["duration_ns"] > 0


def test_without_a_path_nothing_listens(tmp_path):
    module = Small()
    with traced_calls(module, None, model="small"):
        assert not module._forward_pre_hooks


def test_an_error_leaves_no_trace_and_no_hook(tmp_path):
    module = Small()
    with pytest.raises(IndexError), traced_calls(module, tmp_path / "trace", model="small"):
        module(ids(1, 2) + 99)
    assert not (tmp_path / "trace").exists()
    assert not module._forward_pre_hooks


def test_calls_of_one_shape_share_a_table():
    costs = CallCosts(Small())
    a, b, other = (CallWork(((torch.empty(shape, dtype=torch.long, device="meta"),), {}), shape[0])
                   for shape in ((2, 5), (2, 5), (2, 6)))
    assert costs(a).table is costs(b).table
    assert costs(other).table is not costs(a).table
    assert costs.typical_listing()
