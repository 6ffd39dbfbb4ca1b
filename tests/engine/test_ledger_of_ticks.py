"""The ledger of a real engine: rows that add up whatever a tick does, and work that equals sums by hand."""

import statistics
import time
from time import perf_counter_ns

import pytest

from tickwise.core.stages import Stage
from tickwise.engine.costs import DecoderCosts
from tickwise.engine.engine import Engine
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import Generation, Request
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.speculative import DraftModel
from tickwise.profiling.ledger import STAGES, Ledger
from tickwise.profiling.roofline import Roofline

BLOCK = 4


class Sink:
    def __init__(self):
        self.rows = []

    def add(self, rows, tokens):
        for i in range(len(rows.tick)):
            self.rows.append({
                "tick": int(rows.tick[i]), "stage": STAGES[rows.stage[i]], "layer": int(rows.layer[i]),
                "start_ns": int(rows.start_ns[i]), "duration_ns": int(rows.duration_ns[i]), "flops": rows.flops[i],
                "bytes_read": rows.bytes_read[i], "bytes_written": rows.bytes_written[i],
                "work": rows.works[rows.tick[i] - rows.first_tick],
            })  # fmt: skip


def settings(**changes):
    return GenerationSettings(**({"max_tokens": 8, "temperature": 0, "ignore_eos": True} | changes))


MODES = {
    "plain": {}, "chunked prompts beside decoding": {"tick_tokens": 8, "max_rows": 4},
    "guesses from the text": {"speculate": "lookup"}, "a draft model": {"speculate": "draft"},
    "no cache": {"use_cache": False},
}
REQUESTS = {
    "several": [("abc", {}), ("the quick brown f", {}), ("a", {"max_tokens": 3})],
    "samples": [("abcd", {"n": 3, "temperature": 1.0, "seed": 1})],
    "a beam": [("abcd", {"beam_width": 3, "n": 2})],
    "a grammar": [("abc", {"regex": "[ab]{2,6}", "ignore_eos": False})],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("requests", REQUESTS)
def test_the_rows_of_every_tick_add_up_to_its_wall_time(tiny_decoder, tokenizer, mode, requests):
    module = tiny_decoder(vocab_size=tokenizer.vocab_size)
    sink, walls = Sink(), []
    ledger = Ledger(sink, roofline=Roofline(number_format="fp32", flops_per_s=1e9, bytes_per_s=1e9))
    engine = Engine(module, tokenizer, ledger=ledger, draft=module if mode == "a draft model" else None,
                    options=EngineOptions(block_size=BLOCK, **MODES[mode]))
    ids = [engine.submit(Request(prompt=prompt, settings=settings(**changes)))
           for prompt, changes in REQUESTS[requests]]
    while not engine.idle:
        if len(walls) == 4:
            engine.cancel(ids[0])
        n_ticks, start = engine.n_ticks, perf_counter_ns()
        engine.step()
        wall = perf_counter_ns() - start
        if engine.n_ticks > n_ticks:  # a step that only ends requests is no tick
            walls.append(wall)
    ledger.flush()
    sums = [sum(row["duration_ns"] for row in sink.rows if row["tick"] == tick) for tick in range(ledger.ticks)]
    assert len(sums) == len(walls)
    assert all(row["duration_ns"] >= 0 for row in sink.rows)
    shares = [rows / wall for rows, wall in zip(sums, walls, strict=True)]
    assert max(shares) <= 1
    assert statistics.median(shares) >= 0.95  # another program may run between the two clocks, so not the smallest


def test_the_time_of_a_draft_model_is_a_stage_of_its_own(tiny_decoder, tokenizer, monkeypatch):
    module = tiny_decoder(vocab_size=tokenizer.vocab_size)
    sink = Sink()
    ledger = Ledger(sink, roofline=Roofline(number_format="fp32", flops_per_s=1e9, bytes_per_s=1e9))
    engine = Engine(module, tokenizer, ledger=ledger, draft=module,
                    options=EngineOptions(block_size=BLOCK, speculate="draft"))
    original = DraftModel.propose

    def slowly(self, *arguments):
        time.sleep(0.01)
        return original(self, *arguments)

    monkeypatch.setattr(DraftModel, "propose", slowly)
    engine._times.known = True
    engine.submit(Request(prompt="abc", settings=settings(max_tokens=12)))
    engine.run_until_idle()
    ledger.flush()
    spent = {stage: sum(row["duration_ns"] for row in sink.rows if row["stage"] is stage) for stage in STAGES}
    n_guesses = sum(row["stage"] is Stage.DRAFT for row in sink.rows)
    assert n_guesses > 0
    assert spent[Stage.DRAFT] >= n_guesses * 1e7
    assert spent[Stage.SCHEDULE] < spent[Stage.DRAFT]


def test_the_tokens_of_a_beam_are_recorded_when_they_are_certain(tiny_decoder, tokenizer):
    written = []

    class Listener:
        def begin_tick(self): ...
        def mark(self, stage, layer=None): ...
        def tick_work(self, work): ...
        def end_tick(self, tokens): written.append(list(tokens))

    engine = Engine(tiny_decoder(vocab_size=tokenizer.vocab_size), tokenizer, ledger=Listener(),
                    options=EngineOptions(block_size=BLOCK))
    engine.submit(Request(prompt="abcd", settings=settings(beam_width=3), id="r"))
    (done,) = [event for event in engine.run_until_idle() if isinstance(event, Generation)]
    assert not any(written[:-1])
    assert tuple(token.token_id for token in written[-1]) == done.token_ids
    assert "".join(token.text for token in written[-1]) == done.text
    assert [token.position for token in written[-1]] == list(range(4, 4 + len(done.token_ids)))
    assert {token.request_id for token in written[-1]} == {"r"}


def attention_by_hand(config, n_new, n_all):
    """FLOPs of two products, per layer."""
    return 2 * 2 * config.n_heads * config.head_dim * n_new * n_all


def test_the_flops_of_real_ticks_are_those_of_the_formulas(tiny_decoder, tokenizer):
    module = tiny_decoder(vocab_size=tokenizer.vocab_size)
    config = module.config
    sink = Sink()
    ledger = Ledger(sink, roofline=Roofline(number_format="fp32", flops_per_s=1e9, bytes_per_s=1e9),
                    costs=DecoderCosts(module, BLOCK))
    engine = Engine(module, tokenizer, ledger=ledger, options=EngineOptions(block_size=BLOCK))
    for prompt in ("the quick brown", "the quick brown fox jum", "abc"):  # the second finds a stored beginning
        engine.submit(Request(prompt=prompt, settings=settings(max_tokens=5)))
    engine.run_until_idle()
    ledger.flush()
    weights_of_a_layer = sum(p.numel() for name, p in module.layers[0].named_parameters() if p.ndim == 2)
    seen = set()
    for row in sink.rows:
        rows = row["work"].rows
        if not rows:
            continue
        n_new = sum(one.n_new for one in rows)
        seen.add((len(rows), any(one.n_cached and one.phase == "prefill" for one in rows)))
        if row["stage"] is Stage.ATTENTION:
            by_hand = sum(attention_by_hand(config, one.n_new, one.n_cached + one.n_new)
                          for one in rows if one.together == 1)
            batched = [one for one in rows if one.together > 1]
            while batched:  # padded to the longest
                members, batched = batched[: batched[0].together], batched[batched[0].together :]
                by_hand += attention_by_hand(config, len(members), max(one.n_cached for one in members) + 1)
            assert row["flops"] == by_hand
            # At least keys and values of every row are read, and those of the new tokens written.
            assert row["bytes_read"] >= 2 * 4 * config.n_kv_heads * config.head_dim * row["work"].kv_tokens
            assert row["bytes_written"] >= 2 * 4 * config.n_kv_heads * config.head_dim * n_new
        if row["stage"] is Stage.HEAD:
            assert row["flops"] == 2 * sum(one.n_logits for one in rows) * config.width * config.vocab_size
        if row["stage"] is Stage.FFN:
            of_ffn = 2 * n_new * 3 * config.width * config.hidden
            assert row["flops"] == of_ffn
            assert row["bytes_read"] >= 4 * 3 * config.width * config.hidden
    of_layers = [sum(row["flops"] for row in sink.rows if row["layer"] == 0 and row["tick"] == tick and
                     row["stage"] in (Stage.QKV, Stage.OUT, Stage.FFN)) for tick in range(ledger.ticks)]
    for tick, flops in enumerate(of_layers):
        rows = next(row["work"] for row in sink.rows if row["tick"] == tick).rows
        assert flops == 2 * sum(one.n_new for one in rows) * weights_of_a_layer
    assert {n for n, _ in seen} >= {1, 2, 3}, "batches of several sizes"
    assert any(cached for _, cached in seen), "a prefix that was found stored"
