"""What a run says of itself before it starts."""

import pytest

from tickwise.interop.directory import save_model
from tickwise.models.decoder import Decoder
from tickwise.tokenizers.train import train_tokenizer
from tickwise.training.config import ModelOptions, TrainConfig
from tickwise.training.dial import decoder_from_dial, describe, resolve

transformers = pytest.importorskip("transformers")

OPENED = [
    ({"architecture": "qwen3"}, "qwen3"), ({"architecture": "llama"}, "llama"), ({"architecture": "gpt2"}, "gpt2"),
    ({"architecture": "qwen3", "qk_norm": False}, "llama"), ({"architecture": "llama", "bias": True}, "llama"),
    ({"architecture": "gpt2", "bias": False, "tie_embeddings": False, "activation": "gelu"}, "gpt2"),
    ({"architecture": "tickwise", "value_residual": False}, "qwen3"),
]
NOT_OPENED = [
    ({"architecture": "tickwise"}, "has value residuals"), ({"architecture": "gpt2", "activation": "swiglu"}, "swiglu"),
    ({"architecture": "qwen3", "bias": True}, "biases"), ({"architecture": "llama", "activation": "gelu"}, "gelu"),
    ({"architecture": "llama", "activation": "relu2", "logit_soft_cap": 9.0}, "has relu2 and a logit soft cap"),
    ({"architecture": "gpt2", "n_kv_heads": 1}, "grouped queries"),
    ({"architecture": "gpt2", "qk_norm": True}, "normed"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("bpe", iter(["the cat sat on the mat. " * 20]), vocab_size=290)


def announced(options, folder, tokenizer):
    """What is said of the format, for a model that then is saved in ``folder``."""
    config = TrainConfig(data=folder, depth=1, context=16, model=ModelOptions(width=32, n_heads=2, **options))
    model = decoder_from_dial(config.depth, config.context, 300, config.model)
    save_model(folder / "model", Decoder(model), tokenizer)
    return describe(model, resolve(config, model, 1000, 1000), 1000)[-1]


@pytest.mark.parametrize(("options", "kind"), OPENED)
def test_a_model_that_transformers_opens_is_announced_as_such(options, kind, tmp_path, tokenizer):
    assert announced(options, tmp_path, tokenizer) == f"saved as: model_type {kind}, which transformers opens"
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.model_type == kind


@pytest.mark.parametrize(("options", "reason"), NOT_OPENED)
def test_a_model_that_transformers_does_not_open_is_announced_with_the_reason(options, reason, tmp_path, tokenizer):
    said = announced(options, tmp_path, tokenizer)
    assert "tickwise-decoder, which transformers does not open" in said
    assert reason in said.split(": no llama, qwen3 or gpt2 ")[1]
    with pytest.raises(ValueError, match="tickwise-decoder"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")


def test_limits_are_written_out_in_full(tmp_path):
    config = TrainConfig(data=tmp_path, depth=1, context=16, max_steps=3_000_000, max_seconds=0.5)
    model = decoder_from_dial(config.depth, config.context, 300, config.model)
    said = describe(model, resolve(config, model, 1000, 1000), 1000)[1]
    assert said.endswith("at most 3,000,000 steps or 0.5 seconds")
    without = resolve(TrainConfig(data=tmp_path, depth=1, context=16), model, 12_345_678, 10**12)
    assert describe(model, without, 12_345_678)[1].endswith("at most 246,913,560 tokens")
