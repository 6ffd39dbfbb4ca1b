"""Counts of tickwise's own decoder against closed formulas, with and without a cache."""

import time

import pytest
import torch

from tickwise.core.stages import Stage
from tickwise.engine.kv_cache import KVCache
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.flops import ATTENTION, count_flops, count_training_flops
from tickwise.profiling.stages import staged_modules

VOCAB, WIDTH, LAYERS, HEADS, KV_HEADS, HEAD_DIM, HIDDEN = 96, 32, 3, 4, 2, 8, 80


def decoder(**options):
    config = DecoderConfig(
        vocab_size=VOCAB, context_length=64, width=WIDTH, n_layers=LAYERS, n_heads=HEADS, n_kv_heads=KV_HEADS,
        head_dim=HEAD_DIM, hidden=HIDDEN, **options,
    )
    return Decoder(config).initialise(0)


def expected(new_tokens, all_tokens, batch=1, gated=True):
    qkv_and_out = WIDTH * HEAD_DIM * (HEADS + 2 * KV_HEADS) + HEADS * HEAD_DIM * WIDTH
    products = LAYERS * (qkv_and_out + (3 if gated else 2) * WIDTH * HIDDEN) + WIDTH * VOCAB
    return batch * (2 * new_tokens * products + LAYERS * 4 * HEADS * new_tokens * all_tokens * HEAD_DIM)


@pytest.mark.parametrize(("options", "gated"), [
    ({}, True),
    ({"activation": "relu2", "qk_norm": True, "value_residual": True, "logit_soft_cap": 20.0}, False),
    ({"positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": True, "tie_embeddings": True}, False),
])
def test_a_text_costs_what_the_formula_says_and_training_three_times_that(options, gated):
    model, ids = decoder(**options), torch.randint(0, VOCAB, (2, 40))
    forward = count_flops(model, ids)
    assert forward.total == expected(40, 40, batch=2, gated=gated)
    assert forward.by_op[ATTENTION] == 2 * LAYERS * 4 * HEADS * 40 * 40 * HEAD_DIM
    assert count_training_flops(model, ids).total == 3 * forward.total


def test_one_token_with_a_cache_costs_what_the_formula_says_and_writes_nothing_into_it():
    model = decoder()
    cache = KVCache(LAYERS, 1, KV_HEADS, HEAD_DIM, capacity=20)
    cache._k_LBHCD.fill_(7.0)
    cache._v_LBHCD.fill_(7.0)
    cache.advance(12)
    assert count_flops(model, torch.zeros(1, 1, dtype=torch.long), cache=cache).total == expected(1, 13)
    assert torch.all(cache._k_LBHCD == 7.0)
    assert torch.all(cache._v_LBHCD == 7.0)


def test_every_stage_of_the_decoder_is_recognised():
    stages = [(stage, layer) for _, stage, layer in staged_modules(decoder()).values()]
    per_layer = [Stage.NORM, Stage.ATTENTION, Stage.NORM, Stage.FFN]
    layers = [(stage, layer) for layer in range(LAYERS) for stage in per_layer]
    assert stages == [(Stage.EMBED, None), *layers, (Stage.NORM, None), (Stage.HEAD, None)]


def test_counting_costs_a_fraction_of_a_second():
    config = DecoderConfig(vocab_size=2048, context_length=256, width=256, n_layers=6, n_heads=4, n_kv_heads=4,
                           head_dim=64, hidden=1024)
    model, ids = Decoder(config).initialise(0), torch.zeros(16, 256, dtype=torch.long)
    fastest = float("inf")
    for _ in range(3):
        start = time.process_time()
        count_flops(model, ids)
        fastest = min(fastest, time.process_time() - start)
    assert fastest < 0.3
