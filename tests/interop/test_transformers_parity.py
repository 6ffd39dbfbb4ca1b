"""Logits of a tiny random model equal transformers', loaded from the directory that we wrote."""

import json

import pytest
import torch

from tickwise.core.errors import CheckpointError
from tickwise.interop.directory import load_model, save_model
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.tokenizers.train import train_tokenizer

transformers = pytest.importorskip("transformers")

SHAPE = {"vocab_size": 300, "context_length": 32, "width": 48, "n_layers": 3, "n_heads": 4, "head_dim": 12}
GPT2 = {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh", "n_kv_heads": 4, "hidden": 96}
VARIANTS = {
    "llama": {"n_kv_heads": 2, "hidden": 64},
    "llama tied, bias, own theta": {"n_kv_heads": 4, "hidden": 96, "tie_embeddings": True, "bias": True,
                                    "rope_theta": 500.0},
    "llama wide heads": {"n_kv_heads": 1, "hidden": 64, "head_dim": 16},
    "qwen3": {"n_kv_heads": 2, "hidden": 64, "qk_norm": True},
    "gpt2": GPT2 | {"bias": True, "tie_embeddings": True},
    "gpt2 without bias": GPT2 | {"bias": False, "tie_embeddings": True},
    "gpt2 with exact gelu": GPT2 | {"bias": True, "tie_embeddings": True, "activation": "gelu"},
    "gpt2 untied": GPT2 | {"bias": True, "tie_embeddings": False},
}
OWN = {"n_kv_heads": 4, "hidden": 96, "activation": "relu2", "qk_norm": True, "value_residual": True,
       "logit_soft_cap": 15.0}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("bpe", iter(["the cat sat on the mat. " * 20]), vocab_size=290)


def random_decoder(options):
    torch.manual_seed(3)
    module = Decoder(DecoderConfig(**(SHAPE | options))).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.1)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_transformers(name, tmp_path, tokenizer):
    module = random_decoder(VARIANTS[name])
    save_model(tmp_path / "m", module, tokenizer)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    ids = torch.randint(0, 300, (2, 20))
    with torch.no_grad():
        ours, theirs = module(ids), reference(ids).logits
    assert (ours - theirs).abs().max() <= 1e-5
    assert type(reference).__name__.lower().startswith(name.split()[0])


@pytest.mark.parametrize("name", [*VARIANTS, "own"])
def test_save_and_load_give_the_same_logits(name, tmp_path, tokenizer):
    module = random_decoder(VARIANTS.get(name, OWN))
    save_model(tmp_path / "m", module, tokenizer)
    loaded, loaded_tokenizer = load_model(tmp_path / "m", device="cpu")
    ids = torch.randint(0, 300, (2, 20))
    with torch.no_grad():
        # A GPT-2 without biases comes back with biases of zero, which may round differently in the last bit.
        torch.testing.assert_close(loaded(ids), module(ids), atol=1e-6, rtol=0)
    assert loaded_tokenizer.encode("the cat") == tokenizer.encode("the cat")


def test_models_saved_by_transformers_load_here(tmp_path, tokenizer):
    config = transformers.LlamaConfig(vocab_size=300, hidden_size=48, intermediate_size=64, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32)
    torch.manual_seed(0)
    reference = transformers.LlamaForCausalLM(config).eval()
    reference.save_pretrained(tmp_path / "m")
    tokenizer.save(tmp_path / "m")
    loaded, _ = load_model(tmp_path / "m", device="cpu")
    ids = torch.randint(0, 300, (2, 20))
    with torch.no_grad():
        assert (loaded(ids) - reference(ids).logits).abs().max() <= 1e-5


def test_own_options_are_not_passed_off_as_a_llama(tmp_path, tokenizer):
    save_model(tmp_path / "m", random_decoder(OWN), tokenizer)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model_type"] == "tickwise-decoder"
    with pytest.raises(Exception, match="tickwise-decoder"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")


@pytest.fixture
def saved(tmp_path, tokenizer):
    save_model(tmp_path / "m", random_decoder(VARIANTS["llama"]), tokenizer)
    return tmp_path / "m"


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        load_model(path, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    assert name in refused(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_truncated_file_is_named(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    assert name in refused(saved)


def test_another_shape_is_named(saved):
    values = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(values | {"intermediate_size": 80}))
    message = refused(saved)
    assert "shape" in message
    assert "gate_up_proj" in message


def test_another_depth_is_named(saved):
    values = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 2}))
    assert "model.layers.2" in refused(saved)
    (saved / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 4}))
    assert "missing" in refused(saved)


def test_a_pickle_is_refused_and_not_run(saved):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(saved / "ran"), "w"))

    for name in ("model.safetensors", "pytorch_model.bin"):
        (saved / "model.safetensors").unlink(missing_ok=True)
        (saved / name).write_bytes(pickle.dumps(Bomb()))
        assert "pickle" in refused(saved)
    torch.save({"a": torch.zeros(1)}, saved / "model.safetensors")
    assert "pickle" in refused(saved)
    assert not (saved / "ran").exists()


def test_a_tokenizer_of_another_model_is_refused(saved):
    train_tokenizer("bpe", iter(["many different words make a large vocabulary of their own " * 9]),
                    vocab_size=290).save(saved)
    values = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(values | {"vocab_size": 10}))
    refused(saved)


def test_a_header_whose_length_looks_like_a_pickle_is_not_one(tmp_path):
    from tickwise.interop.directory import read_tensors, write_tensors

    for padding in range(400):  # some header length is then 640 or 896 bytes, which begins like a pickle
        write_tensors(tmp_path / "x.safetensors", {"a" * (padding + 1): torch.zeros(1), "b" * 300: torch.zeros(1)})
        if (tmp_path / "x.safetensors").read_bytes()[:2] in (b"\x80\x02", b"\x80\x03"):
            assert len(read_tensors(tmp_path / "x.safetensors")) == 2
            return
    pytest.fail("no such header came up")


@pytest.mark.parametrize(("kind", "option"), [
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}), ("gpt2", {"n_head": 0}),
    ("qwen3", {"use_sliding_window": True}), ("llama", {"hidden_act": "gelu"}),
    ("llama", {"rope_parameters": {"rope_type": "llama3"}}),
])
def test_options_that_we_do_not_compute_are_refused(tmp_path, tokenizer, kind, option):
    save_model(tmp_path / "m", random_decoder(VARIANTS[kind]), tokenizer)
    values = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(values | option))
    assert next(iter(option)).split("_")[0] in refused(tmp_path / "m")
