"""Muon against torch's, orthogonality, master weights, and what a step may change."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from tickwise.core.errors import ConfigError
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.training import optimizers
from tickwise.training.config import LoopConfig, OptimizerOptions, ScheduleOptions
from tickwise.training.optimizers import (
    AdamW,
    MasterWeights,
    Muon,
    Optimizer,
    layer_ratios,
    orthogonalise,
    total_norm,
)
from tickwise.training.schedule import lr_scale

CONFIG = DecoderConfig(vocab_size=17, context_length=8, width=16, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=8,
                       hidden=32)


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    out = orthogonalise(torch.randn(3, 24, 40), torch.float32)
    values = torch.linalg.svdvals(out)
    assert values.min() > 0.75
    assert values.max() < 1.25


def test_singular_values_down_to_three_thousandths_of_the_norm_come_out_near_one():
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(40, 24))[0] for _ in range(2))
    spectrum = torch.logspace(0, -2.3, 24)  # the smallest is 0.0036 of the norm
    out = orthogonalise((left * spectrum @ right.T)[None], torch.float32)[0]
    values = torch.linalg.svdvals(out)[:24]
    assert values.min() > 0.75
    assert values.max() < 1.25


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_muon_with_torch_s_polynomials_equals_torch_muon(shape, monkeypatch):
    monkeypatch.setattr(optimizers, "_QUINTICS", ((3.4445, -4.7750, 2.0315),) * 5)
    torch.manual_seed(0)
    start = torch.randn(shape)
    reference_parameter = nn.Parameter(start.clone())
    reference = torch.optim.Muon([reference_parameter], lr=0.02, weight_decay=0.1, momentum=0.9,
                                 adjust_lr_fn="match_rms_adamw")
    mine = start.clone()
    muon = Muon([mine], lr=0.02, momentum=0.9, weight_decay=0.1, dtype=torch.bfloat16)
    for step in range(4):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        reference_parameter.grad = gradient.clone()
        reference.step()
        muon.step([gradient], 1.0)
    moved = (reference_parameter.detach() - start).norm()
    assert (mine - reference_parameter.detach()).norm() / moved < 0.02  # both round their products to bf16


def test_adamw_is_torch_s_to_the_last_bit():
    torch.manual_seed(0)
    starts = [torch.randn(24, 40), torch.randn(3, 5), torch.randn(17)]
    mine, theirs = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))

    def groups(leaves):
        return [{"params": leaves[:2], "weight_decay": 0.1, "lr": 0.01},
                {"params": leaves[2:], "weight_decay": 0.0, "lr": 0.03}]

    ours = AdamW(groups(mine), betas=(0.9, 0.95), eps=1e-10)
    reference = torch.optim.AdamW(groups(theirs), betas=(0.9, 0.95), eps=1e-10, fused=True)
    for _ in range(20):
        for leaf, twin in zip(mine, theirs, strict=True):
            leaf.grad = torch.randn(leaf.shape)
            twin.grad = leaf.grad.clone()
        for optimizer in (ours, reference):
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
            optimizer.step()
    for leaf, twin, start in zip(mine, theirs, starts, strict=True):
        assert torch.equal(leaf, twin)
        assert not torch.equal(leaf, start)
        state, expected = ours.state[leaf], reference.state[twin]
        assert state.keys() == expected.keys()
        for key in state:
            assert torch.equal(state[key], expected[key]), key
            assert state[key].dtype == expected[key].dtype


def test_nobody_waits_for_torch_s_compiler_to_be_imported():
    code = """
import sys, torch
from tickwise.core.errors import ConfigError
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.training.config import OptimizerOptions
from tickwise.training.optimizers import MasterWeights, Optimizer
module = Decoder(DecoderConfig(vocab_size=17, context_length=8, width=16, n_layers=1, n_heads=2, n_kv_heads=2,
                               head_dim=8, hidden=32))
weights = MasterWeights(module, torch.float32)
optimizer = Optimizer(module, weights, OptimizerOptions(name="muon", lr=0.01), torch.float32)
optimizer.step([torch.ones_like(master) for master in weights.masters], 1.0)
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_optimizer_lowers_the_loss_of_a_fixed_batch(name, dtype):
    module = Decoder(CONFIG).initialise(0)
    weights = MasterWeights(module, dtype)
    options = OptimizerOptions(name=name, lr={"sgd": 0.005}.get(name, 0.01))
    optimizer = Optimizer(module, weights, options, torch.float32)
    ids = torch.randint(0, 17, (4, 8), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(30):
        weights.clear()
        loss = nn.functional.cross_entropy(module(ids)[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step(weights.collect(first=True), 1.0)
        losses.append(loss.item())
    assert losses[-1] < (0.85 if name == "sgd" else 0.6) * losses[0]
    assert {p.dtype for p in module.parameters()} == {dtype}
    assert {m.dtype for m in weights.masters} == {torch.float32}


def test_masters_keep_what_bf16_would_lose():
    module = Decoder(CONFIG).initialise(0)
    weights = MasterWeights(module, torch.bfloat16)
    optimizer = Optimizer(module, weights, OptimizerOptions(name="sgd", lr=1e-6, weight_decay=0), torch.float32)
    before = [m.clone() for m in weights.masters]
    ones = [torch.ones_like(m) for m in weights.masters]
    for _ in range(3):
        optimizer.step(ones, 1.0)
    assert all((m < b).all() for m, b in zip(weights.masters, before, strict=True) if b.abs().max() < 10)


def test_state_tensors_restore_the_optimizer_exactly():
    def build():
        module = Decoder(CONFIG).initialise(0)
        weights = MasterWeights(module, torch.float32)
        return weights, Optimizer(module, weights, OptimizerOptions(name="muon", lr=0.01), torch.float32)

    def gradient(step, weights):
        generator = torch.Generator().manual_seed(step)
        return [torch.randn(m.shape, generator=generator) for m in weights.masters]

    straight, optimizer = build()
    for step in range(6):
        optimizer.step(gradient(step, straight), 1.0)
    half, first = build()
    for step in range(3):
        first.step(gradient(step, half), 1.0)
    resumed, second = build()
    for mine, theirs in zip(resumed.masters, half.masters, strict=True):
        mine.copy_(theirs)
    second.load_state_tensors({k: v.clone() for k, v in first.state_tensors().items()}, "here")
    for step in range(3, 6):
        second.step(gradient(step, resumed), 1.0)
    for a, b in zip(straight.masters, resumed.masters, strict=True):
        assert torch.equal(a, b)


def test_total_norm_sees_a_single_nan():
    tensors = [torch.ones(3), torch.tensor([1.0, float("nan")])]
    assert not torch.isfinite(total_norm(tensors))
    assert total_norm([torch.full((4,), 2.0), torch.full((9,), 1.0)]).item() == pytest.approx(5.0)


def test_schedules_start_low_peak_at_one_and_end_at_the_floor():
    for name in ("cosine", "wsd"):
        options = ScheduleOptions(name=name, warmup=0.1, decay=0.4, floor=0.05)
        curve = [lr_scale(options, i / 1000) for i in range(1001)]
        assert 0 < curve[0] < 0.02
        assert max(curve) == pytest.approx(1.0)
        assert curve[-1] == pytest.approx(0.05)
        peak = curve.index(max(curve))
        assert all(a >= b for a, b in zip(curve[peak:], curve[peak + 1 :], strict=False))
    flat = ScheduleOptions(name="wsd", warmup=0.1, decay=0.4)
    assert lr_scale(flat, 0.3) == lr_scale(flat, 0.59) == 1.0
    assert lr_scale(ScheduleOptions(name="constant", warmup=0.0), 1.0) == 1.0


def test_lower_layers_learn_more_slowly():
    names = ["embed_tokens.weight", "layers.0.mlp.up_proj.weight", "layers.1.mlp.up_proj.weight", "norm.weight",
             "classes.weight"]
    assert layer_ratios(names, 0.5) == [0.125, 0.25, 0.5, 1.0, 1.0]
    assert layer_ratios(names, 1.0) == [1.0] * 5


def test_an_update_follows_the_layers_rates():
    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(2))
            self.head = nn.Linear(2, 2, bias=False)

    module = Stack()
    weights = MasterWeights(module, torch.float32)
    before = [w.clone() for w in weights.masters]
    options = OptimizerOptions(name="adamw", lr=0.1, weight_decay=0.0, layer_decay=0.5)
    Optimizer(module, weights, options, torch.float32).step([torch.ones_like(w) for w in before], 1.0)
    moved = [float((a - b).abs().mean()) for a, b in zip(before, weights.masters, strict=True)]
    assert moved == pytest.approx([0.025, 0.05, 0.1], rel=1e-3)


def test_layer_decay_and_muon_contradict_each_other():
    with pytest.raises(ConfigError, match="layer-decay"):
        LoopConfig(optimizer=OptimizerOptions(name="muon", layer_decay=0.9))
