"""Which keys of a ``config.json`` tickwise honours, which change nothing, and which it must refuse.

A key that is overlooked makes a model that computes another function without a word, so a key is passed over only when
it is known to change nothing. The keys are those of transformers' ``PreTrainedConfig``, ``LlamaConfig``,
``Qwen3Config``, ``GPT2Config``, ``T5Config``, ``BartConfig`` and ``MarianConfig``, and of published models.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from tickwise.core.errors import CheckpointError

_Types = Mapping[str, type]

_ROPE_MODEL: _Types = {
    "vocab_size": int, "hidden_size": int, "intermediate_size": int, "num_hidden_layers": int,
    "num_attention_heads": int, "num_key_value_heads": int, "head_dim": int, "max_position_embeddings": int,
    "hidden_act": str, "rms_norm_eps": float, "rope_theta": float, "rope_parameters": dict, "rope_scaling": dict,
    "attention_bias": bool, "mlp_bias": bool, "tie_word_embeddings": bool,
}
_TWO_TEXTS: Mapping[str, type] = {
    "is_encoder_decoder": bool, "pad_token_id": int, "eos_token_id": int, "decoder_start_token_id": int}
_BART: dict[str, type] = {
    "vocab_size": int, "max_position_embeddings": int, "d_model": int, "encoder_layers": int, "decoder_layers": int,
    "encoder_attention_heads": int, "decoder_attention_heads": int, "encoder_ffn_dim": int, "decoder_ffn_dim": int,
    "num_hidden_layers": int, "activation_function": str, "dropout": float, "attention_dropout": float,
    "activation_dropout": float, "scale_embedding": bool, "tie_word_embeddings": bool, "normalize_before": bool,
    "normalize_embedding": bool, "add_final_layer_norm": bool, "static_position_embeddings": bool, **_TWO_TEXTS,
}
HONOURED: Mapping[str, _Types] = {
    "llama": _ROPE_MODEL,
    "qwen3": _ROPE_MODEL,
    "gpt2": {
        "vocab_size": int, "n_positions": int, "n_embd": int, "n_layer": int, "n_head": int, "n_inner": int,
        "activation_function": str, "layer_norm_epsilon": float, "resid_pdrop": float, "tie_word_embeddings": bool,
    },
    "bert": {
        "vocab_size": int, "hidden_size": int, "intermediate_size": int, "num_hidden_layers": int,
        "num_attention_heads": int, "max_position_embeddings": int, "type_vocab_size": int, "hidden_act": str,
        "layer_norm_eps": float, "hidden_dropout_prob": float, "position_embedding_type": str,
        "tie_word_embeddings": bool,
    },
    "tickwise-decoder": {"decoder": dict, "vocab_size": int, "tie_word_embeddings": bool},
    "t5": {
        "vocab_size": int, "d_model": int, "d_kv": int, "d_ff": int, "num_layers": int, "num_decoder_layers": int,
        "num_heads": int, "relative_attention_num_buckets": int, "relative_attention_max_distance": int,
        "dropout_rate": float, "layer_norm_epsilon": float, "feed_forward_proj": str, "dense_act_fn": str,
        "is_gated_act": bool, "tie_word_embeddings": bool, "scale_decoder_outputs": bool, "n_positions": int,
        **_TWO_TEXTS,
    },
    "bart": _BART,
    "marian": _BART | {"decoder_vocab_size": int, "share_encoder_decoder_embeddings": bool},
}

# Keys that change the function: what they mean, what tickwise supports, and the values (besides null) that mean that.
_EVERY_TOKEN = "attention to every earlier token (null or false)"
_MEANINGS: Mapping[str, tuple[str, str, tuple[Any, ...]]] = {
    "quantization_config": ("the weights are quantised", "plain weights", ()),
    "compression_config": ("the weights are compressed", "plain weights", ()),
    "use_sliding_window": ("attention to the last tokens only", _EVERY_TOKEN, (False,)),
    "sliding_window": ("attention to the last tokens only", _EVERY_TOKEN, ()),
    "per_layer_config": ("layers that differ from each other", "layers of one kind", ({},)),
    "pruned_heads": ("attention heads taken out", "all heads", ({}, [])),
    "partial_rotary_factor": ("rotary positions on a part of each head", "1", (1,)),
    "rope_interleaved": ("rotary positions on neighbouring pairs", "false", (False,)),
    "is_causal": ("whether tokens see only earlier ones", "true", (True,)),
    "pretraining_tp": ("products in pieces, as in parallel pretraining", "1", (0, 1)),
    "is_encoder_decoder": ("an encoder and a decoder", "false", (False,)),
    "add_cross_attention": ("attention to another model's output", "false", (False,)),
    "cross_attention_hidden_size": ("attention to another model's output", "null", ()),
    "scale_attn_weights": ("attention scores divided by the root of the head's width", "true", (True,)),
    "scale_attn_by_inverse_layer_idx": ("attention scores divided by the layer's number", "false", (False,)),
}
# transformers reads these in a GPT-2 config under other names.
_GPT2_NAMES = {"hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
               "num_hidden_layers": "n_layer"}

_HARMLESS = frozenset(key for group in (
    # where the file comes from, number formats (tickwise's are a property of the run), initial values, dropout
    "model_type architectures auto_map transformers_version transformers.js_config dtype torch_dtype use_bfloat16 "
    "torchscript name_or_path tokenizer_class is_llama_config unsloth_version unsloth_fixed initializer_range "
    "attention_dropout attention_probs_dropout_prob attn_pdrop embd_pdrop init_std initializer_factor "
    "encoder_layerdrop decoder_layerdrop",
    # memory, speed, and what a forward pass gives back
    "use_cache gradient_checkpointing attn_implementation experts_implementation reorder_and_upcast_attn "
    "chunk_size_feed_forward output_attentions output_hidden_states return_dict tie_last_hidden_states is_decoder "
    "tie_encoder_decoder tf_legacy_loss",
    # other heads than that of a language model, other tasks
    "id2label label2id num_labels problem_type finetuning_task task_specific_params prefix summary_type "
    "classif_dropout classifier_dropout "
    "summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout",
    # read only together with a key above that is refused; n_ctx repeats n_positions in old files
    "max_window_layers n_ctx extra_pos_embeddings add_bias_logits output_past save_step",
    # settings of sampling, which old files hold here; writing_rules.py reads those of encoder–decoders
    "assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens diversity_penalty "
    "do_sample early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff "
    "exponential_decay_length_penalty length_penalty max_length min_length no_repeat_ngram_size num_assistant_tokens "
    "num_assistant_tokens_schedule num_beam_groups num_beams num_return_sequences output_scores remove_invalid_values "
    "repetition_penalty return_dict_in_generate suppress_tokens target_lookbehind temperature top_k top_p "
    "typical_p force_bos_token_to_be_generated",
) for key in group.split())


def checked(values: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """The keys of ``values`` that the family ``kind`` (a key of ``HONOURED``) honours, without those that are null.

    ``CheckpointError`` in one line for a value of another type, for a key that asks for something that the family
    does not compute, and for a key that is not known.
    """
    honoured = HONOURED[kind]
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or key.startswith("_"):
            continue
        if key in honoured:
            kept[key] = _of_type(key, value, honoured[key], where)
        elif key.endswith("_token_id") or key in _HARMLESS:
            continue
        elif key == "layer_types":
            _refuse_other_layers(value, where)
        elif key in _MEANINGS:
            _refuse_unless_neutral(key, value, values, where)
        elif kind == "gpt2" and key in _GPT2_NAMES:
            raise CheckpointError(f"{where}: key '{key}': in a GPT-2 config it is '{_GPT2_NAMES[key]}'; rename it")
        else:
            _refuse_unknown(key, honoured, where)
    return kept


def rope_theta(values: Mapping[str, Any], where: str) -> float:
    """The base of the rotary positions; ``CheckpointError`` for any kind of them but the plain one.

    As in transformers, ``rope_scaling`` replaces ``rope_parameters`` and both go before a ``rope_theta`` beside them.
    """
    name = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    theta: float = values.get("rope_theta", 10_000.0)
    for key, value in values.get(name, {}).items():
        if key == "rope_theta" and value is not None:
            theta = _of_type(f"{name}.{key}", value, float, where)
        elif key in ("rope_type", "type"):
            if value not in ("default", None):
                raise CheckpointError(f"{where}: {name}: rope_type '{value}' rescales the rotary positions, which "
                                      "tickwise does not compute; it supports 'default' only")
        elif value is not None and not (key == "partial_rotary_factor" and value == 1):
            raise CheckpointError(f"{where}: {name}: key '{key}' changes the rotary positions in a way that tickwise "
                                  "does not compute; it supports rope_type 'default' with its rope_theta")
    if not theta > 0:
        raise CheckpointError(f"{where}: rope_theta must be positive, got {theta:g}")
    return float(theta)


def _of_type(key: str, value: Any, expected: type, where: str) -> Any:
    fits = isinstance(value, (int, float) if expected is float else expected)
    if not fits or (isinstance(value, bool) and expected is not bool):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string",
                 dict: "an object of keys"}
        raise CheckpointError(f"{where}: key '{key}': expected {names[expected]}, got {value!r}")
    return value


def _refuse_other_layers(value: Any, where: str) -> None:
    kinds = value if isinstance(value, list) else [value]
    other = [str(kind) for kind in kinds if kind not in ("full_attention", "attention")]
    if other:
        raise CheckpointError(f"{where}: key 'layer_types': layers of type '{other[0]}' are not supported; tickwise "
                              "computes 'full_attention' only")


def _refuse_unless_neutral(key: str, value: Any, values: Mapping[str, Any], where: str) -> None:
    meaning, supported, neutral = _MEANINGS[key]
    if value in neutral or (key == "sliding_window" and values.get("use_sliding_window") is False):
        return
    given = f" {json.dumps(value)}" if isinstance(value, bool | int | float | str) else ""
    raise CheckpointError(f"{where}: key '{key}'{given} ({meaning}) is not supported; tickwise supports {supported}")


def _refuse_unknown(key: str, honoured: _Types, where: str) -> None:
    near = difflib.get_close_matches(key, [*honoured, *_MEANINGS, *_HARMLESS], n=1, cutoff=0.75)
    suggestion = f"; did you mean '{near[0]}'? Else" if near else ";"
    raise CheckpointError(f"{where}: unknown key '{key}'{suggestion} remove it if it does not change the computation")
