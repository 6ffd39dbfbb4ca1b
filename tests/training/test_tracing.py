import time

import pytest
from torch import nn

from tickwise.core.stages import Stage
from tickwise.profiling.trace_store import open_trace
from tickwise.training.config import ModelOptions, OptimizerOptions, TrainConfig
from tickwise.training.loop import gradient, update
from tickwise.training.run import build, open_data, plan, run_plan
from tickwise.training.tracing import heard, traced

STEPS = 6


def tiny(out, small_text, **changes):
    """The plan of a tiny run, and its data."""
    options = {
        "data": small_text, "tokenizer": "char", "depth": 2, "context": 16, "batch_size": 8, "max_steps": STEPS,
        "evaluate_every": 3, "evaluate_tokens": 256, "compile": "off", "dtype": "fp32",
        "model": ModelOptions(width=32, n_heads=2, n_kv_heads=2),
    } | changes
    config = TrainConfig(out=out, **options)
    data = open_data(config)
    return plan(config, data), data


@pytest.fixture
def trace_of(small_text, tmp_path):
    """Trains a tiny model on a text and returns its trace."""

    def train(name="run", **changes):
        run_plan(*tiny(tmp_path / name, small_text, **changes), tmp_path / f"{name}-trace")
        return open_trace(tmp_path / f"{name}-trace")

    return train


def stages_of(trace, tick):
    return {(row["stage"], row["layer"]): row for row in trace.rows() if row["tick"] == tick}


def test_every_step_is_a_tick_with_all_its_stages(trace_of):
    trace = trace_of()
    rows = trace.rows()
    assert {row["phase"] for row in rows} == {"train"}
    assert {row["tick"] for row in rows} == set(range(STEPS))
    assert {(row["batch"], tuple(row["request_ids"]), row["kv_tokens"]) for row in rows} == {(8, (), 0)}
    plain = stages_of(trace, 1)
    layered = [(str(stage), layer) for layer in (0, 1) for stage in (
        Stage.NORM, Stage.QKV, Stage.ROPE, Stage.ATTENTION, Stage.OUT, Stage.FFN, Stage.BACKWARD)]
    assert set(plain) == {*layered, ("host", None), ("data", None), ("embed", None), ("norm", None), ("head", None),
                          ("loss", None), ("backward", None), ("optimizer", None)}
    assert {"validation", "checkpoint"} <= {stage for stage, _ in stages_of(trace, 2)}
    assert "validation" not in {stage for stage, _ in plain}


def test_work_is_counted_forward_and_back(trace_of):
    rows = stages_of(trace_of(), 1)
    # 8 sequences of 16 tokens; one matrix of 32 × 96 for queries, keys and values of 2 layers, 2 FLOPs a multiply-add.
    qkv = 2 * 8 * 16 * 32 * 96
    assert rows["qkv", 0]["flops"] == rows["qkv", 1]["flops"] == qkv
    layer = sum(rows[stage, 0]["flops"] for stage in ("norm", "qkv", "rope", "attention", "out", "ffn"))
    # Every product has two in the backward pass; the gradient of a norm's weight is one more, with a vector.
    of_norms = 2 * (2 * 128 * 32) + 2 * (2 * 256 * 16)
    assert rows["backward", 0]["flops"] == 2 * layer + of_norms
    assert rows["backward", None]["flops"] == 2 * rows["head", None]["flops"] + 2 * 128 * 32
    assert rows["data", None]["flops"] is None
    assert rows["optimizer", None]["flops"] > 0, "Muon's products"
    assert rows["optimizer", None]["bytes_written"] > 0


def test_micro_batches_and_adamw_in_bf16(trace_of):
    whole = stages_of(trace_of("whole", optimizer=OptimizerOptions(name="adamw"), dtype="bf16"), 1)
    pieces = stages_of(trace_of("pieces", optimizer=OptimizerOptions(name="adamw"), dtype="bf16", accumulate=2), 1)
    assert pieces["ffn", 1]["flops"] == whole["ffn", 1]["flops"]
    assert pieces["ffn", 1]["bytes_read"] > whole["ffn", 1]["bytes_read"], "the weights are read twice"
    assert whole["optimizer", None]["flops"] == 0
    assert pieces["optimizer", None]["bytes_read"] == whole["optimizer", None]["bytes_read"]


def test_training_is_the_same_with_and_without_a_trace(trace_of, small_text, tmp_path):
    trace_of("traced")
    run_plan(*tiny(tmp_path / "plain", small_text))
    traced, plain = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("traced", "plain"))
    assert traced == plain


class Slow(nn.Module):
    """A module that takes ``seconds`` longer in the forward pass and as long in the backward pass."""

    def __init__(self, module, seconds):
        super().__init__()
        self.module, self.seconds = module, seconds

    def forward(self, x):
        time.sleep(self.seconds)
        y = self.module(x)
        if y.requires_grad:
            y.register_hook(lambda _gradient: time.sleep(self.seconds))
        return y


def test_time_is_charged_to_the_layer_that_takes_it_forward_and_backward(small_text, tmp_path):
    training = build(*tiny(tmp_path / "run", small_text))
    training.module.layers[1].mlp = Slow(training.module.layers[1].mlp, 0.5)

    def step():
        training.begin_step()
        update(training, gradient(training)[1], 1.0)
        training.end_step()

    step()
    with traced(training, tmp_path / "trace"), heard(training):
        step()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in training.module.modules())
    rows = stages_of(open_trace(tmp_path / "trace"), 0)
    for slow in (("ffn", 1), ("backward", 1)):
        assert rows.pop(slow)["duration_ns"] >= 500e6
    # Far less than the sleep, and far more than what a busy machine adds by chance.
    assert all(row["duration_ns"] < 300e6 for row in rows.values())
