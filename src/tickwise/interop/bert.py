"""BERT's config and tensor names, to and from the encoder's. Lossless both ways: rows are stacked or split."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tickwise.core.errors import CheckpointError
from tickwise.interop.config_keys import checked
from tickwise.layers.feed_forward import Activation
from tickwise.models.encoder import EncoderConfig

BERT = "bert"
_ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_TOP = {
    "embed_tokens": "embeddings.word_embeddings", "embed_positions": "embeddings.position_embeddings",
    "embed_segments": "embeddings.token_type_embeddings", "norm": "embeddings.LayerNorm",
}
_LAYER = {
    "self_attn.o_proj": "attention.output.dense", "attention_norm": "attention.output.LayerNorm",
    "mlp.up_proj": "intermediate.dense", "mlp.down_proj": "output.dense", "mlp_norm": "output.LayerNorm",
}
_HEAD = {
    "masked_head.dense.weight": "cls.predictions.transform.dense.weight",
    "masked_head.dense.bias": "cls.predictions.transform.dense.bias",
    "masked_head.norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "masked_head.norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "masked_head.bias": "cls.predictions.bias",
}
_PARTS = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
# The pooler and the second objective of BERT's pre-training; names under which older files repeat a tied tensor.
_UNUSED = ("pooler.", "cls.seq_relationship.", "cls.predictions.decoder.", "embeddings.position_ids")


def is_bert(config: EncoderConfig) -> bool:
    """Whether transformers' BERT computes exactly this encoder."""
    return (type(config) is EncoderConfig and config.positions == "learned" and config.norm == "layernorm"
            and config.norm_place == "post" and config.bias and config.n_segments > 0
            and config.activation in ("gelu", "gelu_tanh") and config.n_heads * config.head_dim == config.width)


def bert_config(values: Mapping[str, Any], where: str) -> EncoderConfig:
    """The encoder that ``config.json`` of a BERT describes; ``CheckpointError`` for one that it is not."""
    given = checked(values, BERT, where)

    def need(name: str) -> Any:
        if name not in given:
            raise CheckpointError(f"{where}: key '{name}' is missing")
        return given[name]

    named = given.get("hidden_act", "gelu")
    if named not in _ACTIVATIONS:
        raise CheckpointError(f"{where}: hidden_act '{named}' is not supported; tickwise computes "
                              f"{', '.join(_ACTIVATIONS)}")
    if given.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(f"{where}: position_embedding_type '{given['position_embedding_type']}' is not "
                              "supported; tickwise computes absolute")
    if values.get("is_decoder"):
        raise CheckpointError(f"{where}: key 'is_decoder' true (tokens see only earlier ones) is not supported; "
                              "tickwise supports false")
    masked_head = any(name in ("BertForMaskedLM", "BertForPreTraining") for name in values.get("architectures") or ())
    if masked_head and values.get("tie_word_embeddings") is False:
        raise CheckpointError(f"{where}: key 'tie_word_embeddings' false is not supported with a head for masked "
                              "words; tickwise supports true")
    width, heads = need("hidden_size"), need("num_attention_heads")
    if heads < 1 or width % heads:
        raise CheckpointError(f"{where}: num_attention_heads {heads} does not divide hidden_size {width}")
    return EncoderConfig(
        vocab_size=need("vocab_size"), context_length=need("max_position_embeddings"), width=width,
        n_layers=need("num_hidden_layers"), n_heads=heads, head_dim=width // heads, hidden=need("intermediate_size"),
        positions="learned", norm="layernorm", norm_place="post", norm_epsilon=given.get("layer_norm_eps", 1e-12),
        activation=_ACTIVATIONS[named], bias=True, n_segments=given.get("type_vocab_size", 2),
        masked_head=masked_head,
        dropout=given.get("hidden_dropout_prob", 0.1),
    )


def hugging_face_bert(config: EncoderConfig, pad_id: int | None) -> dict[str, Any]:
    """``config.json`` of the BERT that computes ``config``."""
    return {
        "model_type": BERT, "architectures": ["BertForMaskedLM" if config.masked_head else "BertModel"],
        "vocab_size": config.vocab_size, "hidden_size": config.width, "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads, "intermediate_size": config.hidden,
        "hidden_act": "gelu" if config.activation == "gelu" else "gelu_new",
        "hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": config.context_length, "type_vocab_size": config.n_segments,
        "layer_norm_eps": config.norm_epsilon, "position_embedding_type": "absolute", "torch_dtype": "float32",
        "pad_token_id": pad_id,
    }


def bert_names(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors have BERT's names."""
    return any(name.endswith("embeddings.word_embeddings.weight") for name in tensors)


def to_bert(config: EncoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's ``state_dict`` under BERT's names."""
    prefix = "bert." if config.masked_head else ""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in _HEAD:
            out[_HEAD[name]] = tensor
            continue
        module, _, leaf = name.rpartition(".")
        if not module.startswith("layers."):
            out[f"{prefix}{_TOP[module]}.{leaf}"] = tensor
            continue
        _, index, inner = module.split(".", 2)
        place = f"{prefix}encoder.layer.{index}"
        if inner == "self_attn.qkv_proj":
            for part, piece in zip(_PARTS, tensor.chunk(3), strict=True):
                out[f"{place}.{part}.{leaf}"] = piece.contiguous()
        else:
            out[f"{place}.{_LAYER[inner]}.{leaf}"] = tensor
    return out


def from_bert(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a BERT under the encoder's names, and the names of those that an encoder has no place for
    (BERT's pooler, another model's head)."""
    plain = {_modern(name.removeprefix("bert.")): tensor for name, tensor in tensors.items()}
    state: dict[str, Tensor] = {}
    used: set[str] = set()

    def take(source: str, target: str) -> None:
        if source in plain:
            state[target] = plain[source]
            used.add(source)

    layers = {int(name.split(".")[2]) for name in plain if name.startswith("encoder.layer.")}
    for own, theirs in _TOP.items():
        for leaf in ("weight", "bias"):
            take(f"{theirs}.{leaf}", f"{own}.{leaf}")
    for own, theirs in _HEAD.items():
        take(theirs, own)
    for index in sorted(layers):
        place = f"encoder.layer.{index}"
        for own, theirs in _LAYER.items():
            for leaf in ("weight", "bias"):
                take(f"{place}.{theirs}.{leaf}", f"layers.{index}.{own}.{leaf}")
        for leaf in ("weight", "bias"):
            parts = [f"{place}.{part}.{leaf}" for part in _PARTS]
            if all(part in plain for part in parts):
                state[f"layers.{index}.self_attn.qkv_proj.{leaf}"] = torch.cat([plain[part] for part in parts])
                used.update(parts)
    return state, sorted(name for name in plain if name not in used and not name.startswith(_UNUSED))


def bert_state(config: EncoderConfig, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor],
               where: str) -> dict[str, Tensor]:
    """The ``state_dict`` of an encoder from the tensors of a BERT; ``CheckpointError`` naming the first that is
    missing, left over or of another shape."""
    state, left = from_bert(tensors)
    for name, like in expected.items():
        if name not in state:
            raise CheckpointError(f"{where}: no tensor for '{name}'")
        if state[name].shape != like.shape:
            raise CheckpointError(f"{where}: tensor '{name}' has shape {tuple(state[name].shape)}, the config asks for "
                                  f"{tuple(like.shape)}")
    if not config.masked_head:
        state = {name: tensor for name, tensor in state.items() if name in expected}
    if left:
        raise CheckpointError(f"{where}: tensor '{left[0]}' has no place in this model ({len(left)} such)")
    return state


def _modern(name: str) -> str:
    """Older files call a norm's weight gamma and its bias beta."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
