"""Which stage of a tick a submodule is, by its name, where its code carries no marks."""

import re

import torch

from tickwise.core.stages import Stage

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|block|blocks)\.(\d+)(?=\.|$)")
_STAGES_BY_NAME = (
    (Stage.EMBED, re.compile(r"^(embed_(tokens|positions|in)|(word_|tok_)?embeddings?|wte|wpe|shared)$")),
    (Stage.NORM, re.compile(r"(norm|layernorm|layer_norm)$|^ln_")),
    (Stage.CROSS_ATTENTION, re.compile(r"^(cross_attn|crossattention|encoder_attn|encdecattention)$")),
    # What mixes tokens in another way than attention stands in its place.
    (Stage.ATTENTION, re.compile(r"^((self_|linear_)?attn|(self_?)?attention|mixer|mamba|ssm)$")),
    (Stage.FFN, re.compile(r"^(mlp|ffn|feed_forward|densereludense|intermediate|fc[12]|lin[12])$")),
    (Stage.HEAD, re.compile(r"^((generator_)?lm_head|head|output|embed_out|cls|classifier|score|pooler|qa_outputs|"
                            r"generator_predictions|vocab_transform|vocab_projector)$")),
)


def layer_of(name: str) -> int | None:
    """The layer that a submodule is part of."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def stage_of(name: str) -> tuple[Stage, int | None] | None:
    """Stage and layer of a submodule by its dotted name, as in Llama, Qwen, GPT-2, T5 and BERT.

    >>> stage_of("model.layers.3.self_attn")
    (<Stage.ATTENTION: 'attention'>, 3)
    """
    last = name.rsplit(".", 1)[-1].lower()
    for stage, pattern in _STAGES_BY_NAME:
        if pattern.search(last):
            layer = layer_of(name)
            if layer is not None and last == "output":  # the second half of BERT's feed-forward block
                stage = Stage.FFN
            return stage, layer
    return None


_PARTS_OF_ATTENTION = (
    (Stage.QKV, re.compile(r"^([qkv]|w[qkv]|qkv|([qkv]|qkv|in)_proj|[qkv]_lin|c_attn|query|key|value|query_key_value|"
                           r"(q|kv)_[ab]_proj(_with_mqa)?)$")),
    (Stage.ROPE, re.compile(r"^(rotary_emb|rope|[qk]_norm|[qk]_layernorm)$")),
    (Stage.NORM, _STAGES_BY_NAME[1][1]),
    (Stage.OUT, re.compile(r"^(o|wo|(o|out|c)_proj|out_lin|dense|output)$")),
)
_PARTS_OF_FFN = ((Stage.NORM, _STAGES_BY_NAME[1][1]),)


def place_of(name: str) -> tuple[Stage, int | None] | None:
    """Stage and layer of the code of a submodule: that of its outermost stage, with attention in its parts.

    >>> place_of("model.layers.3.self_attn.q_proj")
    (<Stage.QKV: 'qkv'>, 3)
    """
    path = name.split(".")
    for n in range(1, len(path) + 1):
        outermost = stage_of(".".join(path[:n]))
        if outermost is None:
            continue
        stage, layer = outermost
        parts = {Stage.ATTENTION: _PARTS_OF_ATTENTION, Stage.FFN: _PARTS_OF_FFN}.get(stage, ())
        for part in reversed(path[n:]):
            for inner, pattern in parts:
                if pattern.search(part.lower()):
                    return inner, layer
        return stage, layer
    return None


def places_of(module: torch.nn.Module) -> dict[str, tuple[Stage, int | None]]:
    """Stage and layer of the code of every submodule that has a place of its own.

    One with parameters whose name says nothing is ``Stage.FORWARD``; the others (containers of stages, dropout) have
    no place: their code goes on with the stage before.
    """
    places: dict[str, tuple[Stage, int | None]] = {}
    containers = {""}
    unknown = []
    for name, child in module.named_modules():
        found = place_of(name)
        if found is not None:
            places[name] = found
            parts = name.split(".")
            containers.update(".".join(parts[:n]) for n in range(1, len(parts)))
        elif next(child.parameters(), None) is not None:
            unknown.append(name)
    return places | {name: (Stage.FORWARD, layer_of(name)) for name in unknown if name not in containers}
