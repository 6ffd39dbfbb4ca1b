"""Models without weights from a ``config.json``: what is wrong with one is said with its file and key."""

import json

import pytest

from tickwise.core.errors import CheckpointError
from tickwise.interop.architectures import model_from_config

pytest.importorskip("transformers")

SHAPE = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80,
         "max_position_embeddings": 64}
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}


def write(folder, values):
    (folder / "config.json").write_text(json.dumps(values))
    return folder / "config.json"


@pytest.mark.parametrize(("kind", "shape", "missing"), [
    ("llama", SHAPE, "hidden_size"), ("qwen3", SHAPE, "hidden_size"), ("mistral", SHAPE, "hidden_size"),
    ("gpt2", GPT2, "n_embd"),
])
@pytest.mark.parametrize("library", ["auto", "transformers"])
def test_a_missing_width_is_named_and_no_other_model_s_is_taken(tmp_path, kind, shape, missing, library):
    values = {**shape, "model_type": kind} | ({"head_dim": 8, "num_key_value_heads": 4} if shape is SHAPE else {})
    whole = write(tmp_path, values)
    assert sum(p.numel() for p in model_from_config(whole, library=library).parameters()) < 100_000
    path = write(tmp_path, {name: value for name, value in values.items() if name != missing})
    with pytest.raises(CheckpointError) as refusal:
        model_from_config(path, library=library)
    assert str(refusal.value) == f"{path}: key '{missing}' is missing"


def test_a_value_of_another_type_is_named(tmp_path):
    path = write(tmp_path, {**SHAPE, "model_type": "mistral", "hidden_size": "wide"})
    with pytest.raises(CheckpointError, match=r"config\.json: .*'hidden_size' expected int"):
        model_from_config(path)
