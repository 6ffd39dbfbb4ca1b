import itertools

import pytest
import torch

from tickwise.core import console
from tickwise.core.console import SayOnce
from tickwise.core.errors import ConfigError
from tickwise.engine.engine import Engine
from tickwise.engine.options import EngineOptions
from tickwise.engine.plain import write_plainly
from tickwise.engine.requests import Generation, Request
from tickwise.engine.sampling import TokenChooser, distribution, draw
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.speculative import DraftModel, Guess, PromptLookup, Speculation, TickTimes, accept


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


@pytest.fixture
def chooser(tokenizer):
    return TokenChooser(settings_of(), [], tokenizer)


def test_lookup_says_what_followed_last_time(chooser):
    lookup = PromptLookup()
    assert lookup.propose([1, 2, 3, 9, 9], 4, chooser) == ([], None)
    assert lookup.propose([1, 2, 3, 9, 9, 2, 3], 2, chooser).ids == [9, 9]
    assert lookup.propose([1, 2, 3, 9, 9, 2, 3, 7, 2, 3], 3, chooser).ids == [7, 2, 3]
    longer = lookup.propose([1, 2, 3, 9, 9, 2, 3, 7, 2, 3, 9, 5, 1, 2, 3], 1, chooser)
    assert longer.ids == [9], "the longest match counts"


def test_lookup_on_a_growing_text_is_lookup_on_the_whole_text(chooser):
    tokens = [i * i % 7 for i in range(60)]
    growing = PromptLookup()
    for end in range(1, 60):
        assert growing.propose(tokens[:end], 3, chooser) == PromptLookup().propose(tokens[:end], 3, chooser)


def test_a_draft_model_guesses_its_most_likely_tokens_for_a_greedy_row(tiny_decoder, tokenizer, chooser):
    module = tiny_decoder(seed=4)
    draft = DraftModel(module, SayOnce())
    tokens = [3, 1, 4]
    for kept in (3, 1, 0, 2):
        expected = plain(module, tokenizer, tokens, settings_of(max_tokens=3))
        assert draft.propose(tokens, 3, chooser) == (list(expected), None)
        assert draft.propose(tokens, 3, chooser).ids == list(expected), "asking twice changes nothing"
        tokens = [*tokens, *expected[:kept], 7]


def test_a_draft_model_draws_for_a_row_that_draws(tiny_decoder, tokenizer):
    module = tiny_decoder(seed=4, vocab_size=tokenizer.vocab_size)
    settings = settings_of(temperature=1.5, top_k=4)
    draft = DraftModel(module, SayOnce())
    guess = draft.propose([3, 1, 4], 3, TokenChooser(settings, [3, 1, 4], tokenizer))
    text = [3, 1, 4]
    for token_id, q in zip(guess.ids, guess.probabilities, strict=True):
        expected = distribution(module(torch.tensor([text]))[0, -1], TokenChooser(settings, [], tokenizer))
        torch.testing.assert_close(q, expected)
        assert q[token_id] > 0
        text.append(token_id)


def test_a_draft_model_says_nothing_past_its_context(tiny_decoder, chooser):
    draft = DraftModel(tiny_decoder(context_length=8), SayOnce())
    assert len(draft.propose([1] * 6, 5, chooser).ids) == 3
    assert draft.propose([1] * 9, 5, chooser).ids == []


def test_a_draft_model_with_a_shorter_context_says_once_when_it_stops_helping(tiny_decoder, tokenizer, always, capsys):
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size, context_length=64)
    draft = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size, context_length=12)
    engine = Engine(module, tokenizer, draft=draft, options=EngineOptions(speculate="draft", block_size=4))
    prompts = {"a": [3, 1, 4], "b": [2, 7, 1, 8]}
    generate(engine, *(Request(prompt=p, settings=settings_of(max_tokens=5), id=n) for n, p in prompts.items()))
    assert capsys.readouterr().err == "", "it helps to the end"
    done = generate(engine, *(Request(prompt=p, settings=settings_of(), id=n) for n, p in prompts.items()))
    assert done == {name: plain(module, tokenizer, prompt, settings_of()) for name, prompt in prompts.items()}
    assert capsys.readouterr().err.count("longer than the draft model's context of 12 tokens: going on without") == 1


@pytest.mark.parametrize("settings", [
    {},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.3},
    {"temperature": 0.3, "ignore_eos": False, "regex": "(abc|abd|[a-e ]{3})*"},
], ids=str)
def test_a_looked_up_guess_changes_no_text(tiny_decoder, tokenizer, always, settings):
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    engine = Engine(module, tokenizer, options=EngineOptions(speculate="lookup", block_size=4))
    asked = settings_of(**settings)
    prompts = {"a": [3, 1, 4, 3, 1], "b": [2, 7, 1, 8, 2, 8, 2, 7, 1]}
    requests = [Request(prompt=p, settings=asked, id=n, past_context="slide") for n, p in prompts.items()]
    done = generate(engine, *requests)
    for name, prompt in prompts.items():
        ids = plain(module, tokenizer, prompt, asked)
        assert done[name] == ids[: len(done[name])]
        assert len(done[name]) == len(ids) or "regex" in settings


@pytest.mark.parametrize("draft_seed", [3, 4])
def test_a_greedy_text_with_a_draft_model_is_the_one_without(tiny_decoder, tokenizer, always, draft_seed):
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    draft = tiny_decoder(seed=draft_seed, vocab_size=tokenizer.vocab_size)
    engine = Engine(module, tokenizer, draft=draft, options=EngineOptions(speculate="draft", block_size=4))
    prompts = {"a": [3, 1, 4], "b": [2, 7, 1, 8, 2, 8]}
    requests = [Request(prompt=p, settings=settings_of(), id=n, past_context="slide") for n, p in prompts.items()]
    done = generate(engine, *requests)
    for name, prompt in prompts.items():
        assert done[name] == plain(module, tokenizer, prompt, settings_of())
    if draft_seed == 3:
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
    asking = settings_of(max_tokens=3, speculate="lookup")
    assert generate(engine, Request(prompt=prompt, settings=asking, id="asks"))["asks"] == expected[:3]
    with pytest.raises(ConfigError, match="asks for 'draft' and the engine was made for 'lookup'"):
        engine.submit(Request(prompt=prompt, settings=settings_of(speculate="draft")))


def generation(engine, prompt, **settings):
    engine.submit(Request(prompt=prompt, settings=settings_of(**settings)))
    return next(event for event in engine.run_until_idle() if isinstance(event, Generation))


def test_a_text_comes_with_what_became_of_its_guesses(tiny_decoder, tokenizer, always):
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    engine = Engine(module, tokenizer, draft=module, options=EngineOptions(speculate="draft"))
    figures = generation(engine, [3, 1], max_tokens=21).speculation
    assert (figures.guessed_tokens, figures.accepted_tokens) == (16, 16), "one token from the prompt, 4 × (4 + 1) more"
    assert (figures.ticks, figures.turned_off) == (4, False)
    other = Engine(module, tokenizer, draft=tiny_decoder(seed=5, vocab_size=tokenizer.vocab_size),
                   options=EngineOptions(speculate="draft"))
    written = generation(other, [3, 1], max_tokens=21)
    figures = written.speculation
    assert figures.accepted_tokens < figures.guessed_tokens
    assert len(written.token_ids) == other.n_ticks + figures.accepted_tokens
    assert generation(Engine(module, tokenizer), [3, 1]).speculation is None


def test_guesses_beside_a_prompt_that_is_read_count_too(tiny_decoder, tokenizer, monkeypatch):
    monkeypatch.setattr(TickTimes, "known", property(lambda self: True, lambda self, value: None), raising=False)
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    engine = Engine(module, tokenizer, draft=module, options=EngineOptions(speculate="draft"))
    engine.submit(Request(prompt=[3, 1], settings=settings_of(max_tokens=6), id="first"))
    engine.step()
    engine.submit(Request(prompt=[1, 3], settings=settings_of(max_tokens=1), id="second"))
    done = {event.request_id: event for event in engine.step() if isinstance(event, Generation)}
    assert done["first"].speculation.accepted_tokens == 4
    assert done["second"].speculation.guessed_tokens == 0


def test_drawn_guesses_keep_the_distribution(tiny_decoder, tokenizer, always):
    """Second and third tokens over many seeds against the model's own distribution, summed over all texts."""
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    draft = tiny_decoder(seed=5, vocab_size=tokenizer.vocab_size)
    n, n_vocab, prompt = 400, tokenizer.vocab_size, [3, 1]
    engine = Engine(module, tokenizer, draft=draft,
                    options=EngineOptions(speculate="draft", max_rows=64, max_waiting=n, tick_tokens=512))
    done = generate(engine, *(
        Request(prompt=prompt, settings=settings_of(temperature=2.5, max_tokens=4, seed=i), id=str(i)) for i in range(n)
    ))

    def next_tokens(texts):
        return (module(torch.tensor(texts))[:, -1] / 2.5).softmax(-1)

    with torch.no_grad():
        first = next_tokens([prompt])[0]
        second_given = next_tokens([[*prompt, a] for a in range(n_vocab)])
        pairs = [[*prompt, a, b] for a in range(n_vocab) for b in range(n_vocab)]
        third_given = next_tokens(pairs).view(n_vocab, n_vocab, n_vocab)
    expected = [first, first @ second_given, torch.einsum("a,ab,abc->c", first, second_given, third_given)]
    for position, probabilities in enumerate(expected):
        counted = torch.bincount(torch.tensor([ids[position] for ids in done.values()]), minlength=n_vocab)
        # Chi-squared with about 35 degrees of freedom: 80 is beyond the 99.99th percentile.
        assert float(((counted - n * probabilities) ** 2 / (n * probabilities)).sum()) < 80, position


def test_what_replaces_a_guess_is_distributed_like_the_model(tokenizer):
    """Leviathan et al. 2023, appendix A.1: the token is distributed like p, whatever q is."""
    torch.manual_seed(0)
    n, n_vocab = 4000, tokenizer.vocab_size
    p_logits, q_logits = 1.5 * torch.randn(2, n_vocab), 1.5 * torch.randn(n_vocab)
    choosers = [TokenChooser(settings_of(temperature=1.0, seed=i), [], tokenizer) for i in range(n)]
    counted, accepted = torch.zeros(n_vocab), 0
    for chooser in choosers:
        q = distribution(q_logits, chooser)
        guess = Guess([draw(q, chooser)], [q])
        choices = accept(p_logits, guess, chooser)
        counted[choices[0].token_id] += 1
        accepted += len(choices) - 1
    p, q = p_logits[0].softmax(-1), q_logits.softmax(-1)
    assert float(((counted - n * p) ** 2 / (n * p)).sum()) < 80
    assert accepted / n == pytest.approx(float(torch.minimum(p, q).sum()), abs=0.03), "equation 3 of section 3.2"


def test_a_draft_that_equals_the_model_is_always_accepted(tiny_decoder, tokenizer, always):
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    engine = Engine(module, tokenizer, draft=module, options=EngineOptions(speculate="draft"))
    generate(engine, Request(prompt=[3, 1], settings=settings_of(temperature=1.5, max_tokens=21), id="r"))
    assert engine.n_ticks == 5, "the prompt, then five tokens a tick"


def test_guessing_stops_when_it_does_not_pay(capsys, chooser):
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
    assert (bad.figures.guessed_tokens, bad.figures.ticks, bad.figures.turned_off) == (40, 10, True)
    assert (good.figures.accepted_tokens, good.figures.turned_off) == (30, False)
    assert bad.propose([1, 2, 3, 1, 2], 4, chooser) == []
    assert good.propose([1, 2, 3, 1, 2], 4, chooser) == [3, 1, 2]


def test_nothing_is_guessed_before_a_tick_without_guesses_was_timed(chooser):
    times = TickTimes()
    speculation = Speculation(PromptLookup(), 4, times, "r")
    assert speculation.propose([1, 2, 3, 1, 2], 4, chooser) == []
    for _ in range(3):
        times.observe(1, 0.001)
    times.plain_s(1)
    assert speculation.propose([1, 2, 3, 1, 2], 4, chooser) == [3, 1, 2]


def test_a_draft_with_another_vocabulary_is_refused(tiny_decoder, tokenizer):
    module = tiny_decoder(vocab_size=tokenizer.vocab_size)
    with pytest.raises(ConfigError, match="same tokenizer"):
        Engine(module, tokenizer, draft=tiny_decoder(vocab_size=50), options=EngineOptions(speculate="draft"))
    with pytest.raises(ConfigError, match="go together"):
        Engine(module, tokenizer, options=EngineOptions(speculate="draft"))
