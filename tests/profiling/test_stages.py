import time

import pytest
import torch
from torch import nn

from tickwise.core.stages import Stage
from tickwise.profiling.program import list_program, list_training_program
from tickwise.profiling.stages import StageTimer, place_of, places_of, stage_of, staged_modules
from tickwise.profiling.step_profile import profile_decode_token, profile_training_step


class Layer(nn.Module):
    def __init__(self, width, slow_s):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(width)
        self.self_attn = nn.Linear(width, width)
        self.post_attention_layernorm = nn.LayerNorm(width)
        self.mlp = Slow(width, slow_s)

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Slow(nn.Module):
    """A product that sleeps ``slow_s`` in the forward pass and as long in the backward pass."""

    def __init__(self, width, slow_s):
        super().__init__()
        self.up = nn.Linear(width, width)
        self.slow_s = slow_s

    def forward(self, x):
        time.sleep(self.slow_s)
        y = self.up(x)
        if y.requires_grad:
            y.register_hook(lambda gradient: time.sleep(self.slow_s))
        return y * 1.0


class Tiny(nn.Module):
    def __init__(self, slow_layer=None, slow_s=0.004, layers=3, width=16, vocab=32):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(Layer(width, slow_s if i == slow_layer else 0.0) for i in range(layers))
        self.norm = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocab)

    def forward(self, ids):
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))


IDS = torch.randint(0, 32, (2, 9))


def profiled_training(model, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def optimizer_step():
        optimizer.step()
        optimizer.zero_grad()

    def loss(batch):
        return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    return profile_training_step(
        model, next_batch=lambda: IDS, loss=loss, optimizer_step=optimizer_step, repetitions=5, **options
    )


def test_rows_of_a_timer_add_up_to_its_wall_time_and_that_to_the_clock():
    timer = StageTimer()
    before = time.perf_counter_ns()
    timer.start()
    for layer in range(3):
        with timer.stage(Stage.ATTENTION, layer):
            time.sleep(0.002)
            with timer.stage(Stage.NORM, layer):
                time.sleep(0.003)
        time.sleep(0.001)
    timer.stop()
    elapsed = time.perf_counter_ns() - before
    rows = timer.rows()
    assert sum(row.duration_ns for row in rows) == timer.wall_ns
    assert timer.wall_ns == pytest.approx(elapsed, rel=0.01)
    assert [(row.stage, row.layer) for row in rows][-1] == (Stage.HOST, None)
    times = {(row.stage, row.layer): row.duration_ns for row in rows}
    assert times[Stage.ATTENTION, 1] >= 2e6
    assert times[Stage.NORM, 1] >= 3e6
    assert times[Stage.HOST, None] >= 3e6


def test_marks_split_straight_line_code():
    timer = StageTimer()
    timer.start()
    timer.mark(Stage.EMBED)
    time.sleep(0.01)
    timer.mark(Stage.HEAD)
    time.sleep(0.03)
    timer.stop()
    times = {row.stage: row.duration_ns for row in timer.rows()}
    assert times[Stage.EMBED] >= 10e6
    assert times[Stage.HEAD] >= 30e6
    assert times[Stage.HOST] < 10e6


def test_a_stage_ends_when_its_block_raises():
    timer = StageTimer()
    timer.start()
    with pytest.raises(KeyError), timer.stage(Stage.FFN):
        raise KeyError
    timer.stop()
    assert sum(row.duration_ns for row in timer.rows()) == timer.wall_ns


@pytest.mark.parametrize(("name", "expected"), [
    ("model.layers.3.self_attn", (Stage.ATTENTION, 3)),
    ("layers.0.post_attention_layernorm", (Stage.NORM, 0)),
    ("transformer.h.11.mlp", (Stage.FFN, 11)),
    ("transformer.ln_f", (Stage.NORM, None)),
    ("transformer.wte", (Stage.EMBED, None)),
    ("decoder.block.2.layer.1.EncDecAttention", (Stage.CROSS_ATTENTION, 2)),
    ("lm_head", (Stage.HEAD, None)),
    ("layers.0", None),
])
def test_submodules_are_recognised_by_the_usual_names(name, expected):
    assert stage_of(name) == expected


def test_a_part_with_an_unknown_name_is_not_taken_for_the_stage_before_it():
    model = nn.ModuleDict({
        "norm": nn.LayerNorm(4), "drop": nn.Dropout(), "gadget": nn.Linear(4, 4),
        "layers": nn.ModuleList([nn.ModuleDict({"mlp": nn.Linear(4, 4), "trinket": nn.Linear(4, 4)})]),
    })
    assert places_of(model) == {
        "norm": (Stage.NORM, None), "layers.0.mlp": (Stage.FFN, 0),
        "gadget": (Stage.FORWARD, None), "layers.0.trinket": (Stage.FORWARD, 0),
    }


@pytest.mark.parametrize(("name", "expected"), [
    ("model.layers.3.self_attn.q_proj", (Stage.QKV, 3)),
    ("model.layers.3.self_attn.q_norm", (Stage.ROPE, 3)),
    ("transformer.h.1.attn.c_proj", (Stage.OUT, 1)),
    ("transformer.h.1.mlp.c_proj", (Stage.FFN, 1)),
    ("bert.embeddings.LayerNorm", (Stage.EMBED, None)),
    ("bert.encoder.layer.2.attention.self", (Stage.ATTENTION, 2)),
    ("bert.encoder.layer.2.attention.self.query", (Stage.QKV, 2)),
    ("bert.encoder.layer.2.attention.output.dense", (Stage.OUT, 2)),
    ("bert.encoder.layer.2.attention.output.LayerNorm", (Stage.NORM, 2)),
    ("bert.encoder.layer.2.intermediate.dense", (Stage.FFN, 2)),
    ("bert.encoder.layer.2.output.dense", (Stage.FFN, 2)),
    ("encoder.block.0.layer.0.SelfAttention.o", (Stage.OUT, 0)),
    ("decoder.block.2.layer.1.EncDecAttention.q", (Stage.CROSS_ATTENTION, 2)),
    ("cls.predictions.decoder", (Stage.HEAD, None)),
    ("model.decoder.layers.1.fc2", (Stage.FFN, 1)),
    ("backbone.layers.0.mixer.in_proj", (Stage.QKV, 0)),
    ("model.layers.4.self_attn.kv_a_proj_with_mqa", (Stage.QKV, 4)),
    ("", None),
    ("layers.0", None),
])
def test_code_of_a_submodule_belongs_to_its_outermost_stage_and_attention_is_split(name, expected):
    assert place_of(name) == expected


def test_only_the_outermost_stage_is_timed():
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    ))
    assert list(staged_modules(model)) == [
        "model.embed_tokens",
        *(f"model.layers.{i}.{part}" for i in range(2)
          for part in ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")),
        "model.norm", "lm_head",
    ]


def test_rows_of_a_training_step_add_up_to_the_wall_time():
    profile = profiled_training(Tiny(slow_layer=1))
    assert sum(row.duration_ns for row in profile.rows) == pytest.approx(profile.wall_ns, rel=0.01)
    assert sum(row.share for row in profile.rows) == pytest.approx(1, abs=0.01)
    assert sum(row.duration_ns for row in profile.by_stage()) == pytest.approx(profile.wall_ns, rel=0.01)
    assert all(row.duration_ns >= 0 for row in profile.rows)
    # Two sleeps of 4 ms lie in the step with hooks and in the one without.
    assert profile.wall_ns > 8e6
    assert profile.plain_wall_ns > 8e6


def test_time_is_charged_to_the_layer_that_takes_it_forward_and_backward():
    # Long against what a busy machine adds by chance.
    profile = profiled_training(Tiny(slow_layer=1, slow_s=0.04))
    times = {(row.phase, row.stage, row.layer): row.duration_ns for row in profile.rows}
    for phase in ("forward", "backward"):
        assert times[phase, Stage.FFN, 1] >= 40e6
        assert times[phase, Stage.FFN, 0] < 30e6
        assert times[phase, Stage.ATTENTION, 1] < 30e6
    expected = {"data", "embed", "norm", "attention", "ffn", "head", "loss", "optimizer", "host"}
    assert {row.stage.value for row in profile.rows} == expected


def test_flops_of_the_rows_sum_to_the_counted_total():
    model, ids = Tiny(), IDS[:, :-1]
    forward, training = list_program(model, ids), list_training_program(model, ids)
    profile = profiled_training(model, program=training, peak_flops_per_s=1e12)
    assert training.flops == 3 * forward.flops
    assert sum(row.flops for row in profile.rows) == profile.flops == training.flops
    by_stage = {(row.phase, row.stage): row for row in profile.by_stage()}
    assert by_stage["forward", Stage.HEAD].flops == 2 * 16 * 16 * 32
    assert by_stage["backward", Stage.HEAD].flops == 2 * by_stage["forward", Stage.HEAD].flops
    assert profile.share_of_peak == pytest.approx(training.flops / (profile.wall_ns * 1e-9) / 1e12)


def test_flops_follow_what_is_trained_and_are_none_where_nothing_was_listed():
    model = Tiny()
    model.lm_head.weight.requires_grad_(False)
    profile = profiled_training(model, program=list_training_program(model, IDS[:, :-1]))
    by_stage = {(row.phase, row.stage): row for row in profile.by_stage()}
    assert by_stage["backward", Stage.HEAD].flops == by_stage["forward", Stage.HEAD].flops
    assert {row.flops for row in profiled_training(Tiny()).rows} == {None}
    assert profiled_training(Tiny()).share_of_peak is None


def test_rows_of_a_decoded_token_add_up_and_name_the_choice_of_the_token():
    model = Tiny(slow_layer=2, slow_s=0.03)

    @torch.no_grad()
    def step():
        logits = model(IDS[:1, -1:])
        time.sleep(0.03)
        return logits.argmax()

    program = list_program(model, IDS[:1, -1:])
    profile = profile_decode_token(model, step, repetitions=6, program=program)
    assert sum(row.duration_ns for row in profile.rows) == pytest.approx(profile.wall_ns, rel=0.01)
    assert sum(row.flops for row in profile.rows) == program.flops
    times = {(row.stage, row.layer): row.duration_ns for row in profile.rows}
    assert times[Stage.SAMPLE, None] >= 30e6
    assert times[Stage.FFN, 2] >= 30e6
    assert times[Stage.HOST, None] < 30e6


def test_hooks_are_gone_afterwards():
    model = Tiny()
    profiled_training(model)
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in model.modules())
