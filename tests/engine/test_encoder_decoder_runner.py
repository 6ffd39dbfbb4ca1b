"""An encoder–decoder in the engine: what it writes is what a plain loop writes, whatever stands beside it."""

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, marking
from tickwise.engine.batch_beam import BeamOptions, beam_search
from tickwise.engine.encoder_decoder_costs import EncoderDecoderCosts
from tickwise.engine.encoder_decoder_runner import EncoderDecoderRunner
from tickwise.engine.engine import Engine
from tickwise.engine.generation import generate_events
from tickwise.engine.kv_cache import KVBlocks
from tickwise.engine.language_model import LanguageModel
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import Generation, Request, TextPiece, encode_source
from tickwise.engine.runner import RowInput
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.work import RowWork, TickWork
from tickwise.profiling.ledger import STAGES, Ledger
from tickwise.profiling.program import stage_costs
from tickwise.profiling.roofline import Roofline
from tickwise.tasks.text_to_text import TextToText
from tickwise.tokenizers.train import train_tokenizer

BLOCK = 4
CHANGES = [
    {}, {"positions": "sinusoidal", "norm": "layernorm", "norm_place": "post", "final_norm": False, "bias": True},
    {"positions": "learned", "n_kv_heads": 2}, {"positions": "relative", "scale_scores": False},
    {"copies": True, "n_kv_heads": 2}, {"copies": True, "positions": "relative"},
]
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [5], [8, 9, 7], [3, 2], [8, 9, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7], [4, 4, 5, 5, 6]]


@pytest.fixture
def made(tiny_encoder_decoder, tokenizer):
    """Makes a model for the tokenizer; its padding is one token more."""
    def make(**changes):
        n = tokenizer.vocab_size
        return tiny_encoder_decoder(**{"vocab_size": n + 1, "pad_id": n, "start_id": n, "eos_id": tokenizer.eos_id,
                                       **changes})

    return make


@torch.no_grad()
def written_plainly(module, tokenizer, source, n):
    """Greedy, the whole target computed again for every token; the end mark ends nothing."""
    source_1S, text = torch.tensor([[*source, module.config.eos_id]]), [module.config.start_id]
    for _ in range(n):
        logits = module(source_1S, None, torch.tensor([text]))[0, -1, : tokenizer.vocab_size]
        text.append(int(logits.argmax()))
    return text[1:]


def greedy(prompt, n=12, **settings):
    asked = GenerationSettings(**{"max_tokens": n, "temperature": 0, "ignore_eos": True, **settings})
    return Request(prompt=prompt, settings=asked)


def run(engine):
    """All ticks, with the scheduler's books checked behind each."""
    done = {}
    while not engine.idle:
        for event in engine.step():
            if isinstance(event, Generation):
                done.setdefault(event.request_id, []).append(event)
        engine.scheduler.check()
    return done


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("options", [{}, {"max_rows": 2}, {"max_rows": 4, "prefix_cache": False}, {"n_blocks": 16}])
def test_the_engine_writes_what_the_plain_loop_writes(made, tokenizer, changes, options):
    module = made(**changes)
    engine = Engine(module, tokenizer, options=EngineOptions(block_size=BLOCK, **options))
    names = [engine.submit(greedy(prompt)) for prompt in PROMPTS]
    done = run(engine)
    for name, prompt in zip(names, PROMPTS, strict=True):
        assert list(done[name][0].token_ids) == written_plainly(module, tokenizer, prompt, 12)
    if "n_blocks" in options:
        assert engine.scheduler.n_preempted > 0, "no row ever had to read its text anew"


def test_a_cancelled_request_leaves_the_others_as_they_are(made, tokenizer):
    module = made()
    engine = Engine(module, tokenizer, options=EngineOptions(max_rows=2, block_size=BLOCK))
    first, second = engine.submit(greedy(PROMPTS[0], 18)), engine.submit(greedy(PROMPTS[1], 16))
    for _ in range(5):
        engine.step()
    engine.cancel(first)
    third = engine.submit(greedy(PROMPTS[2], 10))
    done = run(engine)
    assert list(done[second][0].token_ids) == written_plainly(module, tokenizer, PROMPTS[1], 16)
    assert list(done[third][0].token_ids) == written_plainly(module, tokenizer, PROMPTS[2], 10)
    assert 0 < len(done[first][0].token_ids) < 18


@pytest.mark.parametrize("changes", [{}, {"copies": True}])
def test_the_same_source_is_encoded_once_and_another_one_shares_nothing(made, tokenizer, monkeypatch, changes):
    module = made(**changes)
    encoded = []
    encode = module.encode
    monkeypatch.setattr(module, "encode", lambda ids, *more: encoded.append(ids.tolist()) or encode(ids, *more))
    engine = Engine(module, tokenizer, options=EngineOptions(block_size=BLOCK))
    source = PROMPTS[0]
    first = engine.submit(greedy(source))
    done = run(engine)
    again = engine.submit(greedy(source))
    other = engine.submit(greedy([*source[:-1], 7]))
    done |= run(engine)
    assert done[first][0].token_ids == done[again][0].token_ids
    assert done[again][0].cached_tokens >= len(source) + 1
    assert done[other][0].cached_tokens == 0
    assert len(encoded) == 2
    assert list(done[other][0].token_ids) == written_plainly(module, tokenizer, [*source[:-1], 7], 12)


def test_samples_go_on_from_one_source(made, tokenizer):
    engine = Engine(made(), tokenizer, options=EngineOptions(max_rows=4, block_size=BLOCK))
    settings = GenerationSettings(max_tokens=8, n=4, seed=1, ignore_eos=True, logprobs=2)
    engine.submit(Request(prompt=PROMPTS[0], settings=settings))
    (samples,) = run(engine).values()
    assert len({sample.token_ids for sample in samples}) > 1
    alone = Engine(made(), tokenizer, options=EngineOptions(max_rows=1, block_size=BLOCK))
    alone.submit(Request(prompt=PROMPTS[0], settings=GenerationSettings(max_tokens=8, seed=1, ignore_eos=True)))
    (only,) = run(alone).values()
    assert only[0].token_ids == next(sample.token_ids for sample in samples if sample.sample == 0)
    assert all(len(choice.top) == 2 and choice.logprob <= 0 for sample in samples for choice in sample.choices)


@pytest.mark.parametrize("changes", [{}, {"copies": True, "n_kv_heads": 2}])
def test_a_beam_finds_what_the_search_for_whole_files_finds(made, tokenizer, changes):
    module = made(**changes)
    engine = Engine(module, tokenizer, options=EngineOptions(max_rows=8, block_size=BLOCK))
    settings = GenerationSettings(max_tokens=9, beam_width=3, n=3, length_penalty=0.8)
    names = [engine.submit(Request(prompt=prompt, settings=settings)) for prompt in PROMPTS]
    done = run(engine)
    found = dict(beam_search(module, PROMPTS, BeamOptions(width=3, n_best=3, length_penalty=0.8, max_ratio=0,
                                                          max_extra=9, batch=2), vocab_size=tokenizer.vocab_size))
    for index, name in enumerate(names):
        assert [g.token_ids for g in done[name]] == [h.token_ids for h in found[index]]
    assert engine.scheduler.pool.available == engine.runner.n_blocks


def test_a_text_ends_at_the_end_mark_or_where_the_target_is_full(made, tokenizer):
    ends = Engine(made(eos_bias=60.0), tokenizer, options=EngineOptions(block_size=BLOCK))
    ends.submit(greedy(PROMPTS[0], ignore_eos=False))
    ((generation,),) = run(ends).values()
    assert (generation.finish_reason, generation.token_ids) == ("eos", ())
    module = made()
    full = Engine(module, tokenizer, options=EngineOptions(block_size=BLOCK))
    full.submit(greedy(PROMPTS[0], 500))
    ((generation,),) = run(full).values()
    assert generation.finish_reason == "length"
    assert list(generation.token_ids) == written_plainly(module, tokenizer, PROMPTS[0], module.config.context_length)


def test_the_state_of_a_text_is_what_its_blocks_hold(made, tokenizer):
    module = made()
    config = module.config
    runner = EncoderDecoderRunner(module, 6, BLOCK)
    # Keys and values of every decoder layer, for tokens of sources and of targets alike.
    per_token = 2 * config.n_decoder_layers * config.n_kv_heads * config.head_dim * 4
    assert runner.state_bytes == 6 * BLOCK * per_token
    assert EncoderDecoderRunner(made(copies=True), 6, BLOCK).state_bytes == 6 * BLOCK * (per_token + 8)
    engine = Engine(module, tokenizer, options=EngineOptions(block_size=BLOCK, prefix_cache=False))
    engine.submit(greedy([3] * 8, 5))
    engine.step()
    held = engine.runner.n_blocks - engine.scheduler.pool.available
    assert held == -(-(8 + 1 + 1) // BLOCK)  # the source, its end mark, the start mark


@pytest.mark.parametrize("changes", [{}, {"copies": True}])
def test_rows_are_read_alike_wherever_their_blocks_lie(made, tokenizer, changes):
    module = made(**changes)
    rows = [[3, 1, 4, 1], [5, 9], [2, 6, 5, 3, 5, 8]]
    mark_ids = [module.config.eos_id, module.config.start_id]
    tables = {
        "lanes": [range(8 * i, 8 * i + 8) for i in range(3)],
        "apart": [range(16 * i + 3, 16 * i + 11) for i in range(3)],
        "scattered": [[5, 2, 40, 11], [30, 1, 7], [9, 8, 6, 4]],
    }
    found = {}
    for name, blocks in tables.items():
        runner = EncoderDecoderRunner(module, 48, BLOCK, lane=8)
        first = runner.run([RowInput([*ids, *mark_ids], 0, table, 1, n_source=len(ids) + 1)
                            for ids, table in zip(rows, blocks, strict=True)])
        inputs = [RowInput([7 + i], len(ids) + 2, table, 1, n_source=len(ids) + 1)
                  for i, (ids, table) in enumerate(zip(rows, blocks, strict=True))]
        found[name] = torch.stack([first, runner.run(inputs)])
        assert {row.gathered for row in inputs} == {name != "lanes"}
    torch.testing.assert_close(found["lanes"], found["apart"])
    torch.testing.assert_close(found["lanes"], found["scattered"])


def test_the_way_from_a_prompt_to_text_is_the_decoders(made, tokenizer):
    module = made()
    settings = GenerationSettings(max_tokens=9, temperature=0, ignore_eos=True)
    *pieces, last = generate_events(module, tokenizer, "abcd", settings)
    expected = written_plainly(module, tokenizer, tokenizer.encode("abcd"), 9)
    assert list(last.token_ids) == expected
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextPiece)) == tokenizer.decode(expected)
    model = LanguageModel(module, tokenizer)
    answers = {answer.index: answer.text for answer in model.generate_batch(["abcd", "e", "fgh"], max_tokens=9,
                                                                            temperature=0, ignore_eos=True)}
    assert answers[0] == last.text
    assert model.generate("e", max_tokens=9, temperature=0, ignore_eos=True).text == answers[1]


def test_a_target_is_scored_given_its_source(made, tokenizer):
    module = made()
    model = LanguageModel(module, tokenizer)
    score = model.score("bad", source="abcd")
    ids = tokenizer.encode("bad")
    with torch.no_grad():
        logits = module(torch.tensor([[*tokenizer.encode("abcd"), module.config.eos_id]]), None,
                        torch.tensor([[module.config.start_id, *ids]]))[0]
    expected = logits.log_softmax(-1)[range(4), [*ids, module.config.eos_id]]
    assert score.token_log_probabilities == pytest.approx(expected.tolist(), abs=1e-5)
    assert score.token_ids == (*ids, module.config.eos_id)
    with pytest.raises(ConfigError, match="source"):
        model.score("bad")


@pytest.mark.parametrize(("request_", "options", "message"), [
    (greedy([3] * 24), {}, "the source has 25 tokens with its end mark and the model reads at most 24"),
    (greedy(""), {}, "the source is empty"),
    (greedy([]), {}, "the source is empty"),
    (Request(prompt=[3], past_context="slide"), {}, "cannot slide"),
    (greedy([3]), {"speculate": "lookup"}, "speculate"),
    (greedy([3]), {"use_cache": False}, "use_cache"),
])
def test_what_cannot_be_is_refused_in_one_line(made, tokenizer, request_, options, message):
    with pytest.raises(ConfigError, match=message) as problem:
        Engine(made(), tokenizer, options=EngineOptions(**options)).submit(request_)
    assert "\n" not in str(problem.value)


# ---------------------------------------------------------------- costs

def work(*rows):
    """Rows as (source, new, cached), and notes."""
    return TickWork(tuple(
        RowWork(str(i), new, cached, "decode" if cached > source else "prefill", *rest, n_source=source)
        for i, (source, new, cached, *rest) in enumerate(rows)))


TICKS = [
    work((5, 1, 6)), work((5, 1, 5)), work((2, 1, 9)), work((1, 1, 1)),
    work((5, 6, 0)), work((9, 10, 0)), work((5, 8, 0)), work((5, 3, 7)), work((5, 5, 0, 0)),
    work((5, 1, 8, 1, 3), (5, 1, 8, 1, 3), (5, 1, 8, 1, 3)), work((5, 1, 8, 1, 2), (5, 1, 10, 1, 2)),
    work((5, 1, 8, 1, 2), (7, 1, 9, 1, 2)), work((3, 1, 12, 1, 3), (7, 1, 9, 1, 3), (7, 8, 0, 1, 3)),
    work((5, 6, 0, 1, 2), (5, 6, 0, 1, 2)), work((5, 6, 0, 1, 2), (4, 5, 0, 1, 2)),
    work((5, 1, 9, 1, 2, True), (5, 1, 9, 1, 2, True)), work((5, 1, 9, 1, 2, True), (6, 1, 12, 1, 2, True)),
    work((5, 1, 9, 1, 2, True), (6, 1, 10, 1, 2, True)), work((9, 1, 12, 1, 1, True)),
    work((5, 1, 8), (5, 3, 7), (4, 9, 0)), work((5, 1, 8), (5, 3, 7, 0)),
]  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES)
def test_the_cost_of_every_stage_equals_that_of_the_tick_s_own_listing(made, changes):
    costs = EncoderDecoderCosts(made(**changes), BLOCK)
    for tick in TICKS:
        if changes.get("positions") == "relative":  # then differently long sources are never read in place
            tick = TickWork(tuple(row._replace(gathered=row.gathered or row.together > 1) for row in tick.rows))
        table, lengths = costs(tick)
        listed = {key: (cost.flops, cost.bytes_read, cost.bytes_written)
                  for key, cost in stage_costs(costs.listing(tick)).items() if key[0] in table.covers}
        counted = {key: figures for key, figures in table.at(lengths).items() if any(figures)}
        assert counted == {key: figures for key, figures in listed.items() if any(figures)}, tick


def test_flops_by_hand(made):
    module = made()
    config = module.config
    costs = EncoderDecoderCosts(module, BLOCK)
    table, lengths = costs(work((5, 1, 8, 1, 2), (5, 1, 8, 1, 2)))
    figures = table.at(lengths)
    width, heads = config.width, config.n_heads * config.head_dim
    layer = config.n_encoder_layers
    assert figures[Stage.CROSS_ATTENTION, layer][0] == 2 * (2 * width * heads * 2 + 2 * 2 * 5 * heads)
    assert figures[Stage.ATTENTION, layer][0] == 2 * 2 * 2 * 4 * heads
    assert figures[Stage.HEAD, None][0] == 2 * 2 * width * config.vocab_size
    assert (Stage.ATTENTION, 0) not in figures, "a decode tick does not encode"
    encoding = costs(work((5, 6, 0)))
    assert encoding.table.at(encoding.lengths)[Stage.QKV, 0][0] == 2 * 5 * width * 3 * heads


@pytest.mark.parametrize("changes", [{}, {"copies": True}])
def test_decoding_needs_few_listings(made, monkeypatch, changes):
    costs = EncoderDecoderCosts(made(**changes), BLOCK)
    calls = []
    listing = costs._listing
    monkeypatch.setattr(costs, "_listing", lambda *args, **more: calls.append(args) or listing(*args, **more))
    for source in range(2, 20):
        for more in range(1, 18):
            costs(work((source, 1, source + more, 1, 2), (source, 1, source + more, 1, 2)))
    assert len(calls) <= 8


def test_the_ledger_has_cross_attention_in_every_decode_tick_and_costs_for_every_stage(made, tokenizer):
    module, rows = made(), []

    class Sink:
        def add(self, found, tokens):
            rows.extend(zip(found.tick, (STAGES[s] for s in found.stage), found.layer, found.flops, strict=True))

    costs = EncoderDecoderCosts(module, BLOCK)
    ledger = Ledger(Sink(), roofline=Roofline(number_format="fp32", flops_per_s=1e9, bytes_per_s=1e9), costs=costs)
    engine = Engine(module, tokenizer, ledger=ledger, options=EngineOptions(block_size=BLOCK, max_rows=3))
    for prompt in PROMPTS:
        engine.submit(greedy(prompt, 6))
    engine.submit(greedy([9, 9], 6, beam_width=3, temperature=1.0))
    run(engine)
    ledger.flush()
    n_ticks = 1 + max(tick for tick, *_ in rows)
    for tick in range(n_ticks):
        stages = {(stage, layer): flops for t, stage, layer, flops in rows if t == tick}
        assert all(stages[Stage.CROSS_ATTENTION, layer] > 0 for layer in (2, 3))
        model = [flops for (stage, _), flops in stages.items() if stage in (Stage.QKV, Stage.FFN, Stage.HEAD)]
        assert all(flops > 0 for flops in model)
    assert costs.typical_listing()


def test_finding_where_tokens_lie_is_not_booked_to_the_source_that_was_encoded_before(made, tokenizer, monkeypatch):
    module, marks = made(), []
    engine = Engine(module, tokenizer, options=EngineOptions(block_size=BLOCK))
    for prompt in PROMPTS:
        engine.submit(greedy(prompt, n=3))

    class Marks:
        def mark(self, stage, layer=None):
            marks.append(stage)

    where = []
    slots = KVBlocks.slots
    monkeypatch.setattr(KVBlocks, "slots", lambda *arguments: where.append(marks[-1]) or slots(*arguments))
    with marking(Marks()):
        run(engine)
    assert set(where) == {Stage.SCHEDULE}
    assert len(where) > len(PROMPTS)


def test_an_end_mark_that_is_written_in_a_source_is_text():
    tokenizer = train_tokenizer("bpe", iter(["what does it mean"] * 3), vocab_size=280)
    ids = encode_source(tokenizer, "what does <|endoftext|> mean?")
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids) == "what does <|endoftext|> mean?"
    assert encode_source(tokenizer, "what") == tokenizer.encode("what")


def test_a_source_is_the_same_for_every_verb(made, tokenizer):
    module = made()
    text, model = " ab\x07cd\r\n", LanguageModel(module, tokenizer)
    written = model.generate(text, max_tokens=9, temperature=0)
    assert written.text.strip() == TextToText(module, tokenizer).translate([text], BeamOptions(
        width=1, max_ratio=0, max_extra=9))[0]
    assert written.token_ids == model.generate("abcd", max_tokens=9, temperature=0).token_ids
    assert model.score("bad", source=text).nats == model.score("bad", source="abcd").nats
