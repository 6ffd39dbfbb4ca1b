import itertools
import random

import numpy
import pytest

from tickwise.core.stages import Stage
from tickwise.engine import costs as costs_module
from tickwise.engine.costs import MODEL_STAGES, DecoderCosts, WholeTextCosts
from tickwise.engine.engine import Engine
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import Request
from tickwise.engine.runner import DecoderRunner, RowInput
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.work import RowWork, TickWork
from tickwise.profiling.ledger import Ledger
from tickwise.profiling.program import list_program, stage_costs
from tickwise.profiling.roofline import Roofline

BLOCK = 4


def work(*rows):
    """Rows as (new, cached, phase), and for how many tokens the next one is asked where that is not 1, how many rows
    are read together, whether the row is gathered."""
    return TickWork(tuple(RowWork(str(i), *row) for i, row in enumerate(rows)))


def listed(costs, tick):
    """The figures of a tick from its own listing."""
    return {key: (cost.flops, cost.bytes_read, cost.bytes_written)
            for key, cost in stage_costs(costs.listing(tick)).items() if key[0] in MODEL_STAGES}


CHANGES = [{}, {"positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": True},
           {"n_kv_heads": 4, "qk_norm": True, "tie_embeddings": True, "value_residual": True}]
TICKS = [
    *(work((1, cached, "decode")) for cached in (1, 2, 15, 16, 17, 30, 31)),
    *(work((new, 0, "prefill")) for new in (1, 2, 5, 32)),
    *(work((new, cached, "prefill")) for new, cached in ((1, 4), (2, 3), (2, 30), (7, 1), (7, 20), (7, 25))),
    *(work((3, cached, "decode", 3)) for cached in (4, 20)),  # a guess of two tokens
    work((4, 8, "prefill", 0)), work((4, 0, "prefill", 0)), work((1, 4, "decode"), (6, 5, "prefill", 0)),
    work((4, 8, "prefill", 0), (5, 3, "prefill"), (3, 0, "prefill", 0)),
    work((4, 8, "prefill", 0), (5, 3, "prefill", 0), (3, 0, "prefill")),
    *(work(*((1, cached, "decode") for cached in lengths)) for lengths in ((3, 9), (3, 31), (11, 12), (0, 30, 7))),
    work((1, 9, "decode"), (5, 0, "prefill")), work((1, 30, "decode"), (5, 0, "prefill")),
    work((1, 9, "decode"), (1, 2, "decode"), (5, 8, "prefill"), (3, 0, "prefill")),
    work((1, 20, "decode"), (1, 1, "decode"), (5, 27, "prefill"), (3, 0, "prefill")),
    work((4, 3, "prefill"), (4, 9, "prefill")),
    *(work((1, cached, "decode", 1, 1, True)) for cached in (4, 7, 8, 20)),
    work((5, 9, "prefill", 1, 1, True), (9, 0, "prefill", 1, 1, True), (1, 5, "decode")),
    *(work(*((1, cached, "decode", 1, len(cases)) for cached in cases)) for cases in ((9, 9), (3, 4, 9), (5,) * 5)),
    work(*((1, cached, "decode", 1, 2) for cached in (3, 3, 8, 11)), (1, 17, "decode", 1, 1, True), (4, 0, "prefill")),
]  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES)
def test_the_cost_of_every_stage_equals_that_of_the_tick_s_own_listing(tiny_decoder, changes):
    costs = DecoderCosts(tiny_decoder(**changes), BLOCK)
    for tick in TICKS:
        table, lengths = costs(tick)
        assert table.at(lengths) == listed(costs, tick), tick


def random_tick(chooser, context):
    """Up to five rows that fit into the context: prompts, pieces of prompts, tokens, guesses."""
    rows = []
    for _ in range(chooser.randint(1, 5)):
        cached = chooser.choice((0, 0, 1, chooser.randrange(context - 1)))
        new = chooser.choice((1, 1, chooser.randint(1, context - cached)))
        if chooser.random() < 0.3:
            together = chooser.randint(2, 4)
            lengths = [max(0, cached - chooser.choice((0, 0, 3))) for _ in range(together)]
            rows += [(1, length, "decode", 1, together) for length in lengths]
        else:
            gathered = new + cached > BLOCK and chooser.random() < 0.4
            rows.append((new, cached, "prefill", chooser.choice((0, 1, 1, new)), 1, gathered))
    return work(*rows)


@pytest.mark.parametrize("changes", [*CHANGES, {"context_length": 280, "vocab_size": 4200}, {"context_length": 4}])
def test_any_tick_costs_what_its_own_listing_says(tiny_decoder, changes):
    module = tiny_decoder(**changes)
    costs, chooser = DecoderCosts(module, BLOCK), random.Random(1)
    for _ in range(12):
        tick = random_tick(chooser, module.config.context_length)
        table, lengths = costs(tick)
        assert table.at(lengths) == listed(costs, tick), tick


def test_neither_lengths_nor_mixtures_of_rows_make_more_listings(tiny_decoder, monkeypatch):
    module = tiny_decoder(context_length=64)
    costs, chooser = DecoderCosts(module, BLOCK), random.Random(2)
    calls = []
    listing = costs.listing
    monkeypatch.setattr(costs, "listing", lambda tick: calls.append(tick) or listing(tick))
    for cached in range(1, 31):
        costs(work((1, cached, "decode")))
    assert len(calls) == 2, "decoding: one token, and one more in the cache"
    for _ in range(300):
        costs(random_tick(chooser, 64))
    few = len(calls)
    assert few < 120
    for _ in range(1500):
        costs(random_tick(chooser, 64))
    assert len(calls) == few


def test_the_tables_are_bounded(tiny_decoder, monkeypatch):
    monkeypatch.setattr(costs_module, "_MOST_TABLES", 8)
    costs, chooser = DecoderCosts(tiny_decoder(), BLOCK), random.Random(3)
    for _ in range(100):
        tick = random_tick(chooser, 32)
        table, lengths = costs(tick)
        assert len(costs._tables) <= 8
    assert table.at(lengths) == listed(costs, tick)


def test_padding_and_gathering_are_counted(tiny_decoder):
    costs = DecoderCosts(tiny_decoder(), BLOCK)

    def attention(tick):
        table, lengths = costs(tick)
        return table.at(lengths)[Stage.ATTENTION, 0]

    padded = attention(work((1, 3, "decode", 1, 2), (1, 9, "decode", 1, 2)))
    equal = attention(work((1, 9, "decode", 1, 2), (1, 9, "decode", 1, 2)))
    assert padded[0] == equal[0], "the shorter one is computed as if it were as long"
    in_place, gathered = (attention(work((1, 9, "decode", 1, 1, scattered))) for scattered in (False, True))
    copied = 2 * 3 * BLOCK * 2 * 8 * 4  # keys and values of three blocks: two heads of eight float32
    assert gathered[0] == in_place[0]
    assert gathered[1] - in_place[1] >= copied
    assert gathered[2] - in_place[2] >= copied


def test_every_row_of_a_batch_costs_what_it_reads_itself(tiny_decoder):
    costs = DecoderCosts(tiny_decoder(), BLOCK)

    def attention(*cached):
        table, lengths = costs(work(*((1, n, "decode") for n in cached)))
        return table.at(lengths)[Stage.ATTENTION, 0]

    short, mixed, long = attention(3, 3), attention(3, 9), attention(9, 9)
    assert short < mixed < long
    assert all(2 * between == a + b for a, between, b in zip(short, mixed, long, strict=True))


def test_a_tick_without_rows_costs_nothing_that_is_known(tiny_decoder):
    assert DecoderCosts(tiny_decoder(), BLOCK)(work()) is None


@pytest.mark.parametrize("changes", [*CHANGES, {"context_length": 280}, {"context_length": 4}, {"n_kv_heads": 1}])
def test_without_a_cache_a_tick_costs_what_reading_its_whole_texts_does(tiny_decoder, changes):
    module = tiny_decoder(**changes)
    context = module.config.context_length
    costs, chooser = WholeTextCosts(module, BLOCK), random.Random(4)
    ticks = [work((1, n, "decode")) for n in (0, 1, 2, 3, 9, 255, 256, 257, 279) if n < context]
    for _ in range(6):
        rows = []
        for _ in range(chooser.randint(1, 4)):
            new = chooser.randint(1, context)
            rows.append((new, chooser.randrange(context - new + 1), "decode", chooser.choice((0, 1, 1, min(2, new)))))
        ticks.append(work((1, 2, "decode"), *rows))
    for tick in ticks:
        for row in tick.rows:
            costs._make_mask(row.n_cached + row.n_new)
        table, lengths = costs(tick)
        assert table.at(lengths) == listed(costs, tick), tick


def test_the_listings_without_a_cache_do_not_grow_with_the_lengths(tiny_decoder, monkeypatch):
    costs, calls = WholeTextCosts(tiny_decoder(context_length=64), BLOCK), []
    monkeypatch.setattr(costs_module, "list_program", lambda *a, **k: calls.append(1) or list_program(*a, **k))
    flops = []
    for n in range(64):
        table, lengths = costs(work((1, n, "decode")))
        flops.append(table.at(lengths)[Stage.FFN, 0][0])
    assert len(calls) < 15
    assert flops == [(n + 1) * flops[0] for n in range(64)]
    assert costs(work((4, 0, "prefill", 0))) is None, "what is only remembered is not computed"


def test_without_a_cache_rows_that_ask_for_more_are_listed_once_and_not_once_per_combination(tiny_decoder, monkeypatch):
    costs, calls = WholeTextCosts(tiny_decoder(), BLOCK), []

    def tick(*n_logits):
        return work(*((5, 3, "decode", n) for n in n_logits))

    for n in (1, 2, 3):
        costs(tick(n))
    monkeypatch.setattr(costs_module, "list_program", lambda *a, **k: calls.append(1) or list_program(*a, **k))
    for asked in itertools.product((1, 2, 3), repeat=3):
        table, lengths = costs(tick(*asked))
    assert not calls
    assert table.at(lengths) == listed(costs, tick(3, 3, 3))


class Sink:
    def __init__(self):
        self.rows = []

    def add(self, rows, tokens):
        self.rows.append(rows)


def test_what_real_ticks_run_is_what_is_counted(tiny_decoder, tokenizer):
    """Every tick of an engine is listed with its own blocks: padded batches, scattered texts, pieces of prompts."""
    module = tiny_decoder(vocab_size=tokenizer.vocab_size)
    costs = DecoderCosts(module, BLOCK)
    works, inputs = [], []

    class Listener:
        def begin_tick(self): ...
        def mark(self, stage, layer=None): ...
        def tick_work(self, work): works.append(work)
        def end_tick(self, tokens): ...

    # Too few blocks for copies of their own, so that texts with a stored beginning are scattered.
    engine = Engine(module, tokenizer, ledger=Listener(),
                    options=EngineOptions(block_size=BLOCK, tick_tokens=20, n_blocks=26, max_rows=4))
    run = engine.runner.run

    def listened(rows):
        inputs.append([RowInput(list(row.ids), row.n_cached, list(row.blocks), row.n_logits) for row in rows])
        return run(rows)

    engine.runner.run = listened
    settings = GenerationSettings(max_tokens=6, temperature=0, ignore_eos=True)
    for prompt in ("abc", "the quick brown f", "a", "the quick brown f", "the quick brown cats", "abcd", "bcd"):
        engine.submit(Request(prompt=prompt, settings=settings))
    engine.run_until_idle()
    seen = set()
    for work, rows in zip(works, inputs, strict=True):
        program = list_program(
            module, rows, call=lambda m, rows: DecoderRunner(m, 26, BLOCK, lane=32 // BLOCK).run(rows))
        table, lengths = costs(work)
        assert table.at(lengths) == {key: (cost.flops, cost.bytes_read, cost.bytes_written)
                                     for key, cost in stage_costs(program).items() if key[0] in MODEL_STAGES}
        seen |= {(row.together > 1, row.gathered) for row in work.rows}
    assert seen >= {(False, False), (True, False), (False, True)}


def test_every_counted_flop_and_byte_finds_its_measured_row(tiny_decoder, tokenizer):
    module = tiny_decoder(vocab_size=tokenizer.vocab_size)
    costs = DecoderCosts(module, BLOCK)
    works = []
    sink = Sink()
    ledger = Ledger(sink, roofline=Roofline(number_format="fp32", flops_per_s=1e9, bytes_per_s=1e9),
                    costs=lambda tick: works.append(tick) or costs(tick))
    engine = Engine(module, tokenizer, ledger=ledger, options=EngineOptions(block_size=BLOCK, tick_tokens=8))
    settings = GenerationSettings(max_tokens=8, temperature=0, ignore_eos=True)
    for prompt in ("abc", "the quick brown f", "a"):
        engine.submit(Request(prompt=prompt, settings=settings))
    engine.run_until_idle()
    ledger.flush()
    (rows,) = sink.rows
    assert len(works) == ledger.ticks
    for tick, one in enumerate(rows.works):
        if not one.rows:
            continue
        expected = listed(costs, one)
        of_tick = rows.tick == tick
        for column, index in ((rows.flops, 0), (rows.bytes_read, 1), (rows.bytes_written, 2)):
            assert numpy.nansum(column[of_tick]) == sum(figures[index] for figures in expected.values())
