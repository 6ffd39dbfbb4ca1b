"""The plain loop: one text, one token after the other. What the engine writes is compared with this."""

from collections.abc import Iterator, Sequence

import torch

from tickwise.engine.kv_cache import KVCache
from tickwise.engine.requests import tokens_kept
from tickwise.engine.sampling import TokenChooser, choose
from tickwise.models.decoder import Decoder


@torch.inference_mode()
def write_plainly(
    module: Decoder, prompt_ids: Sequence[int], chooser: TokenChooser, *, use_cache: bool = True,
) -> Iterator[int]:
    """The tokens that follow ``prompt_ids``, without end.

    Of a prompt longer than the context, ``tokens_kept`` are read. When the text fills the context, its last half is
    read again and the text goes on from there. Without a cache, every token computes the whole text.
    """
    config, weight = module.config, next(module.parameters())
    tokens = list(prompt_ids)
    start = len(tokens) - tokens_kept(len(tokens), config.context_length, chooser.settings.max_tokens)
    cache = None
    if use_cache:
        cache = KVCache(
            config.n_layers, 1, config.n_kv_heads, config.head_dim, config.context_length, weight.dtype, weight.device
        )
    while True:
        if len(tokens) - start > config.context_length:
            start = len(tokens) - max(1, config.context_length // 2)
            if cache is not None:
                cache.truncate(0)
        n_read = cache.length if cache is not None else 0
        hidden_1TC = module.hidden_states(torch.tensor([tokens[start + n_read :]], device=weight.device), cache=cache)
        chooser.prepare()
        token_id = choose(module.logits(hidden_1TC[:, -1:])[0], [chooser])[0].token_id
        tokens.append(token_id)
        yield token_id
