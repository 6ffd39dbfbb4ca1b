"""Every key of a config.json that changes the function is honoured or refused; transformers is the judge."""

import json

import pytest
import torch

from tickwise.core.errors import CheckpointError
from tickwise.interop.directory import load_model, read_config
from tickwise.interop.tensor_names import decoder_config
from tickwise.tokenizers.train import train_tokenizer

transformers = pytest.importorskip("transformers")

LLAMA = {"vocab_size": 300, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "bos_token_id": 1,
         "eos_token_id": 2}
SMALL = {
    "llama": LLAMA,
    "qwen3": LLAMA | {"head_dim": 16},
    "gpt2": {"vocab_size": 300, "n_positions": 32, "resid_pdrop": 0.0, "n_embd": 48, "n_layer": 2, "n_head": 4,
             "bos_token_id": 1, "eos_token_id": 2},
}
HONOURED = [
    ("llama", {}), ("qwen3", {}), ("gpt2", {}),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}),
    ("llama", {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 300.0}, "rope_theta": 20.0}),
    ("llama", {"rope_theta": 20.0, "rope_scaling": None}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "hidden_act": "swish"}),
    ("llama", {"head_dim": 16, "rms_norm_eps": 0.1, "num_key_value_heads": None}),
    ("qwen3", {"rope_theta": 20.0, "sliding_window": 4, "use_sliding_window": False}),
    ("gpt2", {"n_inner": 80, "activation_function": "gelu", "layer_norm_epsilon": 0.1}),
    ("gpt2", {"reorder_and_upcast_attn": True, "activation_function": "gelu_pytorch_tanh"}),
    ("gpt2", {"tie_word_embeddings": False}),
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("bpe", iter(["the cat sat on the mat. " * 20]), vocab_size=290)


def save_with_transformers(folder, kind, options, tokenizer, **loading):
    """A model with random weights, biases and norms included, whose config.json also holds ``options`` as given."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **(SMALL[kind] | options))
    module = transformers.AutoModelForCausalLM.from_config(config, **loading).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    module.save_pretrained(folder)
    tokenizer.save(folder)
    return module


def change_config(folder, changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))


def largest_difference(folder, reference):
    ids = torch.randint(0, 300, (2, 32), generator=torch.Generator().manual_seed(1))
    loaded, _ = load_model(folder, device="cpu")
    with torch.no_grad():
        return (loaded(ids) - reference(ids).logits).abs().max()


@pytest.mark.parametrize(("kind", "options"), HONOURED)
def test_what_transformers_writes_loads_and_computes_the_same(kind, options, tmp_path, tokenizer):
    reference = save_with_transformers(tmp_path, kind, options, tokenizer, attn_implementation="eager")
    assert largest_difference(tmp_path, reference) <= 1e-5


@pytest.mark.parametrize(("kind", "options"), HONOURED)
def test_keys_added_to_a_config_mean_what_they_mean_to_transformers(kind, options, tmp_path, tokenizer):
    reference = save_with_transformers(tmp_path, kind, options, tokenizer)
    change_config(tmp_path, options)
    assert largest_difference(tmp_path, reference) <= 1e-5
    reopened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert largest_difference(tmp_path, reopened) <= 1e-5


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
ROPE = [
    ({"rope_scaling": YARN}, "rope_scaling: rope_type 'yarn'"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters: rope_type 'llama3'"),
    ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "'partial_rotary_factor'"),
    ({"rope_parameters": {"full_attention": {"rope_theta": 10.0}}}, "'full_attention'"),
    ({"rope_scaling": 4}, "'rope_scaling': expected an object"),
    ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor' 0.5"),
    ({"rope_interleaved": True}, "'rope_interleaved' true"),
    ({"sliding_window": 8}, "'sliding_window' 8"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention'"),
    ({"attention_bias": True}, "attention_bias"),
    ({"is_causal": False}, "'is_causal' false"),
    ({"hidden_act": "relu"}, "hidden_act 'relu'"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "weights are quantised"),
    ({"per_layer_config": {"0": {"intermediate_size": 8}}}, "'per_layer_config'"),
    ({"rms_norm_epss": 0.1}, "unknown key 'rms_norm_epss'; did you mean 'rms_norm_eps'?"),
    ({"num_kv_heads": 4}, "did you mean 'num_key_value_heads'?"),
    ({"logit_scale": 2.0}, "unknown key 'logit_scale'; remove it if it does not change the computation"),
    ({"tie_word_embeddings": "false"}, "expected true or false, got 'false'"),
    ({"vocab_size": "300"}, "expected a whole number"),
    ({"rms_norm_eps": None, "hidden_size": None}, "'hidden_size' is missing"),
]
REFUSED = [
    *(("llama", *case) for case in ROPE), *(("qwen3", *case) for case in ROPE),
    ("llama", {"mlp_bias": True}, "mlp_bias"), ("llama", {"pretraining_tp": 2}, "'pretraining_tp' 2"),
    ("qwen3", {"mlp_bias": True, "attention_bias": True}, "attention_bias"),
    ("qwen3", {"use_sliding_window": True}, "'use_sliding_window' true"), ("qwen3", {"head_dim": None}, "'head_dim'"),
    ("gpt2", {"scale_attn_weights": False}, "'scale_attn_weights' false"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "'scale_attn_by_inverse_layer_idx' true"),
    ("gpt2", {"add_cross_attention": True}, "'add_cross_attention' true"),
    ("gpt2", {"quantization_config": {"bits": 8}}, "weights are quantised"),
    ("gpt2", {"activation_function": "relu"}, "activation_function 'relu'"),
    ("gpt2", {"hidden_size": 96}, "'n_embd'"), ("gpt2", {"n_embed": 96}, "did you mean 'n_embd'?"),
    ("gpt2", {"rope_scaling": YARN}, "unknown key 'rope_scaling'"),
    ("tickwise-decoder", {"quantization_config": {"bits": 8}}, "weights are quantised"),
    ("tickwise-decoder", {"rope_scaling": YARN}, "unknown key 'rope_scaling'"),
    ("tickwise-decoder", {"vocab_size": 7}, "'vocab_size' is 7"),
    ("tickwise-decoder", {"tie_word_embeddings": True}, "'tie_word_embeddings' is True"),
    ("tickwise-decoder", {"decoder": {"widht": 3}}, "unknown key 'widht'; did you mean 'width'?"),
]
OWN = {"vocab_size": 300, "torch_dtype": "float32", "tie_word_embeddings": False, "bos_token_id": 1,
       "decoder": {"vocab_size": 300, "context_length": 32, "width": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4,
                   "head_dim": 12, "hidden": 64, "activation": "relu2"}}


@pytest.mark.parametrize(("kind", "changes", "said"), REFUSED)
def test_what_the_decoder_does_not_compute_is_refused_in_one_line(kind, changes, said, tmp_path):
    values = (SMALL | {"tickwise-decoder": OWN})[kind] | {"model_type": kind}
    (tmp_path / "config.json").write_text(json.dumps(values))
    read_config(tmp_path)
    change_config(tmp_path, changes)
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert message.count("config.json") == 1


@pytest.mark.parametrize("kind", SMALL)
def test_everything_that_a_config_of_transformers_holds_passes(kind):
    config = transformers.AutoConfig.for_model(kind, **SMALL[kind])
    plain = decoder_config(SMALL[kind] | {"model_type": kind}, "config.json")
    values = json.loads(json.dumps(config.to_dict(), default=str))
    sampling = dict.fromkeys(transformers.GenerationConfig._get_default_generation_params(), 1)
    published = {"auto_map": {}, "torch_dtype": "bfloat16", "gradient_checkpointing": False, "_num_labels": 1,
                 "unknown_but_null": None, "pad_token_id": 0, "task_specific_params": {"text": {"max_length": 5}}}
    assert decoder_config(values | sampling | published, "config.json") == plain
