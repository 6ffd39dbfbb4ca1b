import itertools

import pytest
import torch

from tickwise.core import console
from tickwise.core.errors import ConfigError
from tickwise.engine.engine import Engine, EngineOptions
from tickwise.engine.plain import write_plainly
from tickwise.engine.requests import Generation, Request
from tickwise.engine.sampling import TokenChooser
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.speculative import DraftModel, PromptLookup, Speculation, TickTimes


def settings_of(**changes):
    return GenerationSettings(**{"temperature": 0.0, "seed": 1, "ignore_eos": True, "max_tokens": 20, **changes})


def plain(module, tokenizer, prompt, settings):
    return tuple(itertools.islice(write_plainly(module, prompt, TokenChooser(settings, prompt, tokenizer, 0)),
                                  settings.max_tokens))


@pytest.fixture
def always(monkeypatch):
    """Guess from the first tick on and whatever it costs."""
    monkeypatch.setattr(TickTimes, "known", property(lambda self: True, lambda self, value: None), raising=False)
    monkeypatch.setattr(TickTimes, "plain_s", lambda self, n_rows: 1.0)
    monkeypatch.setattr(Speculation, "verified", _count)


def _count(self, n_guessed, n_accepted, *, plain_s, paid_s):
    self.n_ticks += 1
    self.n_guessed += n_guessed
    self.n_accepted += n_accepted


def generate(engine, *requests):
    for request in requests:
        engine.submit(request)
    done = {}
    while not engine.idle:
        done.update({e.request_id: e.token_ids for e in engine.step() if isinstance(e, Generation)})
        engine.scheduler.check()
    return done


def test_lookup_says_what_followed_last_time():
    lookup = PromptLookup()
    assert lookup.propose([1, 2, 3, 9, 9], 4) == []
    assert lookup.propose([1, 2, 3, 9, 9, 2, 3], 2) == [9, 9]
    assert lookup.propose([1, 2, 3, 9, 9, 2, 3, 7, 2, 3], 3) == [7, 2, 3]
    assert lookup.propose([1, 2, 3, 9, 9, 2, 3, 7, 2, 3, 9, 5, 1, 2, 3], 1) == [9], "the longest match counts"


def test_lookup_on_a_growing_text_is_lookup_on_the_whole_text():
    tokens = [i * i % 7 for i in range(60)]
    growing = PromptLookup()
    for end in range(1, 60):
        assert growing.propose(tokens[:end], 3) == PromptLookup().propose(tokens[:end], 3)


def test_a_draft_model_guesses_its_own_most_likely_tokens(tiny_decoder, tokenizer):
    module = tiny_decoder(seed=4)
    draft = DraftModel(module)
    tokens = [3, 1, 4]
    for kept in (3, 1, 0, 2):
        expected = plain(module, tokenizer, tokens, settings_of(max_tokens=3))
        assert draft.propose(tokens, 3) == list(expected)
        assert draft.propose(tokens, 3) == list(expected), "asking twice changes nothing"
        tokens = [*tokens, *expected[:kept], 7]


def test_a_draft_model_says_nothing_past_its_context(tiny_decoder):
    draft = DraftModel(tiny_decoder(context_length=8))
    assert len(draft.propose([1] * 6, 5)) == 3
    assert draft.propose([1] * 9, 5) == []


@pytest.mark.parametrize("settings", [
    {},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.3},
], ids=str)
@pytest.mark.parametrize("draft_seed", [3, 4])
def test_texts_with_guesses_are_those_without(tiny_decoder, tokenizer, always, settings, draft_seed):
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    draft = tiny_decoder(seed=draft_seed, vocab_size=tokenizer.vocab_size)
    engine = Engine(module, tokenizer, draft=draft, options=EngineOptions(speculate="draft", block_size=4))
    asked = settings_of(**settings)
    prompts = {"a": [3, 1, 4], "b": [2, 7, 1, 8, 2, 8]}
    requests = [Request(prompt=p, settings=asked, id=n, past_context="slide") for n, p in prompts.items()]
    done = generate(engine, *requests)
    for name, prompt in prompts.items():
        assert done[name] == plain(module, tokenizer, prompt, asked)
    if draft_seed == 3 and not settings:
        assert engine.n_ticks <= 7, "a draft that is always right brings five tokens a tick"


def test_lookup_in_a_text_that_repeats_saves_ticks(tiny_decoder, tokenizer, always):
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size, context_length=256)
    prompt = [3, 1, 4]
    settings = settings_of(max_tokens=200)
    expected = plain(module, tokenizer, prompt, settings)
    assert expected[150:] == expected[100:150] or len(set(itertools.pairwise(expected))) < 150
    engine = Engine(module, tokenizer, options=EngineOptions(speculate="lookup"))
    assert generate(engine, Request(prompt=prompt, settings=settings, id="r"))["r"] == expected
    assert engine.n_ticks < 195


def test_sampled_text_keeps_its_distribution(tiny_decoder, tokenizer, always):
    """Second tokens after a guess, over many seeds, against the model's own distribution."""
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    draft = tiny_decoder(seed=5, vocab_size=tokenizer.vocab_size)
    n = 1500
    engine = Engine(module, tokenizer, draft=draft,
                    options=EngineOptions(speculate="draft", max_rows=64, max_waiting=n))
    requests = [Request(prompt=[3, 1], settings=settings_of(temperature=2.0, max_tokens=2, seed=i), id=str(i))
                for i in range(n)]
    done = generate(engine, *requests)
    with torch.no_grad():
        first = (module(torch.tensor([[3, 1]]))[0, -1] / 2).softmax(-1)
        seconds = (module(torch.tensor([[3, 1, t] for t in range(first.numel())]))[:, -1] / 2).softmax(-1)
    expected = first @ seconds
    counted = torch.zeros_like(expected)
    for ids in done.values():
        counted[ids[1]] += 1
    # Chi-squared with about 35 degrees of freedom: 80 is beyond the 99.99th percentile.
    assert float(((counted - n * expected) ** 2 / (n * expected)).sum()) < 80


def test_guessing_stops_when_it_does_not_pay(capsys):
    console.set_verbosity(console.VERBOSE)
    try:
        times = TickTimes()
        for _ in range(5):
            times.observe(1, 0.001)
        assert times.plain_s(1) == pytest.approx(0.001)
        bad, good = (Speculation(PromptLookup(), 4, times, name) for name in ("bad", "good"))
        for _ in range(10):
            bad.verified(4, 0, plain_s=0.001, paid_s=0.0005)
            good.verified(4, 3, plain_s=0.001, paid_s=0.0005)
    finally:
        console.set_verbosity(console.NORMAL)
    assert (bad.on, good.on) == (False, True)
    assert "request bad: guessing does not pay (0 of 32" in capsys.readouterr().err
    assert bad.propose([1, 2, 3, 1, 2], 4) == []
    assert good.propose([1, 2, 3, 1, 2], 4) == [3, 1, 2]


def test_nothing_is_guessed_before_a_tick_without_guesses_was_timed():
    times = TickTimes()
    speculation = Speculation(PromptLookup(), 4, times, "r")
    assert speculation.propose([1, 2, 3, 1, 2], 4) == []
    for _ in range(3):
        times.observe(1, 0.001)
    times.plain_s(1)
    assert speculation.propose([1, 2, 3, 1, 2], 4) == [3, 1, 2]


def test_a_draft_with_another_vocabulary_is_refused(tiny_decoder, tokenizer):
    module = tiny_decoder(vocab_size=tokenizer.vocab_size)
    with pytest.raises(ConfigError, match="same tokenizer"):
        Engine(module, tokenizer, draft=tiny_decoder(vocab_size=50), options=EngineOptions(speculate="draft"))
    with pytest.raises(ConfigError, match="go together"):
        Engine(module, tokenizer, options=EngineOptions(speculate="draft"))
