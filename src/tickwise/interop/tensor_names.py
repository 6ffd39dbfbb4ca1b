"""The decoder's parameters under the names and in the layouts of Llama, Qwen 3 and GPT-2 checkpoints.

Every mapping is lossless both ways: rows are split or stacked, matrices transposed, nothing is computed.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tickwise.core.config import from_dict
from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.interop.config_keys import checked, rope_theta
from tickwise.layers.feed_forward import Activation
from tickwise.models.decoder import DecoderConfig

TICKWISE_MODEL_TYPE = "tickwise-decoder"


def model_type(config: DecoderConfig) -> str:
    """The Hugging Face ``model_type`` that computes exactly this config, or tickwise's own."""
    plain = config.logit_soft_cap is None and not config.value_residual
    llama = config.norm == "rmsnorm" and config.positions == "rope" and config.activation == "swiglu" and plain
    if llama and not config.qk_norm:
        return "llama"
    if llama and not config.bias:
        return "qwen3"
    gpt2 = (
        config.norm == "layernorm" and config.positions == "learned" and plain
        and config.activation in ("gelu", "gelu_tanh")
        and not config.qk_norm and config.n_kv_heads == config.n_heads
        and config.n_heads * config.head_dim == config.width
    )
    return "gpt2" if gpt2 else TICKWISE_MODEL_TYPE


def saved_format(config: DecoderConfig) -> str:
    """In which format a model of this config is saved, and who opens it, as one line for the user."""
    kind = model_type(config)
    if kind != TICKWISE_MODEL_TYPE:
        return f"saved as: model_type {kind}, which transformers opens"
    own = [name for name, chosen in (
        ("relu2", config.activation == "relu2"), ("value residuals", config.value_residual),
        ("a logit soft cap", config.logit_soft_cap is not None)) if chosen]
    combined = [config.norm, f"{config.positions} positions", config.activation]
    combined += ["grouped queries"] if config.n_kv_heads != config.n_heads else []
    combined += ["biases"] if config.bias else []
    combined += ["normed queries and keys"] if config.qk_norm else []
    reason = f"has {' and '.join(own)}" if own else f"combines {', '.join(combined)}"
    return f"saved as: model_type {kind}, which transformers does not open: no llama, qwen3 or gpt2 {reason}"


def hugging_face_config(config: DecoderConfig, token_ids: Mapping[str, int | None]) -> dict[str, Any]:
    """``config.json`` for that model; ``token_ids`` may give ``bos_token_id`` and ``eos_token_id``."""
    kind = model_type(config)
    common: dict[str, Any] = {
        "model_type": kind, "vocab_size": config.vocab_size, "torch_dtype": "float32",
        "tie_word_embeddings": config.tie_embeddings,
        **token_ids,
    }
    if kind == "gpt2":
        return common | {
            "architectures": ["GPT2LMHeadModel"], "n_positions": config.context_length, "n_embd": config.width,
            "n_layer": config.n_layers, "n_head": config.n_heads, "n_inner": config.hidden,
            "activation_function": "gelu" if config.activation == "gelu" else "gelu_new",
            "layer_norm_epsilon": config.norm_epsilon,
            "resid_pdrop": config.dropout, "embd_pdrop": config.dropout, "attn_pdrop": 0.0,
        }
    if kind == TICKWISE_MODEL_TYPE:
        import dataclasses

        return common | {"decoder": dataclasses.asdict(config)}
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    shared = common | {
        "hidden_size": config.width, "intermediate_size": config.hidden, "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads, "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim, "hidden_act": "silu", "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_epsilon, "rope_theta": config.rope_theta, "rope_parameters": rope,
        "attention_bias": config.bias, "attention_dropout": 0.0,
    }
    if kind == "llama":
        return shared | {"architectures": ["LlamaForCausalLM"], "mlp_bias": config.bias}
    return shared | {"architectures": ["Qwen3ForCausalLM"], "use_sliding_window": False}


def decoder_config(values: Mapping[str, Any], where: str) -> DecoderConfig:
    """The decoder that computes what ``config.json`` describes.

    Raises ``CheckpointError`` for another model type, for keys that are missing, unknown or of the wrong type, and for
    options that the decoder does not compute.
    """
    kind = values.get("model_type")
    readers = {"llama": _llama_config, "qwen3": _llama_config, "gpt2": _gpt2_config, TICKWISE_MODEL_TYPE: _own_config}
    if not isinstance(kind, str) or kind not in readers:
        raise CheckpointError(f"{where}: model_type '{kind}' is not supported (llama, qwen3 and gpt2 are)")
    given = checked(values, kind, where)
    try:
        return readers[kind](given, kind, where)
    except ConfigError as problem:  # of the decoder that this would be
        raise CheckpointError(f"{where}: {problem}") from None


def _need(values: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in values:
        raise CheckpointError(f"{where}: key '{name}' is missing")
    return values[name]


def _own_config(values: Mapping[str, Any], kind: str, where: str) -> DecoderConfig:
    config = from_dict(DecoderConfig, _need(values, "decoder", where), where="decoder")
    for name, twin in (("vocab_size", config.vocab_size), ("tie_word_embeddings", config.tie_embeddings)):
        if values.get(name, twin) != twin:
            raise CheckpointError(f"{where}: key '{name}' is {values[name]}, but 'decoder' says {twin}")
    return config


def _gpt2_config(values: Mapping[str, Any], kind: str, where: str) -> DecoderConfig:
    width, heads = _need(values, "n_embd", where), _need(values, "n_head", where)
    if heads < 1 or width % heads:
        raise CheckpointError(f"{where}: n_head {heads} does not divide n_embd {width}")
    named = values.get("activation_function", "gelu_new")
    activations: dict[str, Activation] = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
    if named not in activations:
        raise CheckpointError(f"{where}: activation_function '{named}' is not supported; tickwise computes "
                              f"{', '.join(activations)}")
    return DecoderConfig(
        vocab_size=_need(values, "vocab_size", where), context_length=_need(values, "n_positions", where), width=width,
        n_layers=_need(values, "n_layer", where), n_heads=heads, n_kv_heads=heads, head_dim=width // heads,
        hidden=values.get("n_inner", 4 * width), positions="learned", norm="layernorm",
        norm_epsilon=values.get("layer_norm_epsilon", 1e-5), activation=activations[named], bias=True,
        tie_embeddings=values.get("tie_word_embeddings", True), dropout=values.get("resid_pdrop", 0.0),
    )


def _llama_config(values: Mapping[str, Any], kind: str, where: str) -> DecoderConfig:
    if values.get("hidden_act", "silu") not in ("silu", "swish"):
        raise CheckpointError(f"{where}: hidden_act '{values['hidden_act']}' is not supported; tickwise computes silu")
    heads, width = _need(values, "num_attention_heads", where), _need(values, "hidden_size", where)
    bias, mlp_bias = values.get("attention_bias", False), values.get("mlp_bias", False)
    if kind == "qwen3" and (bias or mlp_bias):
        name = "attention_bias" if bias else "mlp_bias"
        raise CheckpointError(f"{where}: {name} true is not supported with model_type qwen3; tickwise computes false")
    if bias != mlp_bias:
        raise CheckpointError(f"{where}: attention_bias and mlp_bias that differ are not supported; tickwise computes "
                              "both true or both false")
    if kind == "qwen3":  # its defaults are those of one model, not derived from the width
        head_dim, kv_heads = _need(values, "head_dim", where), _need(values, "num_key_value_heads", where)
    else:
        kv_heads = values.get("num_key_value_heads", heads)
        if "head_dim" not in values and (heads < 1 or width % heads):
            raise CheckpointError(f"{where}: num_attention_heads {heads} does not divide hidden_size {width}")
        head_dim = values["head_dim"] if "head_dim" in values else width // heads
    return DecoderConfig(
        vocab_size=_need(values, "vocab_size", where), context_length=_need(values, "max_position_embeddings", where),
        width=width, n_layers=_need(values, "num_hidden_layers", where), n_heads=heads, n_kv_heads=kv_heads,
        head_dim=head_dim, hidden=_need(values, "intermediate_size", where), rope_theta=rope_theta(values, where),
        norm_epsilon=values.get("rms_norm_eps", 1e-6), bias=bias, qk_norm=kind == "qwen3",
        tie_embeddings=values.get("tie_word_embeddings", False),
    )


def _stacked(config: DecoderConfig) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Stacked module → (names of its parts in a Llama checkpoint, rows of each)."""
    q, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return {
        "self_attn.qkv_proj": (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), (q, kv, kv)),
        "mlp.gate_up_proj": (("mlp.gate_proj", "mlp.up_proj"), (config.hidden, config.hidden)),
    }


def _to_llama(config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    stacked = _stacked(config)
    for name, tensor in state.items():
        if name == "lm_head.weight":
            if not config.tie_embeddings:
                out[name] = tensor
            continue
        for module, (parts, rows) in stacked.items():
            if f".{module}." in name:
                for part, piece in zip(parts, tensor.split(rows), strict=True):
                    out["model." + name.replace(module, part)] = piece.contiguous()
                break
        else:
            out["model." + name] = tensor
    return out


def _from_llama(config: DecoderConfig, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor],
                where: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    stacked = _stacked(config)
    used = set()

    def take(name: str) -> Tensor:
        if name not in tensors:
            raise CheckpointError(f"{where}: tensor '{name}' is missing")
        used.add(name)
        return tensors[name]

    for name in expected:
        if name == "lm_head.weight":
            source = "lm_head.weight" if not config.tie_embeddings else "model.embed_tokens.weight"
            state[name] = take(source)
            continue
        for module, (parts, _) in stacked.items():
            if f".{module}." in name:
                state[name] = torch.cat([take("model." + name.replace(module, part)) for part in parts])
                break
        else:
            state[name] = take("model." + name)
    _refuse_leftovers(set(tensors) - used, config, where)
    return state


_GPT2_LAYER = {
    "input_layernorm": "ln_1", "self_attn.qkv_proj": "attn.c_attn", "self_attn.o_proj": "attn.c_proj",
    "post_attention_layernorm": "ln_2", "mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj",
}
_GPT2_TOP = {"embed_tokens": "wte", "embed_positions": "wpe", "norm": "ln_f"}


def _gpt2_name(name: str) -> tuple[str, bool]:
    """The GPT-2 name of a parameter, and whether it is stored as (in, out) instead of (out, in)."""
    module, _, leaf = name.rpartition(".")
    if module.startswith("layers."):
        _, index, inner = module.split(".", 2)
        transposed = leaf == "weight" and not inner.endswith("layernorm")
        return f"transformer.h.{index}.{_GPT2_LAYER[inner]}.{leaf}", transposed
    return f"transformer.{_GPT2_TOP[module]}.{leaf}", False


def _to_gpt2(config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name == "lm_head.weight":
            if not config.tie_embeddings:
                out[name] = tensor
            continue
        target, transposed = _gpt2_name(name)
        out[target] = tensor.T.contiguous() if transposed else tensor
        bias = target.removesuffix("weight") + "bias"
        if not config.bias and target.endswith("weight") and ".wte." not in target and ".wpe." not in target:
            out[bias] = torch.zeros(tensor.shape[0])  # GPT-2 checkpoints always have biases; zero adds nothing
    return out


def _from_gpt2(config: DecoderConfig, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor],
               where: str) -> dict[str, Tensor]:
    prefix = "" if "wte.weight" in tensors else "transformer."
    state: dict[str, Tensor] = {}
    used = set()
    for name in expected:
        if name == "lm_head.weight":
            source, transposed = ("lm_head.weight" if not config.tie_embeddings else f"{prefix}wte.weight"), False
        else:
            source, transposed = _gpt2_name(name)
            source = prefix + source.removeprefix("transformer.")
        if source not in tensors:
            raise CheckpointError(f"{where}: tensor '{source}' is missing")
        used.add(source)
        state[name] = tensors[source].T if transposed else tensors[source]
    leftovers = {n for n in set(tensors) - used if not n.endswith((".attn.bias", ".attn.masked_bias"))}
    if not config.bias:  # the zeros that _to_gpt2 put there
        leftovers = {n for n in leftovers if not (n.endswith(".bias") and not tensors[n].any())}
    _refuse_leftovers(leftovers, config, where)
    return state


def _refuse_leftovers(names: set[str], config: DecoderConfig, where: str) -> None:
    names = {n for n in names if not n.endswith("rotary_emb.inv_freq")}
    if config.tie_embeddings:
        names.discard("lm_head.weight")
    if names:
        raise CheckpointError(f"{where}: tensor '{min(names)}' has no place in this model ({len(names)} such)")


def to_checkpoint(config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's ``state_dict`` under the names of its ``model_type``."""
    return _to_gpt2(config, state) if model_type(config) == "gpt2" else _to_llama(config, state)


def from_checkpoint(config: DecoderConfig, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor],
                    where: str) -> dict[str, Tensor]:
    """A ``state_dict`` with the names of ``expected`` from a checkpoint's tensors.

    Raises ``CheckpointError`` naming the first tensor that is missing, left over or of another shape.
    """
    mapper = _from_gpt2 if model_type(config) == "gpt2" else _from_llama
    state = mapper(config, tensors, expected, where)
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{where}: tensor '{name}' has shape {tuple(tensor.shape)}, "
                f"the config asks for {tuple(expected[name].shape)}"
            )
    return state
