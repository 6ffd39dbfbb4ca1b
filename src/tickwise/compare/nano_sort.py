"""The published Transformer that sorts six letters: minGPT's "gpt-nano" as JSON with base64 tensors (llm-viz)."""

import base64
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from tickwise.core.config import read_json
from tickwise.core.errors import CheckpointError
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import char_tokenizer

MODEL_FILE = "gpt-nano-sort-model.json"
LETTERS = "ABC"


def read_array(value: Mapping[str, Any]) -> Tensor:
    """A tensor from its shape and its little-endian float32 values in base64."""
    data = numpy.frombuffer(base64.b64decode(value["data"]), dtype="<f4")
    return torch.from_numpy(data.reshape(value["shape"]).copy())


def load_nano_sort(path: Path) -> tuple[Decoder, Tokenizer]:
    """The model of a folder (or file) as one of our decoders, and a tokenizer of its three letters.

    ``CheckpointError`` when a tensor is missing or has another shape.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    values = read_json(file, "the sorting model", CheckpointError)
    try:
        config = values["config"]
        width = config["n_embd"]
        module = Decoder(DecoderConfig(
            vocab_size=config["vocab_size"], context_length=config["block_size"], width=width,
            n_layers=config["n_layer"], n_heads=config["n_head"], n_kv_heads=config["n_head"],
            head_dim=width // config["n_head"], hidden=4 * width, positions="learned", norm="layernorm",
            activation="gelu_tanh", bias=True))
        state = {ours: read_array(values[theirs]) for ours, theirs in _names(config["n_layer"]).items()}
        module.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as problem:
        raise CheckpointError(f"{file}: not the sorting model ({' '.join(str(problem).split())[:120]})") from None
    tokenizer = char_tokenizer(Counter(LETTERS), vocab_size=None, end_of_text=False, unknown=False)
    return module.eval(), tokenizer


def _names(n_layers: int) -> dict[str, str]:
    """Our names of the tensors, and minGPT's."""
    names = {"embed_tokens.weight": "transformer.wte.weight", "embed_positions.weight": "transformer.wpe.weight",
             "lm_head.weight": "lm_head.weight"}
    parts = {"norm": "transformer.ln_f"}
    for layer in range(n_layers):
        ours, theirs = f"layers.{layer}", f"transformer.h.{layer}"
        parts |= {f"{ours}.input_layernorm": f"{theirs}.ln_1", f"{ours}.self_attn.qkv_proj": f"{theirs}.attn.c_attn",
                  f"{ours}.self_attn.o_proj": f"{theirs}.attn.c_proj",
                  f"{ours}.post_attention_layernorm": f"{theirs}.ln_2", f"{ours}.mlp.up_proj": f"{theirs}.mlp.c_fc",
                  f"{ours}.mlp.down_proj": f"{theirs}.mlp.c_proj"}
    return names | {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in parts.items()
                    for kind in ("weight", "bias")}
