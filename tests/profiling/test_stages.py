import pytest
from torch import nn

from tickwise.core.stages import Stage
from tickwise.profiling.stages import place_of, places_of, stage_of


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
