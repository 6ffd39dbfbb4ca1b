import itertools

import pytest
import torch

from tickwise.core.errors import ConfigError, DataError
from tickwise.engine.engine import Engine
from tickwise.engine.generation import encode_prompt, generate_events, options_for
from tickwise.engine.language_model import LanguageModel
from tickwise.engine.plain import write_plainly
from tickwise.engine.requests import Request
from tickwise.engine.sampling import TokenChooser
from tickwise.engine.settings import GenerationSettings

GREEDY = {"temperature": 0.0, "seed": 0}


@pytest.fixture
def write_ids(tokenizer):
    """The plain loop's tokens."""

    def write(module, prompt, n_tokens, use_cache=True, **settings):
        asked = GenerationSettings(max_tokens=n_tokens, **{"seed": 0, **settings})
        tokens = write_plainly(module, prompt, TokenChooser(asked, prompt, tokenizer), use_cache=use_cache)
        return list(itertools.islice(tokens, n_tokens))

    return write


def naive_greedy(module, ids, n_tokens):
    """The definition: the whole text through the model for every token."""
    ids = list(ids)
    for _ in range(n_tokens):
        ids.append(int(module(torch.tensor([ids]))[0, -1].argmax()))
    return ids[-n_tokens:]


FAMILIES = [
    {},
    {"n_kv_heads": 4, "qk_norm": True, "value_residual": True},
    {"positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": True, "tie_embeddings": True},
    {"activation": "relu2", "logit_soft_cap": 5.0, "n_kv_heads": 1},
]


@pytest.mark.parametrize("changes", FAMILIES)
@pytest.mark.parametrize("use_cache", [True, False])
def test_the_plain_loop_s_greedy_tokens_are_those_of_the_definition(tiny_decoder, write_ids, changes, use_cache):
    module = tiny_decoder(seed=3, **changes)
    prompt = [3, 1, 4, 1, 5]
    expected = naive_greedy(module, prompt, 27)
    assert len(set(expected)) > 3, "the model must not repeat itself, or the test says nothing"
    assert write_ids(module, prompt, 27, temperature=0.0, use_cache=use_cache) == expected


@pytest.mark.parametrize("changes", FAMILIES)
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_generation_is_the_plain_loop_s_also_past_the_context(
    tiny_decoder, tokenizer, write_ids, changes, use_cache, capsys
):
    module = tiny_decoder(seed=5, vocab_size=tokenizer.vocab_size, **changes)
    model = LanguageModel(module, tokenizer)
    for prompt, settings in (("abc", GREEDY), ("xyz " * 12, {"temperature": 0.8, "seed": 3})):
        ids = tokenizer.encode(prompt)
        written = model.generate(prompt, max_tokens=100, ignore_eos=True, use_cache=use_cache, **settings)
        assert list(written.token_ids) == write_ids(module, ids, 100, ignore_eos=True, **settings)
    notes = capsys.readouterr().err.splitlines()
    assert [note.split(":")[0] for note in notes] == [
        "the text is longer than the model's context of 32 tokens",
        "the prompt has 48 tokens and the model's context 32",
        "the text is longer than the model's context of 32 tokens",
    ]


def test_past_the_context_the_model_sees_the_last_half_of_it(tiny_decoder, write_ids):
    module = tiny_decoder(seed=5)
    prompt = [3, 1, 4]
    ids = write_ids(module, prompt, 40, temperature=0.0)
    # 3 + 30 tokens do not fit into 32, so token 30 is written from the 16 before it.
    assert ids[30] == naive_greedy(module, (prompt + ids[:30])[-16:], 1)[0]
    assert ids[29] == naive_greedy(module, prompt + ids[:29], 1)[0]


@pytest.mark.parametrize(("n_written", "n_kept"), [(1, 32), (2, 31), (10, 23), (17, 16), (18, 16), (40, 16)])
def test_a_prompt_longer_than_the_context_leaves_room_for_what_is_written(
    tiny_decoder, tokenizer, write_ids, n_written, n_kept, capsys
):
    module = tiny_decoder(seed=6, vocab_size=tokenizer.vocab_size)
    prompt = "".join(tokenizer.decode([(7 * i) % 35]) for i in range(50))
    ids = tokenizer.encode(prompt)
    settings = {"max_tokens": n_written, "ignore_eos": True, **GREEDY}
    written = LanguageModel(module, tokenizer).generate(prompt, **settings)
    # What fits behind the kept part is written as if the prompt began there; the last token need not be read.
    fits = min(n_written, 33 - n_kept)
    assert list(written.token_ids[:fits]) == naive_greedy(module, ids[-n_kept:], fits)
    assert list(written.token_ids) == write_ids(module, ids, n_written, temperature=0.0, ignore_eos=True)
    assert (written.prompt_tokens, written.prompt_tokens_kept) == (50, n_kept)
    notes = capsys.readouterr().err
    assert f"reading its last {n_kept} tokens" in notes
    assert ("going on from its last 16 tokens whenever" in notes) == (n_written > 17)


def test_a_prompt_that_fits_is_kept_whole(model):
    for n in (1, 31, 32):
        written = model.generate("a" * n, max_tokens=5, ignore_eos=True, **GREEDY)
        assert (written.prompt_tokens, written.prompt_tokens_kept) == (n, n)


def test_a_context_of_one_token_still_works(tiny_decoder, tokenizer, write_ids):
    module = tiny_decoder(context_length=1, vocab_size=tokenizer.vocab_size)
    written = LanguageModel(module, tokenizer).generate("abc", max_tokens=5, ignore_eos=True, seed=0)
    assert list(written.token_ids) == write_ids(module, tokenizer.encode("abc"), 5, ignore_eos=True)


def test_samples_do_not_depend_on_how_many_there_are(model):
    three = [g.text for g in model.generate("abc", max_tokens=30, seed=4, n=3, ignore_eos=True)]
    assert model.generate("abc", max_tokens=30, seed=4, ignore_eos=True).text == three[0]
    assert [g.text for g in model.generate("abc", max_tokens=30, seed=4, n=2, ignore_eos=True)] == three[:2]
    assert len(set(three)) == 3


def test_another_seed_gives_another_text_and_no_seed_reports_the_one_it_drew(model):
    first, second = (model.generate("abc", max_tokens=30, ignore_eos=True) for _ in range(2))
    assert first.text != second.text
    assert model.generate("abc", max_tokens=30, ignore_eos=True, seed=first.seed).text == first.text


def test_rows_that_end_early_do_not_disturb_the_others(model):
    alone = [model.generate("abc", max_tokens=60, seed=9, n=i + 1, ignore_eos=True) for i in range(6)]
    texts = [alone[0].text, *(rows[-1].text for rows in alone[1:])]
    together = model.generate("abc", max_tokens=60, seed=9, n=6, stop=["a", "e"], ignore_eos=True)
    lengths = {len(g.token_ids) for g in together}
    assert len(lengths) > 2, "the rows must end at different ticks, or the test says nothing"
    for generation, text in zip(together, texts, strict=True):
        ends = [text.index(letter) for letter in "ae" if letter in text]
        assert generation.text == text[: min(ends, default=None)]


def test_repetition_penalty_counts_prompt_and_text(model):
    written = model.generate("abc", max_tokens=20, repetition_penalty=1e9, ignore_eos=True, **GREEDY)
    prompt = model.tokenizer.encode("abc")
    assert len({*prompt, *written.token_ids}) == 23, "a huge penalty forbids every repetition"


def test_end_of_text_ends_the_text_and_is_not_part_of_it(model):
    eos = model.tokenizer.eos_id
    free = model.generate("abc", max_tokens=200, seed=2, temperature=2.0, ignore_eos=True)
    assert eos in free.token_ids
    ended = model.generate("abc", max_tokens=200, seed=2, temperature=2.0)
    assert ended.finish_reason == "eos"
    assert ended.token_ids == free.token_ids[: free.token_ids.index(eos)]
    assert free.finish_reason == "length"
    assert len(free.token_ids) == 200


def test_stop_string_ends_the_text_before_it(model):
    free = model.generate("abc", max_tokens=100, seed=3, ignore_eos=True).text
    stop = free[40:43]
    stopped = model.generate("abc", max_tokens=100, seed=3, ignore_eos=True, stop=stop)
    assert stopped.finish_reason == "stop"
    assert stopped.text == free[: free.index(stop)]
    assert model.tokenizer.decode(stopped.token_ids).endswith(stop)


def test_streamed_pieces_join_to_the_text(model):
    settings = {"max_tokens": 50, "seed": 3, "ignore_eos": True, "stop": ["ab", "q\n"]}
    pieces = list(model.stream("abc", **settings))
    assert len(pieces) > 5
    assert "".join(pieces) == model.generate("abc", **settings).text


def test_timings_fit_together(model):
    timings = model.generate("abc", max_tokens=20, seed=0, ignore_eos=True).timings
    assert timings.time_to_first_token_s >= timings.prefill_s > 0
    assert timings.decode_tokens_per_s == pytest.approx(19 / timings.decode_s)
    assert model.generate("abc", max_tokens=1, seed=0, ignore_eos=True).timings.decode_tokens_per_s is None


def test_one_row_computes_all_greedy_samples(model, capsys):
    greedy = model.generate("abc", max_tokens=5, n=3, **GREEDY)
    assert "all 3 samples equal" in capsys.readouterr().err
    assert [g.sample for g in greedy] == [0, 1, 2]
    assert len({g.text for g in greedy}) == 1


def test_settings_without_effect_are_named(model, capsys):
    model.generate("abc", max_tokens=2, top_p=0.5, **GREEDY)
    assert "top_p without effect" in capsys.readouterr().err


def test_an_empty_prompt_starts_from_the_end_of_text_token(model):
    assert encode_prompt(model.tokenizer, "") == [model.tokenizer.eos_id]
    assert model.generate("", max_tokens=3, seed=0).prompt_tokens == 1


def test_an_empty_prompt_without_any_start_token_is_an_error():
    class Bare:
        bos_id = eos_id = None

        def encode(self, text):
            return []

    with pytest.raises(ConfigError, match="give a prompt"):
        encode_prompt(Bare(), "")


def test_an_unknown_setting_names_the_one_that_was_meant(model):
    with pytest.raises(ConfigError, match=r"temprature.*did you mean 'temperature'"):
        model.generate("abc", temprature=1.0)


def test_streaming_several_samples_is_refused(model):
    with pytest.raises(ConfigError, match="streamed"):
        model.stream("abc", n=2)


def test_the_prompt_is_read_once_for_all_samples(model):
    shapes = []
    model.module.embed_tokens.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    settings = GenerationSettings(n=4, max_tokens=3, ignore_eos=True)
    list(generate_events(model.module, model.tokenizer, "abcdef", settings))
    assert shapes == [(1, 6), (1, 4), (1, 4)]


def test_bf16_generates_in_bf16(model):
    low = LanguageModel(model.module.to(torch.bfloat16), model.tokenizer)
    settings = GenerationSettings(max_tokens=4)
    engine = Engine(low.module, low.tokenizer, options=options_for(low.module, 2, settings))
    engine.submit(Request(prompt=[1, 2], settings=settings))
    engine.run_until_idle()
    config = low.config
    one_block = 16
    assert engine.runner.state_bytes == 2 * 2 * config.n_layers * config.n_kv_heads * config.head_dim * one_block


def test_what_the_text_must_look_like_is_followed(model):
    written = model.generate("abc", regex="(ab|cd){2,4}", max_tokens=20, seed=0)
    assert len(written.text) in (4, 6, 8)
    assert {written.text[i : i + 2] for i in range(0, len(written.text), 2)} <= {"ab", "cd"}
    assert written.finish_reason in ("eos", "stop")


def test_tokens_may_be_forbidden_to_end_the_text(model):
    settings = {"max_tokens": 40, "seed": 3, "stop": list("abcdefgh")}
    assert len(model.generate("abc", **settings).token_ids) < 10
    assert len(model.generate("abc", min_tokens=10, **settings).token_ids) >= 10


def test_log_probabilities_come_with_the_text(model):
    written = model.generate("abc", max_tokens=8, logprobs=2, ignore_eos=True, **GREEDY)
    assert [c.token_id for c in written.choices] == list(written.token_ids)
    assert all(c.top[0] == (c.token_id, c.logprob) for c in written.choices)


PROMPTS = ["abc", "hello there", "x", "some more words, and then some", "", "abc", "abd", "zz", "the last", "q" * 50]


@pytest.mark.parametrize("settings", [
    {"temperature": 0.0}, {"seed": 3}, {"seed": 3, "n": 3}, {"temperature": 0.0, "n": 2}, {"beam_width": 2, "n": 2},
    {"seed": 1, "speculate": "lookup"}, {"seed": 1, "use_cache": False, "stop": ["ab"]},
], ids=str)
def test_a_batch_of_prompts_writes_what_each_writes_alone(model, settings):
    prompts = [prompt[:8] for prompt in PROMPTS] if "beam_width" in settings else PROMPTS
    answers = {answer.index: answer for answer in model.generate_batch(prompts, max_tokens=15, **settings)}
    assert sorted(answers) == list(range(len(prompts)))
    for index, prompt in enumerate(prompts):
        alone = model.generate(prompt, max_tokens=15, **settings)
        alone = alone if isinstance(alone, list) else [alone]
        assert answers[index].error is None
        assert [s.token_ids for s in answers[index].samples] == [s.token_ids for s in alone]
        assert [s.sample for s in answers[index].samples] == [s.sample for s in alone]


def test_a_prompt_that_fails_does_not_disturb_the_batch(model):
    answers = {a.index: a for a in model.generate_batch(["abc", "ÄÄ", "abd"], max_tokens=5, seed=1)}
    assert "not in the vocabulary" in str(answers[1].error)
    assert answers[1].samples == []
    assert answers[2].samples[0].token_ids == model.generate("abd", max_tokens=5, seed=1).token_ids


def test_the_answer_of_a_batch_has_the_text_of_its_only_sample(model):
    (answer,) = model.generate_batch(["abc"], max_tokens=5, seed=1)
    assert answer.text == answer.samples[0].text == model.generate("abc", max_tokens=5, seed=1).text
    (several,) = model.generate_batch(["abc"], max_tokens=5, seed=1, n=2)
    with pytest.raises(ConfigError, match="the prompt has 2 samples"):
        _ = several.text
    (failed,) = model.generate_batch(["ÄÄ"], max_tokens=5, seed=1)
    with pytest.raises(DataError, match="not in the vocabulary"):
        _ = failed.text


def test_a_draft_that_is_missing_says_where_to_set_it(model):
    with pytest.raises(ConfigError, match=r"model\.draft"):
        model.generate("abc", max_tokens=2, speculate="draft")


def test_a_batch_without_a_seed_draws_one_for_all(model):
    answers = list(model.generate_batch(["abc", "abc", "x"], max_tokens=5, ignore_eos=True))
    assert len({answer.samples[0].seed for answer in answers}) == 1
    assert answers[0].samples[0].text == model.generate(
        ["abc", "abc", "x"][answers[0].index], max_tokens=5, ignore_eos=True, seed=answers[0].samples[0].seed).text


def test_prompts_are_taken_from_their_source_a_few_ahead_only(model):
    taken = []

    def source():
        for number in range(1000):
            taken.append(number)
            yield "abc"

    answers = model.generate_batch(source(), max_tokens=2, seed=0)
    next(answers)
    answers.close()
    assert len(taken) < 50


def test_a_wrong_setting_of_a_batch_is_said_at_once(model):
    with pytest.raises(ConfigError, match="top_p"):
        model.generate_batch(["abc"], top_p=2.0)
