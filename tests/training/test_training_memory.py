"""The memory estimate of training: by term against what the code must hold, and in all against a real process."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tickwise.models.decoder import Decoder
from tickwise.training.config import ModelOptions, OptimizerOptions, TrainConfig
from tickwise.training.dial import decoder_from_dial, resolve
from tickwise.training.memory import estimate_training_memory, memory_message
from tickwise.training.next_token import next_token_loss
from tickwise.training.prediction import step_program

CPU = torch.device("cpu")


def setting(batch=4, context=64, optimizer="adamw", **changes):
    config = TrainConfig(data=Path(), depth=2, context=context, batch_size=batch, max_steps=1,
                         model=ModelOptions(width=128), optimizer=OptimizerOptions(name=optimizer), **changes)
    model = decoder_from_dial(2, context, 512, config.model)
    return model, resolve(config, model, n_parameters=1, n_train_tokens=1)


def estimate(dtype="fp32", **changes):
    model, config = setting(**changes)
    return estimate_training_memory(model, config, 0, dtype, CPU)


def n_parameters():
    with torch.device("meta"):
        return Decoder(setting()[0]).n_parameters()


def test_terms_are_the_bytes_that_the_numbers_have():
    need, n = estimate(), n_parameters()
    assert (need.weights, need.gradients) == (4 * n, 4 * n)
    assert need.optimizer == pytest.approx(8 * n, rel=1e-3)
    half = estimate("bf16")
    assert (half.weights, half.gradients) == (6 * n, 4 * n)  # bf16 weights beside float32 masters and gradients
    assert estimate(optimizer="sgd").optimizer == pytest.approx(4 * n, rel=1e-3)
    assert estimate(optimizer="muon").optimizer < need.optimizer
    assert estimate(ema_decay=0.9).weights == 8 * n
    assert need.total == need.weights + need.gradients + need.optimizer + need.activations + need.fragmentation


def test_activations_grow_with_the_batch_and_shrink_with_micro_batches():
    # Batches above the validation's, which is always 8,192 tokens.
    small, large = (estimate(batch=batch, context=256).activations for batch in (64, 128))
    assert 1.8 < large / small < 2.1
    assert estimate(batch=128, context=256, accumulate=2).activations == pytest.approx(small, rel=0.15)


def test_a_batch_too_large_to_count_is_extrapolated(monkeypatch):
    counted = estimate(batch=512, context=64)
    monkeypatch.setattr("tickwise.training.memory._COUNTED_TOKENS", 256 * 64)
    assert estimate(batch=512, context=64).activations == pytest.approx(counted.activations, rel=0.01)


def test_a_dry_run_leaves_nothing_behind_that_a_real_step_would_meet():
    model, config = setting()
    estimate_training_memory(model, config, 0, "fp32", CPU)
    step_program(model, config, "fp32")
    module = Decoder(model).initialise(seed=1)
    ids = torch.zeros(2, 64, dtype=torch.long)
    loss = next_token_loss(module, ids, ids)
    loss.backward()
    assert type(module.layers[0].mlp.down_proj.weight.grad) is torch.Tensor
    assert torch.isfinite(loss)


def test_the_message_names_the_largest_term_and_its_flags():
    need = dataclasses.replace(estimate(batch=64), activations=10**12)
    message = memory_message(need, available=10**9)
    assert "activations with 1 TB" in message
    assert "1 GB are free" in message
    assert "--batch-size" in message


def test_a_program_lists_forward_backward_and_optimizer():
    model, config = setting(accumulate=2, optimizer="muon")
    program = step_program(model, config, "bf16")
    stages = {(i.stage.value, i.direction) for i in program}
    assert {("ffn", "forward"), ("ffn", "backward"), ("optimizer", "forward")} <= stages
    n_muon = sum(i.op in ("aten.bmm", "aten.baddbmm") and i.stage.value == "optimizer" for i in program)
    assert n_muon >= 12  # four polynomials of three products for at least one shape
    single = step_program(*setting(batch=2, optimizer="muon"), "bf16")
    flops = sum(i.flops for i in program if i.stage.value == "ffn")
    assert flops == 2 * sum(i.flops for i in single if i.stage.value == "ffn")


def test_layers_too_many_to_count_are_extrapolated(monkeypatch):
    model, config = setting(batch=4, optimizer="muon")
    deep = dataclasses.replace(model, n_layers=12)
    counted = estimate_training_memory(deep, config, 0, "bf16", CPU)
    monkeypatch.setattr("tickwise.training.memory._COUNTED_LAYERS", 8)
    grown = estimate_training_memory(deep, config, 0, "bf16", CPU)
    assert (grown.weights, grown.gradients, grown.optimizer) == (counted.weights, counted.gradients, counted.optimizer)
    assert grown.activations == pytest.approx(counted.activations, rel=0.01)
    assert grown.total == pytest.approx(counted.total, rel=0.05), "holes depend on chance"
