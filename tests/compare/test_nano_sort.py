"""The published sorting Transformer computes here what it computed there."""

import json

import pytest
import torch

from tickwise.compare.nano_sort import load_nano_sort, read_array
from tickwise.core.errors import CheckpointError
from tickwise.engine.language_model import LanguageModel


@pytest.fixture
def folder(shared_data):
    path = shared_data.parent / "models" / "gpt_nano_sort"
    if not path.is_dir():
        pytest.skip("needs the published model beside the checkout")
    return path


@torch.no_grad()
def test_activations_are_those_of_the_reference(folder):
    module, _ = load_nano_sort(folder)
    reference = {name: read_array(value) for name, value in
                 json.loads((folder / "gpt-nano-sort-t0-partials.json").read_text()).items() if name != "config"}
    ids_BT = reference["idx"].long()
    kept = {}
    for layer, block in enumerate(module.layers):
        block.register_forward_hook(lambda _, __, out, layer=layer: kept.update({f"block{layer}": out[0]}))
    first = module.layers[0]
    first.input_layernorm.register_forward_hook(lambda _, __, out: kept.update(ln1=out))
    first.post_attention_layernorm.register_forward_hook(lambda _, __, out: kept.update(ln2=out))
    first.mlp.register_forward_hook(lambda _, __, out: kept.update(mlp=out))
    module.norm.register_forward_hook(lambda _, __, out: kept.update(ln_f=out))
    kept["lm_head"] = module(ids_BT)
    kept["probs"] = kept["lm_head"].softmax(-1)
    assert set(kept) == {"block0", "block1", "block2", "ln1", "ln2", "mlp", "ln_f", "lm_head", "probs"}
    for name, found in kept.items():
        torch.testing.assert_close(found, reference[name], rtol=1e-4, atol=2e-5,
                                   msg=lambda text, name=name: f"{name}: {text}")


def test_it_sorts(folder):
    module, tokenizer = load_nano_sort(folder)
    model = LanguageModel(module, tokenizer)
    for text in ("CBABBC", "AAAAAA", "CCCBBA", "BACBAC"):
        assert model.generate(text, temperature=0, max_tokens=6).text == "".join(sorted(text))


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "gpt-nano-sort-model.json"
    path.write_text(json.dumps({"config": {"n_layer": 1, "n_head": 1, "n_embd": 4, "vocab_size": 3, "block_size": 11}}))
    with pytest.raises(CheckpointError, match="not the sorting model"):
        load_nano_sort(tmp_path)
    with pytest.raises(CheckpointError, match="missing"):
        load_nano_sort(tmp_path / "elsewhere")
