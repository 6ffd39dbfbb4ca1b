"""Listings of an encoder–decoder's ticks: reading sources, one more token of each target, training."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from tickwise.engine.kv_cache import KVCache
from tickwise.models.encoder_decoder import EncoderDecoder, Memory
from tickwise.profiling.program import Program, list_program, list_training_program


def list_encoder_decoder_tick(
    module: EncoderDecoder, phase: Literal["prefill", "decode", "train"], batch: int, context: int
) -> Program:
    """``prefill``: read sources of ``context`` tokens, and the first token of each target. ``decode``: read one more
    token of each target, with ``context`` tokens before it and sources of ``context`` tokens. ``train``: forward and
    backward pass over sources and targets of ``context`` tokens, none of them padding."""
    config = module.config
    source_BS = torch.zeros(batch, context, dtype=torch.long)
    if phase == "train":
        return list_training_program(module.train(), source_BS, call=_loss)
    n_before = context if phase == "decode" else 0

    def before(run: Callable[..., Any]) -> Mapping[str, Any]:
        cache = KVCache(config.n_decoder_layers, batch, config.n_kv_heads, config.head_dim, n_before + 1,
                        module.embed_tokens.weight.dtype)
        cache.advance(n_before)
        return {"cache": cache} | ({"memory": run(source_BS)} if phase == "decode" else {})

    first_B1 = torch.zeros(batch, 1, dtype=torch.long)
    return list_program(module, source_BS, call=_tick, prepare=before, target_BT=first_B1)


def _tick(
    module: EncoderDecoder, source_BS: Tensor, target_BT: Tensor | None = None, memory: Memory | None = None,
    cache: KVCache | None = None,
) -> Any:
    """Logits of a target's new tokens; without a cache the memory of the sources."""
    if memory is None:
        memory = module.encode(source_BS)
    if cache is None:
        return memory
    assert target_BT is not None
    return module.logits(module.hidden_states(target_BT, memory, cache=cache))


def _loss(module: EncoderDecoder, ids_BT: Tensor) -> Tensor:
    hidden_BTC = module.hidden_states(ids_BT, module.encode(ids_BT))
    return module.loss(hidden_BTC.flatten(0, 1), ids_BT.flatten())
