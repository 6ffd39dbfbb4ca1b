import math

import pytest
import torch

from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.engine.language_model import LanguageModel, load
from tickwise.interop.directory import save_model


def naive_log_probabilities(model, ids):
    return [
        float(model.module(torch.tensor([ids[:i]]))[0, -1].log_softmax(-1)[ids[i]]) for i in range(1, len(ids))
    ]


def test_score_is_the_sum_over_one_token_at_a_time(model):
    text = "the cat, abed."
    score = model.score(text)
    expected = naive_log_probabilities(model, [model.tokenizer.eos_id, *model.tokenizer.encode(text)])
    assert score.token_log_probabilities == pytest.approx(expected, abs=1e-5)
    assert score.tokens == len(text)
    assert score.nats == pytest.approx(-sum(expected))
    assert score.perplexity == pytest.approx(math.exp(-sum(expected) / len(text)))
    assert score.bits_per_byte == pytest.approx(-sum(expected) / math.log(2) / len(text))


def test_a_text_longer_than_the_context_is_scored_once_per_token(model):
    text = "the quick brown fox jumps over the lazy dog again and again and again."
    score = model.score(text)
    assert score.token_ids == tuple(model.tokenizer.encode(text))
    ids = [model.tokenizer.eos_id, *score.token_ids]
    # Windows of 32 that start every 16 tokens: target 40 is read from token 16 on.
    expected = naive_log_probabilities(model, ids[16:41])[-1]
    assert score.token_log_probabilities[39] == pytest.approx(expected, abs=1e-5)


def test_nothing_to_score_is_an_error(model):
    with pytest.raises(ConfigError, match="no token to score"):
        model.score("")


def test_load_gives_back_what_was_saved(model, tmp_path):
    save_model(tmp_path / "run" / "model", model.module, model.tokenizer)
    loaded = load(tmp_path / "run")
    settings = {"max_tokens": 20, "seed": 1}
    assert loaded.generate("abc", **settings).text == model.generate("abc", **settings).text
    assert loaded.config == model.config


def test_load_refuses_what_is_not_there_in_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="no such model directory") as caught:
        load(tmp_path / "nothing")
    assert "\n" not in str(caught.value)


def test_load_in_bf16(model, tmp_path):
    save_model(tmp_path / "model", model.module, model.tokenizer)
    loaded = load(tmp_path / "model", dtype="bf16")
    assert isinstance(loaded, LanguageModel)
    assert loaded.dtype == torch.bfloat16
    assert math.isfinite(loaded.score("a cat").nats)


def test_a_prompt_that_is_no_text_is_one_line(model):
    for prompt in (None, 3, b"abc"):
        with pytest.raises(ConfigError, match="prompt: give text") as caught:
            model.generate(prompt)
        assert "\n" not in str(caught.value)


def test_log_probabilities_stand_beside_the_tokens(model):
    asked = model.generate("abc", max_tokens=4, logprobs=1, seed=1, ignore_eos=True)
    assert len(asked.logprobs) == len(asked.token_ids) == 4
    assert asked.logprobs == tuple(choice.logprob for choice in asked.choices)
    assert all(value <= 0 for value in asked.logprobs)
    assert model.generate("abc", max_tokens=4, seed=1, ignore_eos=True).logprobs == ()
