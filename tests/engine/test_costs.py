import random

import numpy
import pytest

from tickwise.core.stages import Stage
from tickwise.engine import costs as costs_module
from tickwise.engine.costs import MODEL_STAGES, DecoderCosts
from tickwise.engine.engine import Engine, EngineOptions
from tickwise.engine.requests import Request
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.work import RowWork, TickWork
from tickwise.profiling.ledger import Ledger
from tickwise.profiling.program import stage_costs
from tickwise.profiling.roofline import Roofline

BLOCK = 4


def work(*rows):
    """Rows as (new, cached, phase), and for how many tokens the next one is asked where that is not 1."""
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
        rows.append((new, cached, "prefill", chooser.choice((0, 1, 1, new))))
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
    assert few < 60
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


class Sink:
    def __init__(self):
        self.rows = []

    def add(self, rows, tokens):
        self.rows.append(rows)


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
