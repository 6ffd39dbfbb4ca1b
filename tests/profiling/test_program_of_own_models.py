"""Listings of tickwise's own decoder against closed formulas, with and without a cache."""

import time

import pytest
import torch

from tickwise.core.stages import Stage
from tickwise.engine.kv_cache import KVCache
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.program import ATTENTION, list_program, list_training_program, stage_costs
from tickwise.profiling.stages import places_of
from tickwise.training.next_token import next_token_loss

VOCAB, WIDTH, LAYERS, HEADS, KV_HEADS, HEAD_DIM, HIDDEN = 96, 32, 3, 4, 2, 8, 80
OWN = {"activation": "relu2", "qk_norm": True, "value_residual": True, "logit_soft_cap": 20.0}
GPT2 = {"positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": True, "tie_embeddings": True}


def decoder(**options):
    config = DecoderConfig(**({
        "vocab_size": VOCAB, "context_length": 64, "width": WIDTH, "n_layers": LAYERS, "n_heads": HEADS,
        "n_kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "hidden": HIDDEN,
    } | options))
    return Decoder(config).initialise(0)


def expected(new_tokens, all_tokens, batch=1, gated=True):
    qkv_and_out = WIDTH * HEAD_DIM * (HEADS + 2 * KV_HEADS) + HEADS * HEAD_DIM * WIDTH
    products = LAYERS * (qkv_and_out + (3 if gated else 2) * WIDTH * HIDDEN) + WIDTH * VOCAB
    return batch * (2 * new_tokens * products + LAYERS * 4 * HEADS * new_tokens * all_tokens * HEAD_DIM)


def norm_gradients(tokens, rms, qk_norm):
    """RMS norms take their gradient's mean by a product with the weight."""
    widths = rms * (2 * LAYERS + 1) * WIDTH + qk_norm * LAYERS * (HEADS + KV_HEADS) * HEAD_DIM
    return 2 * tokens * widths


@pytest.mark.parametrize(("options", "gated", "norms"), [
    ({}, True, (1, 0)), (OWN, False, (1, 1)), (GPT2, False, (0, 0)),
])
def test_a_text_costs_what_the_formula_says_and_training_three_times_that(options, gated, norms):
    model, ids = decoder(**options), torch.randint(0, VOCAB, (2, 40))
    forward = list_program(model, ids)
    assert forward.flops == expected(40, 40, batch=2, gated=gated)
    assert forward.by_op()[ATTENTION].flops == 2 * LAYERS * 4 * HEADS * 40 * 40 * HEAD_DIM
    assert list_training_program(model, ids).flops == 3 * forward.flops + norm_gradients(80, *norms)


def test_one_token_with_a_cache_costs_what_the_formula_says_and_writes_nothing_into_it():
    model = decoder()
    cache = KVCache(LAYERS, 1, KV_HEADS, HEAD_DIM, capacity=20)
    cache._k_LBHCD.fill_(7.0)
    cache._v_LBHCD.fill_(7.0)
    cache.advance(12)
    program = list_program(model, torch.zeros(1, 1, dtype=torch.long), cache=cache)
    assert program.flops == expected(1, 13)
    assert torch.all(cache._k_LBHCD == 7.0)
    assert torch.all(cache._v_LBHCD == 7.0)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_decode_tick_reads_every_weight_and_every_cached_token_once(device):
    model, stored = decoder(), 40
    cache = KVCache(LAYERS, 1, KV_HEADS, HEAD_DIM, capacity=50, device=device)
    cache.advance(stored)
    program = list_program(model, torch.zeros(1, 1, dtype=torch.long), cache=cache)
    costs = stage_costs(program)
    weights = {name: 4 * p.numel() for name, p in model.named_parameters()}
    for layer in range(LAYERS):
        ffn = sum(n for name, n in weights.items() if name.startswith(f"layers.{layer}.mlp"))
        assert ffn < costs[Stage.FFN, layer].bytes_read < ffn + 4 * 10 * HIDDEN
        keys_and_values = 2 * 4 * KV_HEADS * HEAD_DIM * (stored + 1)
        attention = costs[Stage.ATTENTION, layer]
        assert keys_and_values < attention.bytes_read < keys_and_values + 4 * 8 * WIDTH
        assert attention.flops == 4 * HEADS * (stored + 1) * HEAD_DIM
    head = costs[Stage.HEAD, None]
    assert (head.bytes_read, head.bytes_written) == (weights["lm_head.weight"] + 4 * WIDTH, 4 * VOCAB)
    assert costs[Stage.EMBED, None].bytes_read == 8 + 4 * WIDTH


@pytest.mark.parametrize(("options", "has"), [(GPT2, False), (GPT2 | {"qk_norm": True}, True), ({}, True)])
def test_only_models_with_rotary_positions_or_normed_queries_have_that_stage(options, has):
    ids = torch.randint(0, VOCAB, (2, 20))
    program = list_training_program(decoder(**options), ids, ids, call=next_token_loss)
    assert (Stage.ROPE in program.by_stage()) == has


def test_listing_again_gives_the_same_and_leaves_nothing_behind():
    model, ids = decoder(n_kv_heads=HEADS), torch.randint(0, VOCAB, (2, 40))
    before = model(ids)
    first = list_training_program(model, ids, ids, call=next_token_loss)
    assert torch.equal(model(ids), before)
    assert list_training_program(model, ids, ids, call=next_token_loss) == first
    assert list_training_program(decoder(n_kv_heads=HEADS), ids, ids, call=next_token_loss) == first


def test_every_backward_instruction_finds_its_stage_through_own_gradients():
    """Own ``autograd.Function``s: norm, rotation, short attention, squared ReLU, head and loss in one."""
    model = decoder(vocab_size=2100, n_kv_heads=HEADS, **{k: v for k, v in OWN.items() if k != "logit_soft_cap"})
    ids = torch.zeros(2, 40, dtype=torch.long)
    program = list_training_program(model, ids, ids, call=next_token_loss)
    backward = {(i.stage, i.layer) for i in program.instructions if i.direction == "backward" and i.bytes_written}
    per_layer = (Stage.NORM, Stage.QKV, Stage.ROPE, Stage.ATTENTION, Stage.OUT, Stage.FFN)
    assert backward >= {(stage, layer) for stage in per_layer for layer in range(LAYERS)}
    assert (Stage.BACKWARD, None) not in backward
    ffn = [sum(i.flops for i in program.instructions if (i.stage, i.layer, i.direction) == (Stage.FFN, 1, direction))
           for direction in ("forward", "backward")]
    assert ffn[1] == 2 * ffn[0] == 2 * 2 * 80 * 2 * WIDTH * HIDDEN


def test_the_path_that_the_cpu_takes_is_listed():
    """Short contexts attend with whole score matrices there; a model on the meta device is no exception."""
    config = decoder(n_kv_heads=HEADS).config
    ids = torch.zeros(1, 40, dtype=torch.long)
    with torch.device("meta"):
        short = Decoder(config)
    ops = list_program(short, ids).by_op()
    assert ops["aten.baddbmm"].flops == ops["aten.bmm"].flops == LAYERS * 2 * HEADS * 40 * 40 * HEAD_DIM
    assert ATTENTION not in ops


def test_every_stage_of_the_decoder_is_recognised():
    places = set(places_of(decoder()).values())
    per_layer = (Stage.NORM, Stage.QKV, Stage.ATTENTION, Stage.OUT, Stage.FFN)
    layers = {(stage, layer) for layer in range(LAYERS) for stage in per_layer}
    assert layers | {(Stage.EMBED, None), (Stage.NORM, None), (Stage.HEAD, None)} <= places
    assert not any(stage is Stage.FORWARD for stage, _ in places)


def test_listing_costs_a_fraction_of_a_second():
    with torch.device("meta"):
        model = Decoder(DecoderConfig(vocab_size=50_000, context_length=1024, width=768, n_layers=12, n_heads=12,
                                      n_kv_heads=12, head_dim=64, hidden=3072))
    ids = torch.zeros(16, 1024, dtype=torch.long)
    for work, limit_s in ((list_program, 0.5), (list_training_program, 1.0)):
        fastest = float("inf")
        for _ in range(3):
            start = time.process_time()
            work(model, ids)
            fastest = min(fastest, time.process_time() - start)
        assert fastest < limit_s
