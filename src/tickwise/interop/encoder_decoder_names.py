"""Encoder–decoders of other programs: the configs and tensor names of T5, BART and Marian directories.

Tensors are stacked, cut or copied; nothing is computed.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.interop.config_keys import checked
from tickwise.layers.feed_forward import Activation
from tickwise.models.encoder_decoder import EncoderDecoderConfig

_PLAIN: Mapping[str, Activation] = {
    "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "silu": "silu",
    "swish": "silu",
}
_GATED: Mapping[str, Activation] = {
    "gelu_new": "geglu_tanh", "gelu_pytorch_tanh": "geglu_tanh", "silu": "swiglu", "swish": "swiglu"}
_T5_LENGTH = 512
"""Old T5 configs name it; it is what the published models were trained with."""
_BART_POSITIONS_SKIPPED = 2
"""Rows at the beginning of BART's tables that no position uses."""


def encoder_decoder_config(values: Mapping[str, Any], where: str) -> EncoderDecoderConfig:
    """The encoder–decoder that computes what a ``config.json`` of model type t5, bart or marian describes.

    Raises ``CheckpointError`` for keys that are missing, unknown or of the wrong type, and for options that the family
    does not compute.
    """
    kind = str(values.get("model_type"))
    given = checked(values, kind, where)
    if not given.get("is_encoder_decoder", True):
        raise CheckpointError(f"{where}: key 'is_encoder_decoder' false (a part of a {kind} model) is not supported; "
                              "tickwise supports true")
    try:
        return _t5_config(given, where) if kind == "t5" else _bart_config(given, kind, where)
    except ConfigError as problem:
        raise CheckpointError(f"{where}: {problem}") from None


def _need(values: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in values:
        raise CheckpointError(f"{where}: key '{name}' is missing")
    return values[name]


def _activation(name: str, known: Mapping[str, Activation], where: str) -> Activation:
    if name not in known:
        gated = "gated " if known is _GATED else ""
        raise CheckpointError(f"{where}: the {gated}activation '{name}' is not supported; tickwise computes "
                              f"{', '.join(known)}")
    return known[name]


def _t5_config(values: Mapping[str, Any], where: str) -> EncoderDecoderConfig:
    word = values.get("feed_forward_proj", "relu")
    gate, _, plain = word.rpartition("-")
    if gate not in ("", "gated"):
        raise CheckpointError(f"{where}: feed_forward_proj '{word}' is not supported; tickwise computes an activation, "
                              "or gated-activation")
    named = "gelu_new" if word == "gated-gelu" else plain
    known = _GATED if values.get("is_gated_act", gate == "gated") else _PLAIN
    # T5 1.1 is the one without a tied head; its config says so, or, since transformers 5, what follows from it.
    tied = values.get("scale_decoder_outputs", values.get("tie_word_embeddings", True))
    n_layers, heads = values.get("num_layers", 6), values.get("num_heads", 8)
    pad_id, length = values.get("pad_token_id", 0), values.get("n_positions", _T5_LENGTH)
    return EncoderDecoderConfig(
        vocab_size=_need(values, "vocab_size", where), source_length=length, context_length=length,
        width=_need(values, "d_model", where), n_encoder_layers=n_layers,
        n_decoder_layers=values.get("num_decoder_layers", n_layers), n_heads=heads, n_kv_heads=heads,
        head_dim=_need(values, "d_kv", where), hidden=_need(values, "d_ff", where), pad_id=pad_id,
        start_id=values.get("decoder_start_token_id", pad_id), eos_id=values.get("eos_token_id", 1),
        positions="relative", relative_buckets=values.get("relative_attention_num_buckets", 32),
        relative_distance=values.get("relative_attention_max_distance", 128),
        norm="rmsnorm", norm_epsilon=values.get("layer_norm_epsilon", 1e-6),
        activation=_activation(values.get("dense_act_fn", named), known, where), tie_embeddings=tied,
        scale_embedding=False, scale_logits=tied, scale_scores=False, dropout=values.get("dropout_rate", 0.1),
        attention_dropout=values.get("dropout_rate", 0.1), activation_dropout=values.get("dropout_rate", 0.1),
    )


def _bart_config(values: Mapping[str, Any], kind: str, where: str) -> EncoderDecoderConfig:
    computed = {"normalize_before": False, "normalize_embedding": kind == "bart", "add_final_layer_norm": False,
                "static_position_embeddings": kind == "marian", "share_encoder_decoder_embeddings": True,
                "num_hidden_layers": values.get("encoder_layers"), "decoder_vocab_size": values.get("vocab_size")}
    for name, only in computed.items():
        if values.get(name, only) != only:
            raise CheckpointError(f"{where}: key '{name}' {str(values[name]).lower()} with model_type {kind} is not "
                                  f"supported; tickwise supports {str(only).lower()}")
    for name in ("attention_heads", "ffn_dim"):
        both = _need(values, f"encoder_{name}", where), _need(values, f"decoder_{name}", where)
        if both[0] != both[1]:
            raise CheckpointError(f"{where}: encoder_{name} {both[0]} and decoder_{name} {both[1]} are not supported; "
                                  "tickwise computes equal ones")
    width, heads = _need(values, "d_model", where), values["encoder_attention_heads"]
    if heads < 1 or width % heads:
        raise CheckpointError(f"{where}: encoder_attention_heads {heads} does not divide d_model {width}")
    length = _need(values, "max_position_embeddings", where)
    pad_id, eos_id, start_id = (1, 2, 2) if kind == "bart" else (58_100, 0, 58_100)
    return EncoderDecoderConfig(
        vocab_size=_need(values, "vocab_size", where), source_length=length, context_length=length, width=width,
        n_encoder_layers=_need(values, "encoder_layers", where),
        n_decoder_layers=_need(values, "decoder_layers", where), n_heads=heads, n_kv_heads=heads,
        head_dim=width // heads, hidden=values["encoder_ffn_dim"], pad_id=values.get("pad_token_id", pad_id),
        start_id=values.get("decoder_start_token_id", start_id), eos_id=values.get("eos_token_id", eos_id),
        positions="learned" if kind == "bart" else "sinusoidal", norm="layernorm", norm_place="post", final_norm=False,
        embedding_norm=kind == "bart", bias=True,
        activation=_activation(values.get("activation_function", "gelu"), _PLAIN, where),
        tie_embeddings=values.get("tie_word_embeddings", True), scale_embedding=values.get("scale_embedding", False),
        logit_bias=True, dropout=values.get("dropout", 0.1), attention_dropout=values.get("attention_dropout", 0.0),
        activation_dropout=values.get("activation_dropout", 0.0),
    )


def encoder_decoder_state(
    config: EncoderDecoderConfig, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """A ``state_dict`` with the names of ``expected`` from the tensors of a T5, BART or Marian checkpoint.

    Raises ``CheckpointError`` naming the first tensor that is missing, left over or of another shape.
    """
    is_t5 = config.positions == "relative"
    prefix = "model." if any(name.startswith("model.") for name in tensors) else ""
    shared = f"{prefix}shared.weight"
    twins = [f"{prefix}{stack}.embed_tokens.weight" for stack in ("encoder", "decoder")]
    used: set[str] = set()

    def take(name: str) -> Tensor:
        if name not in tensors:
            raise CheckpointError(f"{where}: tensor '{name}' is missing")
        used.add(name)
        return tensors[name]

    embedding = take(next((name for name in (shared, *twins, "lm_head.weight") if name in tensors), shared))
    if config.tie_embeddings or is_t5:  # transformers 5 may save an untied T5 head, which equals the embedding, once
        twins.append("lm_head.weight")
    for name in twins:
        if name in tensors and name not in used:
            if not torch.equal(tensors[name], embedding) and (name != "lm_head.weight" or config.tie_embeddings):
                raise CheckpointError(f"{where}: tensor '{name}' differs from the embedding, which the config says it "
                                      "is")
            used.add(name)
    state: dict[str, Tensor] = {}
    for name, like in expected.items():
        if name == "embed_tokens.weight" or (name == "lm_head.weight" and config.tie_embeddings):
            state[name] = embedding
        elif name == "lm_head.weight":
            state[name] = tensors.get(name, embedding) if is_t5 else take(name)
        elif name == "lm_head.bias":
            bias = f"{prefix.removesuffix('model.')}final_logits_bias"
            state[name] = take(bias).flatten() if bias in tensors else torch.zeros(like.shape)
        elif name.endswith("embed_positions.weight"):
            state[name] = take(prefix + name)[_BART_POSITIONS_SKIPPED:]
        else:
            parts = _t5_names(config, name) if is_t5 else _bart_names(name)
            found = [take(prefix + part) for part in parts]
            state[name] = torch.cat(found) if len(found) > 1 else found[0]
        if state[name].shape != like.shape:
            raise CheckpointError(f"{where}: tensor '{name}' has shape {tuple(state[name].shape)}, the config asks for "
                                  f"{tuple(like.shape)}")
    harmless = {_UNUSED_BIAS, *(f"{prefix}{stack}.embed_positions.weight" for stack in ("encoder", "decoder"))}
    left = sorted(set(tensors) - used - harmless)
    if left:
        raise CheckpointError(f"{where}: tensor '{left[0]}' has no place in this model ({len(left)} such)")
    return state


_UNUSED_BIAS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""In published T5 files, and read by nobody."""

_T5_TOP = {
    "norm.weight": "final_layer_norm.weight",
    "relative.table.weight": "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
}
_T5_ATTENTION = {
    "attention_norm": ("layer.0.layer_norm",),
    "self_attn.qkv_proj": tuple(f"layer.0.SelfAttention.{part}" for part in "qkv"),
    "self_attn.o_proj": ("layer.0.SelfAttention.o",),
    "cross_norm": ("layer.1.layer_norm",),
    "cross_attn.q_proj": ("layer.1.EncDecAttention.q",),
    "cross_attn.kv_proj": tuple(f"layer.1.EncDecAttention.{part}" for part in "kv"),
    "cross_attn.o_proj": ("layer.1.EncDecAttention.o",),
}
_T5_FEED_FORWARD = {
    "mlp_norm": ("layer_norm",), "mlp.up_proj": ("DenseReluDense.wi",),
    "mlp.gate_up_proj": ("DenseReluDense.wi_0", "DenseReluDense.wi_1"), "mlp.down_proj": ("DenseReluDense.wo",),
}


def _t5_names(config: EncoderDecoderConfig, name: str) -> list[str]:
    stack, inner = name.split(".", 1)
    if not inner.startswith("layers."):
        return [f"{stack}.{_T5_TOP[inner]}"]
    _, index, module = inner.split(".", 2)
    module, _, leaf = module.rpartition(".")
    if module in _T5_FEED_FORWARD:
        sublayer = 1 if stack == "encoder" else 2
        parts = tuple(f"layer.{sublayer}.{part}" for part in _T5_FEED_FORWARD[module])
    else:
        parts = _T5_ATTENTION[module]
    return [f"{stack}.block.{index}.{part}.{leaf}" for part in parts]


_BART_LAYER = {
    "attention_norm": ("self_attn_layer_norm",), "self_attn.o_proj": ("self_attn.out_proj",),
    "self_attn.qkv_proj": tuple(f"self_attn.{part}_proj" for part in "qkv"),
    "cross_norm": ("encoder_attn_layer_norm",), "cross_attn.q_proj": ("encoder_attn.q_proj",),
    "cross_attn.kv_proj": tuple(f"encoder_attn.{part}_proj" for part in "kv"),
    "cross_attn.o_proj": ("encoder_attn.out_proj",),
    "mlp_norm": ("final_layer_norm",), "mlp.up_proj": ("fc1",), "mlp.down_proj": ("fc2",),
}


def _bart_names(name: str) -> list[str]:
    stack, inner = name.split(".", 1)
    module, _, leaf = inner.rpartition(".")
    if not module.startswith("layers."):
        assert module == "embedding_norm", name
        return [f"{stack}.layernorm_embedding.{leaf}"]
    _, index, module = module.split(".", 2)
    return [f"{stack}.layers.{index}.{part}.{leaf}" for part in _BART_LAYER[module]]
