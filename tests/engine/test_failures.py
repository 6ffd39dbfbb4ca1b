"""What goes wrong with one request concerns that request: the others' texts, their events and the blocks stay right."""

import itertools
import math
import threading

import pytest
import torch

from tickwise.core.errors import ConfigError, DataError, NumericsError
from tickwise.core.stages import Stage
from tickwise.engine.engine import Engine
from tickwise.engine.options import EngineOptions
from tickwise.engine.plain import write_plainly
from tickwise.engine.requests import Failure, Generation, Request, WrittenText
from tickwise.engine.sampling import TokenChooser
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.speculative import Guess, Speculation, TickTimes


def settings_of(**changes):
    return GenerationSettings(**{"temperature": 0.0, "seed": 1, "ignore_eos": True, "max_tokens": 12, **changes})


@pytest.fixture
def engine_of(tiny_decoder, tokenizer):
    def make(ledger=None, **options):
        module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
        return Engine(module, tokenizer, options=EngineOptions(**{"block_size": 4, "max_rows": 4, **options}),
                      ledger=ledger), module

    return make


def drain(engine):
    events = []
    while not engine.idle:
        events += engine.step()
        engine.scheduler.check()
    assert engine.scheduler.pool.available == engine.runner.n_blocks
    return events


def plain(module, tokenizer, prompt, settings):
    chooser = TokenChooser(settings, prompt, tokenizer)
    return tuple(itertools.islice(write_plainly(module, prompt, chooser), settings.max_tokens))


class FailingDecoder:
    """Fails after some tokens, or when the text ends."""

    def __init__(self, pushes):
        self._left = pushes

    def push(self, token_id):
        self._left -= 1
        if self._left < 0:
            raise KeyError("no such piece")
        return "x"

    def flush(self):
        raise KeyError("no such piece")


@pytest.mark.parametrize("pushes", [0, 3])
@pytest.mark.parametrize("n", [1, 2])
def test_a_tokenizer_that_fails_ends_its_request_only(engine_of, tokenizer, pushes, n):
    engine, module = engine_of()
    engine.submit(Request(prompt=[5, 6], settings=settings_of(max_tokens=pushes + 1), id="ends with it"))
    engine.submit(Request(prompt=[3, 1, 4], settings=settings_of(n=n, temperature=1.0), id="bad"))
    engine.submit(Request(prompt=[3, 1], settings=settings_of(), id="good"))
    engine._requests["bad"].rows[-1].text._decoder = FailingDecoder(pushes)
    events = drain(engine)
    (failure,) = [e for e in events if isinstance(e, Failure)]
    assert failure.request_id == "bad"
    assert isinstance(failure.error, DataError)
    assert "no such piece" in str(failure.error)
    done = {e.request_id: e for e in events if isinstance(e, Generation)}
    assert done["good"].token_ids == plain(module, tokenizer, [3, 1], settings_of())
    assert set(done) == {"good", "ends with it"}


@pytest.mark.parametrize("reason", ["cancelled", "deadline"])
def test_a_tokenizer_that_fails_at_the_end_of_a_text_keeps_nothing_alive(engine_of, reason):
    engine, _ = engine_of()
    deadline_s = 0.001 if reason == "deadline" else None
    engine.submit(Request(prompt=[3, 1], settings=settings_of(), id="bad", deadline_s=deadline_s))
    engine._requests["bad"].rows[0].text._decoder = FailingDecoder(100)
    if reason == "cancelled":
        engine.cancel("bad")
    else:
        threading.Event().wait(0.002)
    (failure,) = drain(engine)
    assert isinstance(failure, Failure)
    assert "bad" not in engine


def test_no_event_is_lost_when_a_tick_raises(engine_of, monkeypatch):
    engine, _ = engine_of()
    engine.submit(Request(prompt=[3, 1, 4], settings=settings_of(), id="cancelled"))
    engine.submit(Request(prompt=[3, 1, 4], settings=settings_of(), id="other"))
    engine.step()
    engine.cancel("cancelled")
    monkeypatch.setattr(engine.runner, "run", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.step()
    monkeypatch.undo()
    assert [e.request_id for e in drain(engine) if isinstance(e, Generation)] == ["cancelled", "other"]


def test_no_event_is_lost_when_the_listener_raises_at_a_tick_s_end(engine_of):
    class Full:
        left = 2

        def begin_tick(self): ...
        def tick_work(self, work): ...
        def mark(self, stage, layer=None): ...

        def end_tick(self, tokens):
            self.left -= 1
            if self.left == 0:
                raise OSError("no space left on device")

    engine, _ = engine_of(ledger=Full())
    engine.submit(Request(prompt=[3, 1], settings=settings_of(max_tokens=2), id="r"))
    engine.step()
    with pytest.raises(OSError, match="no space"):
        engine.step()
    assert not engine.idle
    assert [e.request_id for e in engine.step() if isinstance(e, Generation)] == ["r"]
    assert engine.idle


def test_a_tick_of_a_beam_that_raises_can_be_repeated(engine_of, monkeypatch):
    settings = settings_of(beam_width=3, temperature=1.0, max_tokens=6)
    (expected,) = [e.token_ids for e in _written(engine_of()[0], settings)]
    engine, _ = engine_of()
    engine.submit(Request(prompt=[3, 1, 4], settings=settings))
    engine.step(), engine.step()
    from tickwise.engine import engine as home

    original = home.next_tokens

    def then_fail(*arguments):
        original(*arguments)
        raise MemoryError

    monkeypatch.setattr(home, "next_tokens", then_fail)
    with pytest.raises(MemoryError):
        engine.step()
    monkeypatch.undo()
    assert [e.token_ids for e in drain(engine) if isinstance(e, Generation)] == [expected]


def _written(engine, settings, prompt=(3, 1, 4)):
    engine.submit(Request(prompt=prompt, settings=settings))
    return [e for e in drain(engine) if isinstance(e, Generation)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_beam_of_damaged_weights_is_a_failure_not_a_text(engine_of, value):
    engine, module = engine_of()
    module.norm.weight.fill_(value)
    engine.submit(Request(prompt=[3, 1, 4], settings=settings_of(beam_width=2, temperature=1.0)))
    (failure,) = drain(engine)
    assert isinstance(failure.error, NumericsError)


def test_numbers_that_are_not_finite_never_reach_another_request(engine_of, tokenizer):
    """The bad text leaves NaN in its blocks; the next one is read beside others, padded with what lies there."""
    engine, module = engine_of(max_rows=2)
    module.embed_tokens.weight[9] = math.nan
    long = settings_of(max_tokens=20, logit_bias={9: -100})
    engine.submit(Request(prompt=[9] * 12, settings=long, id="bad"))
    (failure,) = drain(engine)
    assert isinstance(failure.error, NumericsError)
    prompts = {"a": [3, 1], "b": [4, 1, 5, 8, 2, 6, 5, 3]}
    for name, prompt in prompts.items():
        engine.submit(Request(prompt=prompt, settings=long, id=name))
    done = {e.request_id: e.token_ids for e in drain(engine) if isinstance(e, Generation)}
    assert done == {name: plain(module, tokenizer, prompt, long) for name, prompt in prompts.items()}


@pytest.mark.parametrize("beam_width", [1, 2])
def test_what_a_cancelled_request_left_unseen_poisons_nobody(engine_of, tokenizer, beam_width):
    """Bad prompts are cancelled before their logits are looked at; they leave NaN behind, also in the state of their
    sound beginnings. The next texts begin like them, and are read as one batch, padded with what lies there."""
    rules = {"beam_width": 2, "temperature": 1.0} if beam_width > 1 else {"logit_bias": {9: -100}}
    longer = settings_of(max_tokens=20, **rules)
    prompts = {"a": [3, 1], "b": [4, 1, 5, 8, 2, 6, 5, 3]}
    sound, _ = engine_of(max_rows=4)
    for name, prompt in prompts.items():
        sound.submit(Request(prompt=prompt, settings=longer, id=name))
    expected = {e.request_id: e.token_ids for e in drain(sound) if isinstance(e, Generation)}
    assert not any(9 in token_ids for token_ids in expected.values())
    engine, module = engine_of(max_rows=4, tick_tokens=7)
    module.embed_tokens.weight[9] = math.nan
    for number in range(4):
        engine.submit(Request(prompt=[number, *[9] * 29], settings=longer, id="bad"))
        engine.step(), engine.step()
        engine.cancel("bad")
        (ended,) = drain(engine)
        assert ended.finish_reason == "cancelled"
    assert not torch.stack(engine.runner._blocks.v_layers).isfinite().all()
    batches = []
    run = engine.runner.run
    engine.runner.run = lambda rows: (run(rows), batches.append(max(row.together for row in rows)))[0]
    for name, prompt in prompts.items():
        engine.submit(Request(prompt=prompt, settings=longer, id=name))
    done = {e.request_id: e.token_ids for e in drain(engine) if isinstance(e, Generation)}
    assert done == expected
    assert max(batches) > 1, "nothing was padded, so the test says nothing"


def test_a_row_that_is_bad_by_itself_fails_alone(engine_of, tokenizer):
    """Both decode in one batch when the first one's numbers are damaged in its own blocks."""
    engine, module = engine_of(max_rows=2)
    for name, prompt in {"bad": [3, 1], "good": [4, 1, 5]}.items():
        engine.submit(Request(prompt=prompt, settings=settings_of(), id=name))
    engine.step(), engine.step()
    (block,) = engine._requests["bad"].rows[0].blocks
    engine.runner._blocks.v_layers[0][:, block * 4] = math.nan
    events = drain(engine)
    (failure,) = [e for e in events if isinstance(e, Failure)]
    assert failure.request_id == "bad"
    assert isinstance(failure.error, NumericsError)
    (done,) = [e for e in events if isinstance(e, Generation)]
    assert done.token_ids == plain(module, tokenizer, [4, 1, 5], settings_of())


def test_a_prefix_that_was_not_finite_is_not_kept(engine_of):
    engine, module = engine_of()
    module.embed_tokens.weight[9] = math.nan
    engine.submit(Request(prompt=[9] * 12, settings=settings_of()))
    drain(engine)
    assert engine.scheduler.pool.n_idle == 0


def test_cancelling_an_ended_request_does_not_end_the_next_one_of_that_name(engine_of):
    engine, _ = engine_of()
    engine.submit(Request(prompt=[3, 1], settings=settings_of(), id="x"))
    drain(engine)
    engine.cancel("x")
    engine.submit(Request(prompt=[3, 1], settings=settings_of(), id="x"))
    (done,) = [e for e in drain(engine) if isinstance(e, Generation)]
    assert done.finish_reason == "length"


def test_submitting_and_cancelling_from_threads_while_another_steps_loses_nobody(engine_of):
    engine, _ = engine_of(max_waiting=1000)

    def hurry(number):
        for i in range(40):
            engine.cancel(engine.submit(Request(prompt=[1, 2], settings=settings_of(), id=f"{number}-{i}")))

    threads = [threading.Thread(target=hurry, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    events = []
    while any(thread.is_alive() for thread in threads) or not engine.idle:
        events += engine.step()
    engine.scheduler.check()
    ended = [e.request_id for e in events if isinstance(e, Generation)]
    assert len(ended) == len(set(ended)) == 120


def test_ids_that_the_engine_gives_are_free(engine_of):
    engine, _ = engine_of()
    engine.submit(Request(prompt=[1], settings=settings_of(), id="request-1"))
    assert engine.submit(Request(prompt=[1], settings=settings_of())) == "request-2"
    assert "request-2" in engine
    drain(engine)
    assert "request-2" not in engine


def test_waiting_returns_at_once_while_there_is_work(engine_of):
    engine, _ = engine_of()
    engine.submit(Request(prompt=[1], settings=settings_of()))
    assert engine.wait(timeout_s=5)
    engine.step()
    assert engine.wait(), "no time limit: it would hang"
    drain(engine)
    assert not engine.wait(timeout_s=0.001)


def test_a_deadline_during_a_prompt_frees_its_blocks(engine_of):
    engine, _ = engine_of(tick_tokens=4, prefix_cache=False)
    engine.submit(Request(prompt=list(range(20)), settings=settings_of(n=2, temperature=1.0), id="r", deadline_s=0.02))
    assert engine.step() == []
    held = engine.runner.n_blocks - engine.scheduler.pool.available
    assert held > 0
    threading.Event().wait(0.03)
    assert [e.finish_reason for e in drain(engine)] == ["deadline", "deadline"]


def test_a_cancelled_prompt_and_a_cancelled_beam_free_their_blocks(engine_of):
    engine, _ = engine_of(tick_tokens=4, prefix_cache=False)
    engine.submit(Request(prompt=list(range(20)), settings=settings_of(), id="prompt"))
    engine.submit(Request(prompt=[1, 2], settings=settings_of(beam_width=2, temperature=1.0), id="beam"))
    engine.step(), engine.step()
    engine.cancel("prompt"), engine.cancel("beam")
    engine.step()
    assert engine.idle
    assert engine.scheduler.pool.available == engine.runner.n_blocks


def test_a_guess_takes_no_blocks_from_others(engine_of, monkeypatch):
    """The second text has all the blocks that it needs; the first one's guesses would need one of them."""
    monkeypatch.setattr(Speculation, "propose", lambda self, tokens, limit, chooser: [1] * min(limit, 4))
    monkeypatch.setattr(Speculation, "verified", lambda *_, **__: None)
    monkeypatch.setattr(TickTimes, "plain_s", lambda self, n_rows: 1.0)
    monkeypatch.setattr(Speculation, "guess", Guess([]), raising=False)
    engine, _ = engine_of(n_blocks=6, max_rows=2, tick_tokens=40, speculate="lookup", prefix_cache=False)
    engine.submit(Request(prompt=[3, 1, 4, 1, 5], settings=settings_of(max_tokens=12)))
    engine.submit(Request(prompt=[5, 9, 2, 6] * 3 + [5], settings=settings_of(max_tokens=3)))
    drain(engine)
    assert engine.scheduler.n_preempted == 0


def test_what_was_guessed_right_is_found_by_the_next_request(engine_of, monkeypatch, tokenizer):
    engine, module = engine_of(speculate="lookup", tick_tokens=40)
    monkeypatch.setattr(TickTimes, "plain_s", lambda self, n_rows: 1.0)
    monkeypatch.setattr(Speculation, "verified", lambda *_, **__: None)
    written = plain(module, tokenizer, [3, 1, 4], settings_of(max_tokens=20))
    whole = (3, 1, 4, *written)
    monkeypatch.setattr(
        Speculation, "propose", lambda self, tokens, limit, chooser: list(whole[len(tokens) : len(tokens) + limit][:4]))
    engine.submit(Request(prompt=[3, 1, 4], settings=settings_of(max_tokens=20)))
    drain(engine)
    assert engine.n_ticks < 10, "the guesses must hold, or the test says nothing"
    engine.submit(Request(prompt=whole, settings=settings_of(max_tokens=2)))
    (done,) = [e for e in drain(engine) if isinstance(e, Generation)]
    assert done.cached_tokens == 20


@pytest.mark.parametrize(("changes", "message"), [
    ({"past_context": "slip"}, "past_context: 'slip'"),
    ({"tenant": None}, "tenant: None is not text"),
    ({"id": 3}, "id: 3 is not text"),
    ({"deadline_s": math.nan}, "deadline_s"),
    ({"deadline_s": "5"}, "deadline_s"),
    ({"deadline_s": 0}, "deadline_s"),
    ({"settings": {"n": 2}}, "GenerationSettings"),
])
def test_a_request_that_cannot_be_is_refused_when_it_is_made(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Request(**{"prompt": [1], **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("prompt", "message"), [
    ("ab\ud800", "half a character"), ([1.5], "whole numbers"), (["a"], "whole numbers"), (None, "whole numbers"),
    ([-1], "outside the vocabulary"), ([10**6], "outside the vocabulary"),
])
def test_a_prompt_that_is_neither_text_nor_ids_is_refused(engine_of, prompt, message):
    engine, _ = engine_of()
    with pytest.raises((ConfigError, DataError), match=message):
        engine.submit(Request(prompt=prompt, settings=settings_of()))
    assert engine.idle


def test_ids_may_be_any_whole_numbers(engine_of):
    engine, _ = engine_of()
    first, second = (_written(engine, settings_of(), prompt)[0] for prompt in ([3, 1], torch.tensor([3, 1])))
    assert first.token_ids == second.token_ids


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tiny_decoder, tokenizer):
    with pytest.raises(ConfigError, match="the tokenizer has"):
        Engine(tiny_decoder(vocab_size=tokenizer.vocab_size - 1), tokenizer)


def test_a_tick_that_only_ends_requests_is_none_to_record(engine_of):
    heard = []

    class Listener:
        def begin_tick(self): ...
        def mark(self, stage, layer=None): heard.append(stage)
        def tick_work(self, work): heard.append(len(work.rows))
        def end_tick(self, tokens): heard.append(list(tokens))

    engine, _ = engine_of(ledger=Listener())
    engine.submit(Request(prompt=[1], settings=settings_of(), id="r"))
    engine.cancel("r")
    (done,) = engine.step()
    assert done.finish_reason == "cancelled"
    assert heard == [Stage.SCHEDULE, Stage.HOST, []], "no work"
    assert engine.n_ticks == 0


def test_a_text_says_which_tokenizer_error_ended_it(tokenizer):
    text = WrittenText(tokenizer, settings_of())
    text._decoder = FailingDecoder(0)
    with pytest.raises(DataError, match="cannot write token"):
        text.push(3)
