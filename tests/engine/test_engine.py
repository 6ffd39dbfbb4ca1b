import itertools
import random
import threading

import pytest

from tickwise.core.errors import ConfigError, NumericsError
from tickwise.core.stages import Stage
from tickwise.engine.engine import Engine
from tickwise.engine.options import EngineOptions
from tickwise.engine.plain import write_plainly
from tickwise.engine.requests import Failure, Generation, QueueFullError, Request, TextPiece
from tickwise.engine.sampling import TokenChooser
from tickwise.engine.settings import GenerationSettings

FAMILIES = [
    {},
    {"n_kv_heads": 4, "qk_norm": True, "value_residual": True},
    {"positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": True, "tie_embeddings": True},
    {"activation": "relu2", "logit_soft_cap": 5.0, "n_kv_heads": 1},
]
PROMPTS = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3], [8], [3, 1, 4, 1, 5, 9]]


def settings_of(**changes):
    return GenerationSettings(**{"temperature": 0.0, "seed": 1, "ignore_eos": True, "max_tokens": 12, **changes})


def plain(module, tokenizer, prompt, settings, sample=0):
    chooser = TokenChooser(settings, prompt, tokenizer, sample)
    return tuple(itertools.islice(write_plainly(module, prompt, chooser), settings.max_tokens))


def run(engine):
    """Everything that is written, by request id and sample; the books are checked after every tick."""
    done = {}
    while not engine.idle:
        for event in engine.step():
            if isinstance(event, Generation):
                done[event.request_id, event.sample] = event
        engine.scheduler.check()
    assert engine.scheduler.pool.available == engine.runner.n_blocks
    return done


@pytest.fixture
def make_engine(tiny_decoder, tokenizer):
    def make(seed=3, ledger=None, draft=None, decoder=None, **options):
        module = tiny_decoder(seed=seed, vocab_size=tokenizer.vocab_size, **(decoder or {}))
        options = {"block_size": 4, "max_rows": 4, **options}
        return Engine(module, tokenizer, options=EngineOptions(**options), ledger=ledger, draft=draft), module

    return make


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [
    {},
    {"tick_tokens": 5},
    {"n_blocks": 9},
    {"speculate": "lookup", "tick_tokens": 16},
    {"use_cache": False},
], ids=str)
def test_requests_together_write_what_each_writes_alone(make_engine, tokenizer, family, options):
    engine, module = make_engine(decoder=family, **options)
    settings = [settings_of(max_tokens=12 - 2 * i, temperature=0.7 * (i % 2)) for i in range(len(PROMPTS))]
    for i, prompt in enumerate(PROMPTS[:3]):
        engine.submit(Request(prompt=prompt, settings=settings[i], id=str(i)))
    done = {}
    for _ in range(3):
        done.update({(e.request_id, e.sample): e for e in engine.step() if isinstance(e, Generation)})
    for i, prompt in enumerate(PROMPTS[3:], 3):
        engine.submit(Request(prompt=prompt, settings=settings[i], id=str(i)))
    done.update(run(engine))
    for i, prompt in enumerate(PROMPTS):
        assert done[str(i), 0].token_ids == plain(module, tokenizer, prompt, settings[i]), i


def test_a_tick_reads_no_more_tokens_than_it_may(make_engine):
    sizes = []

    class Sizes:
        def begin_tick(self): ...
        def mark(self, stage, layer=None): ...
        def end_tick(self, tokens): ...

        def tick_work(self, work):
            sizes.append(sum(row.n_new for row in work.rows))

    engine, _ = make_engine(tick_tokens=6, ledger=Sizes())
    for prompt in PROMPTS:
        engine.submit(Request(prompt=prompt, settings=settings_of()))
    run(engine)
    assert max(sizes) == 6


def test_a_long_prompt_never_keeps_others_from_their_token(make_engine):
    engine, _ = make_engine(tick_tokens=4)
    short = engine.submit(Request(prompt=[1, 2], settings=settings_of(max_tokens=20)))
    engine.step()
    engine.submit(Request(prompt=list(range(30)), settings=settings_of(max_tokens=2)))
    row = engine._requests[short].rows[0]
    for _ in range(9):
        before = len(row.tokens)
        engine.step()
        assert len(row.tokens) == before + 1


def test_samples_share_the_prompt_s_blocks_until_they_write(make_engine, tokenizer):
    engine, module = make_engine()
    prompt, settings = list(range(10)), settings_of(n=3, temperature=1.0, max_tokens=6)
    engine.submit(Request(prompt=prompt, settings=settings, id="r"))
    engine.step()
    pool = engine.scheduler.pool
    assert pool.n_blocks - pool.available == 3, "ten tokens in blocks of four, held by all samples"
    engine.step()
    assert pool.n_blocks - pool.available == 5, "two blocks stay shared; each sample has its own third one"
    done = run(engine)
    for sample in range(3):
        assert done["r", sample].token_ids == plain(module, tokenizer, prompt, settings, sample)


def test_a_shared_prefix_is_read_once(make_engine, tokenizer):
    engine, module = make_engine()
    settings = settings_of()
    prompt = list(range(14))
    engine.submit(Request(prompt=prompt, settings=settings, id="cold"))
    cold = run(engine)["cold", 0]
    engine.submit(Request(prompt=prompt, settings=settings, id="same"))
    engine.submit(Request(prompt=[*prompt[:9], 30, 31], settings=settings, id="partly"))
    engine.submit(Request(prompt=[*prompt, *cold.token_ids[:5]], settings=settings, id="continued"))
    done = run(engine)
    cached = {name: done[name, 0].cached_tokens for name in ("same", "partly", "continued")}
    assert cached == {"same": 13, "partly": 9, "continued": 18}, "also of blocks that begin the same"
    assert done["same", 0].token_ids == cold.token_ids == plain(module, tokenizer, prompt, settings)
    partly = plain(module, tokenizer, [*prompt[:9], 30, 31], settings)
    assert done["partly", 0].token_ids == partly


def test_the_last_token_of_a_prompt_is_always_read(make_engine):
    engine, _ = make_engine()
    for name in "ab":
        engine.submit(Request(prompt=list(range(8)), settings=settings_of(), id=name))
        done = run(engine)
    assert done["b", 0].cached_tokens == 7


def test_tenants_share_no_prefix(make_engine):
    engine, _ = make_engine()
    for tenant in ("one", "two", "one"):
        engine.submit(Request(prompt=list(range(14)), settings=settings_of(), tenant=tenant, id="r"))
        done = run(engine)
        engine.scheduler.check()
    assert done["r", 0].cached_tokens == 13
    engine.submit(Request(prompt=list(range(14)), settings=settings_of(), tenant="three", id="r"))
    assert run(engine)["r", 0].cached_tokens == 0


def test_tenants_share_no_window_of_a_text_that_slides(make_engine):
    engine, _ = make_engine()
    cached = []
    for tenant in ("one", "one", "two"):
        engine.submit(Request(prompt=list(range(36)) * 2, settings=settings_of(max_tokens=2), tenant=tenant, id="r",
                              past_context="slide"))
        cached.append(run(engine)["r", 0].cached_tokens)
    assert cached == [0, 30, 0]


@pytest.mark.parametrize("n_same", [3, 4, 9, 13])
def test_a_text_with_a_stored_beginning_has_its_own_copy_in_one_piece(make_engine, tokenizer, n_same):
    """While there is room; what the first text left stays where it was found."""
    engine, module = make_engine()
    settings = settings_of()
    engine.submit(Request(prompt=list(range(14)), settings=settings, id="first"))
    first = run(engine)["first", 0]
    prompt = [*range(n_same), 30, 31, 32]
    for name in "ab":
        engine.submit(Request(prompt=prompt, settings=settings, id=name))
        engine.step()
        assert engine._requests[name].cached_tokens >= n_same
    for name in "ab":
        blocks = engine._requests[name].rows[0].blocks
        assert blocks == list(range(blocks[0], blocks[0] + len(blocks)))
    done = run(engine)
    assert done["a", 0].token_ids == done["b", 0].token_ids == plain(module, tokenizer, prompt, settings)
    engine.submit(Request(prompt=list(range(14)), settings=settings, id="again"))
    again = run(engine)["again", 0]
    assert again.cached_tokens == 13
    assert again.token_ids == first.token_ids


def test_a_text_without_room_for_a_copy_goes_on_in_place(make_engine, tokenizer):
    engine, module = make_engine(n_blocks=8)
    first, second = list(range(28)), [*range(10), 30, 31]
    engine.submit(Request(prompt=first, settings=settings_of(max_tokens=4)))
    run(engine)
    engine.submit(Request(prompt=second, settings=settings_of(), id="second"))
    engine.step()
    row = engine._requests["second"].rows[0]
    assert row.request.cached_tokens == 10
    assert row.blocks == [0, 1, 2], "the third block was the first text's"
    assert run(engine)["second", 0].token_ids == plain(module, tokenizer, second, settings_of())
    engine.submit(Request(prompt=first, settings=settings_of(max_tokens=4), id="third"))
    done = run(engine)["third", 0]
    assert done.token_ids == plain(module, tokenizer, first, settings_of(max_tokens=4))
    assert done.cached_tokens < 12


def test_requests_that_begin_the_same_and_come_together_read_it_once(make_engine, tokenizer):
    engine, module = make_engine(max_rows=8)
    prompts = [[*range(20), i] for i in range(3)]
    for i, prompt in enumerate(prompts):
        engine.submit(Request(prompt=prompt, settings=settings_of(), id=str(i)))
    done = run(engine)
    assert [done[str(i), 0].cached_tokens for i in range(3)] == [0, 20, 20]
    assert all(done[str(i), 0].token_ids == plain(module, tokenizer, p, settings_of()) for i, p in enumerate(prompts))


def test_without_a_prefix_cache_nothing_is_kept(make_engine):
    engine, _ = make_engine(prefix_cache=False)
    for _ in range(2):
        engine.submit(Request(prompt=list(range(14)), settings=settings_of(), id="r"))
        done = run(engine)
    assert done["r", 0].cached_tokens == 0
    assert engine.scheduler.pool.n_idle == 0


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("n", [1, 2])
def test_requests_that_lose_their_blocks_write_the_same(make_engine, tokenizer, prefix_cache, n):
    engine, module = make_engine(n_blocks=10, prefix_cache=prefix_cache)
    settings = settings_of(max_tokens=14, temperature=0.8, n=n)
    for i, prompt in enumerate(PROMPTS):
        engine.submit(Request(prompt=prompt[:4], settings=settings, id=str(i)))
    done = run(engine)
    assert engine.scheduler.n_preempted > 0
    for i, prompt in enumerate(PROMPTS):
        for sample in range(n):
            assert done[str(i), sample].token_ids == plain(module, tokenizer, prompt[:4], settings, sample)


def test_a_cancelled_request_is_gone_after_one_tick_and_the_next_one_has_its_slot(make_engine):
    engine, _ = make_engine(max_rows=1)
    first = engine.submit(Request(prompt=[1, 2, 3], settings=settings_of(max_tokens=25)))
    second = engine.submit(Request(prompt=[4, 5], settings=settings_of(max_tokens=3)))
    engine.step(), engine.step()
    engine.cancel(first)
    events = engine.step()
    ended = next(e for e in events if isinstance(e, Generation))
    assert (ended.request_id, ended.finish_reason, len(ended.token_ids)) == (first, "cancelled", 2)
    assert [request.id for request in engine.scheduler.running] == [second]
    assert engine._requests[second].rows[0].n_cached == 2, "the second one was read in that very tick"
    engine.scheduler.check()
    run(engine)


def test_a_request_that_waits_can_be_cancelled(make_engine):
    engine, _ = make_engine(max_rows=1)
    engine.submit(Request(prompt=[1, 2, 3], settings=settings_of()))
    engine.step()
    waiting = engine.submit(Request(prompt=[4, 5], settings=settings_of(), id="w"))
    engine.cancel(waiting)
    engine.cancel("nobody")
    done = run(engine)
    assert done["w", 0].finish_reason == "cancelled"
    assert done["w", 0].timings.time_to_first_token_s is None


def test_a_late_request_ends_with_what_it_has(make_engine):
    engine, _ = make_engine()
    engine.submit(Request(prompt=[1, 2], settings=settings_of(max_tokens=1000), past_context="slide", id="slow",
                          deadline_s=0.05))
    done = run(engine)["slow", 0]
    assert done.finish_reason == "deadline"
    assert 0 < len(done.token_ids) < 1000


def test_the_queue_is_bounded(make_engine):
    engine, _ = make_engine(max_waiting=2)
    for _ in range(2):
        engine.submit(Request(prompt=[1], settings=settings_of()))
    with pytest.raises(QueueFullError, match="2 requests wait already"):
        engine.submit(Request(prompt=[1], settings=settings_of()))
    engine.step()
    engine.submit(Request(prompt=[1], settings=settings_of()))
    assert len(run(engine)) == 3


@pytest.mark.parametrize(("request_changes", "message"), [
    ({"prompt": list(range(33))}, "the prompt has 33 tokens and the model's context 32"),
    ({"prompt": []}, "no token"),
    ({"prompt": [1] * 20, "settings": settings_of(max_tokens=12, n=2, temperature=1.0)}, "need 11 blocks"),
    ({"prompt": [1], "settings": settings_of(n=5, temperature=1.0)}, "the engine has 4"),
    ({"prompt": [1], "settings": settings_of(beam_width=2), "past_context": "slide"}, "cannot slide"),
    ({"prompt": [1], "settings": settings_of(speculate="lookup")}, r"EngineOptions\(speculate='lookup'\)"),
    ({"prompt": [1], "settings": settings_of(logprobs=10_000)}, "logprobs: at most"),
])
def test_what_can_never_be_served_is_refused_in_one_line(make_engine, request_changes, message):
    engine, _ = make_engine(n_blocks=10)
    with pytest.raises(ConfigError, match=message) as caught:
        engine.submit(Request(**{"settings": settings_of(), **request_changes}))
    assert "\n" not in str(caught.value)
    assert engine.idle


def test_an_id_is_used_by_one_request_at_a_time(make_engine):
    engine, _ = make_engine()
    engine.submit(Request(prompt=[1], settings=settings_of(), id="x"))
    with pytest.raises(ConfigError, match="'x' is in use"):
        engine.submit(Request(prompt=[1], settings=settings_of(), id="x"))
    run(engine)
    engine.submit(Request(prompt=[1], settings=settings_of(), id="x"))


def test_a_text_stops_at_the_context_unless_it_may_slide(make_engine, tokenizer):
    engine, module = make_engine()
    settings = settings_of(max_tokens=60)
    engine.submit(Request(prompt=[3, 1, 4], settings=settings, id="stops"))
    engine.submit(Request(prompt=[3, 1, 4], settings=settings, id="slides", past_context="slide"))
    long = [i % 30 for i in range(50)]
    engine.submit(Request(prompt=long, settings=settings, id="long", past_context="slide"))
    done = run(engine)
    expected = plain(module, tokenizer, [3, 1, 4], settings)
    assert done["slides", 0].token_ids == expected
    assert done["long", 0].token_ids == plain(module, tokenizer, long, settings)
    # The context's last token is read and one more is written.
    assert done["stops", 0].token_ids == expected[:30]
    assert done["stops", 0].finish_reason == "length"


def test_tenants_take_turns_and_nobody_waits_for_ever(make_engine):
    engine, _ = make_engine(max_rows=2)
    for i in range(6):
        engine.submit(Request(prompt=[1, 2], settings=settings_of(max_tokens=4), tenant="many", id=f"many{i}"))
    engine.submit(Request(prompt=[1, 2], settings=settings_of(max_tokens=4), tenant="one", id="one"))
    order = []
    while not engine.idle:
        order += [e.request_id for e in engine.step() if isinstance(e, Generation)]
    assert order[:2] == ["many0", "one"]
    assert order[2:] == [f"many{i}" for i in range(1, 6)]


def test_a_listener_hears_every_tick_in_order(make_engine):
    heard = []

    class Listener:
        def begin_tick(self):
            heard.append("begin")

        def mark(self, stage, layer=None):
            heard.append(stage)

        def tick_work(self, work):
            heard.append(work)

        def end_tick(self, tokens):
            heard.append(list(tokens))

    engine, _ = make_engine(ledger=Listener())
    request_id = engine.submit(Request(prompt=[1, 2, 3, 4, 5], settings=settings_of(max_tokens=3)))
    pieces = [e for e in engine.run_until_idle() if isinstance(e, TextPiece)]
    assert heard[:2] == ["begin", Stage.SCHEDULE]
    works = [x for x in heard if hasattr(x, "batch")]
    assert [(w.phase, w.batch, w.kv_tokens) for w in works] == [("prefill", 1, 5), ("decode", 1, 6), ("decode", 1, 7)]
    first_tick = heard[: heard.index("begin", 1)]
    stages = [x for x in first_tick if isinstance(x, Stage)]
    assert stages.index(Stage.EMBED) < stages.index(Stage.HEAD) < stages.index(Stage.SAMPLE)
    assert stages[-2:] == [Stage.DETOKENIZE, Stage.HOST]
    tokens = [token for x in heard if isinstance(x, list) for token in x]
    assert [(t.request_id, t.position) for t in tokens] == [(request_id, 5), (request_id, 6), (request_id, 7)]
    assert "".join(t.text for t in tokens) == "".join(p.text for p in pieces)


def test_threads_may_submit_while_another_steps(make_engine, tokenizer):
    engine, module = make_engine(max_waiting=100)
    settings = settings_of(max_tokens=6)

    def submit(number):
        for i in range(5):
            engine.submit(Request(prompt=PROMPTS[i], settings=settings, id=f"{number}-{i}"))

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    done = {}
    while len(done) < 20:
        assert engine.wait(timeout_s=5)
        while not engine.idle:
            done.update({e.request_id: e for e in engine.step() if isinstance(e, Generation)})
            engine.scheduler.check()
    for thread in threads:
        thread.join()
    expected = [plain(module, tokenizer, prompt, settings) for prompt in PROMPTS]
    assert all(done[f"{n}-{i}"].token_ids == expected[i] for n in range(4) for i in range(5))


def test_a_request_that_fails_leaves_the_others_alone(make_engine, tokenizer):
    engine, module = make_engine()
    # After "a", the expression needs a letter that the bias rules out.
    letter = tokenizer.encode("b")[0]
    dead_end = settings_of(ignore_eos=False, regex="ab", logit_bias={letter: -100})
    engine.submit(Request(prompt=[3, 1, 4], settings=settings_of(), id="good"))
    engine.submit(Request(prompt=[3, 1, 4], settings=dead_end, id="bad"))
    events = []
    while not engine.idle:
        events += engine.step()
        engine.scheduler.check()
    (failure,) = [e for e in events if isinstance(e, Failure)]
    assert failure.request_id == "bad"
    assert "logit_bias" in str(failure.error)
    (done,) = [e for e in events if isinstance(e, Generation)]
    assert done.token_ids == plain(module, tokenizer, [3, 1, 4], settings_of())


def test_damaged_weights_end_the_requests_with_one_line(make_engine):
    engine, module = make_engine()
    module.norm.weight.fill_(float("nan"))
    engine.submit(Request(prompt=[3, 1, 4], settings=settings_of()))
    (failure,) = engine.step()
    assert isinstance(failure.error, NumericsError)
    assert engine.idle
    engine.scheduler.check()


def test_a_tick_that_raises_can_be_repeated(make_engine, tokenizer, monkeypatch):
    engine, module = make_engine()
    engine.submit(Request(prompt=[3, 1, 4], settings=settings_of(), id="r"))
    engine.step()
    monkeypatch.setattr(engine.runner, "run", lambda rows: 1 / 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            engine.step()
        engine.scheduler.check()
    monkeypatch.undo()
    assert run(engine)["r", 0].token_ids == plain(module, tokenizer, [3, 1, 4], settings_of())


@pytest.mark.parametrize("seed", range(4))
def test_any_mixture_of_requests_keeps_the_books_and_changes_no_text(make_engine, tokenizer, seed):
    """Small pools, guesses, samples, beams, tenants, cancellations: after every tick every block is accounted for."""
    chooser = random.Random(seed)
    engine, module = make_engine(
        max_rows=chooser.choice([3, 6]), n_blocks=chooser.choice([18, 30]), tick_tokens=chooser.choice([6, 9, 40]),
        speculate=chooser.choice(["off", "lookup"]), prefix_cache=chooser.random() < 0.7, max_waiting=50,
    )
    engine._times.known = True
    system = [chooser.randrange(30) for _ in range(9)]
    asked, done, cancelled = {}, {}, set()
    for number in range(30):
        prompt = system[: chooser.choice([0, 4, 9])] + [chooser.randrange(30) for _ in range(chooser.randint(1, 8))]
        most, temperature, n = chooser.randint(1, 14), chooser.choice([0, 0.9]), chooser.choice([1, 1, 2])
        beam_width = chooser.choice([1, 1, 1, 2]) if n == 1 else 1
        settings = settings_of(max_tokens=most, temperature=temperature, seed=number, n=n, beam_width=beam_width)
        engine.submit(Request(prompt=prompt, settings=settings, id=str(number), tenant=chooser.choice("ab"),
                              past_context="stop" if beam_width > 1 else "slide"))
        asked[str(number)] = (prompt, settings, beam_width)
        for _ in range(chooser.choice([0, 0, 1, 4])):
            if chooser.random() < 0.05:
                cancelled.add(str(chooser.randrange(number + 1)))
                for request_id in cancelled:
                    engine.cancel(request_id)
            done.update({(e.request_id, e.sample): e for e in engine.step() if isinstance(e, Generation)})
            engine.scheduler.check()
    done.update(run(engine))
    for name, (prompt, settings, beam_width) in asked.items():
        for sample in range(1 if settings.temperature == 0 else settings.n):
            ids = done[name, sample].token_ids
            if beam_width == 1:
                assert ids == plain(module, tokenizer, prompt, settings, sample)[: len(ids)]
                assert len(ids) == settings.max_tokens or name in cancelled
