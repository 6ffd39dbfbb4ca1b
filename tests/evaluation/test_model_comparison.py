"""Two language models on the same text."""

import dataclasses
import math
from collections import Counter

import numpy
import pytest

from tickwise.core.errors import ConfigError
from tickwise.engine.language_model import LanguageModel
from tickwise.evaluation.model_comparison import compare_models
from tickwise.evaluation.perplexity import evaluate
from tickwise.tokenizers.train import char_tokenizer, train_tokenizer
from tickwise.training.ngram import count_ngrams

TEXT = "a head ached. he hid in a cafe and had a bad cab.\n" * 40


def ngram(tokenizer, order, text):
    ids = numpy.asarray(tokenizer.encode(text), dtype=numpy.int32)
    return LanguageModel(count_ngrams(ids, tokenizer.vocab_size, order=order), tokenizer)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def characters():
    return char_tokenizer(Counter(TEXT + "xyz"), vocab_size=None, end_of_text=True, unknown=False)


def test_the_difference_is_that_of_the_losses(tiny_model, text):
    models = tiny_model(seed=0), tiny_model(seed=1)
    first, second = (evaluate(model, text) for model in models)
    found = compare_models(first, second, models, seed=3)
    nats = (first.losses.astype(float).sum() - second.losses.astype(float).sum())
    assert found.nats_per_word.value == pytest.approx(nats / first.words)
    assert found.bits_per_byte.value == pytest.approx(first.bits_per_byte.value - second.bits_per_byte.value)
    assert found.word_perplexity_ratio.value == pytest.approx(
        first.word_perplexity.value / second.word_perplexity.value)
    assert found.same_tokenizer
    back = compare_models(second, first, models[::-1], seed=3)
    assert back.nats_per_word.value == pytest.approx(-found.nats_per_word.value)
    assert back.nats_per_word.interval.low == pytest.approx(-found.nats_per_word.interval.high)
    assert back.p == found.p


def test_a_model_does_not_differ_from_itself_and_a_better_one_does(characters, text):
    weak, strong = (ngram(characters, order, TEXT * 2) for order in (1, 4))
    one, other = evaluate(weak, text), evaluate(strong, text)
    assert compare_models(one, one, (weak, weak)).p == 1
    found = compare_models(other, one, (strong, weak))
    assert found.nats_per_word.interval.high < 0
    assert found.word_perplexity_ratio.interval.high < 1
    assert found.p < 0.01


def test_the_tests_level_is_right_for_models_of_equal_skill(tiny_model, text):
    """Of pairs of losses that differ by chance alone, about one in twenty is found to differ."""
    model = tiny_model()
    result = evaluate(model, text)
    generator, rejected = numpy.random.default_rng(0), 0
    for trial in range(200):
        noisy = [dataclasses.replace(result, losses=generator.exponential(1.0, len(result.losses)).astype("f4"))
                 for _ in range(2)]
        rejected += compare_models(*noisy, (model, model), samples=300, seed=trial).p < 0.05
    assert 2 <= rejected <= 24


def test_other_tokenizers_are_compared_by_the_text(characters, text):
    pieces = train_tokenizer("bpe", iter([TEXT]), vocab_size=300)
    models = ngram(characters, 3, TEXT), ngram(pieces, 2, TEXT)
    first, second = (evaluate(model, text) for model in models)
    found = compare_models(first, second, models)
    assert not found.same_tokenizer
    nats = first.losses.astype(float).sum() - second.losses.astype(float).sum()
    assert found.bits_per_byte.value == pytest.approx(nats / len(TEXT) / math.log(2), rel=1e-3)
    assert found.bits_per_byte.interval.low <= found.bits_per_byte.value <= found.bits_per_byte.interval.high
    back = compare_models(second, first, models[::-1])
    assert back.blocks == found.blocks > 10
    assert back.bits_per_byte.interval.low == pytest.approx(-found.bits_per_byte.interval.high)
    assert back.p == found.p


def test_a_text_that_is_read_in_lower_case_is_another_text(characters, tmp_path):
    (tmp_path / "cased.txt").write_text(cased := "He hid.\nA cab\n" * 40)
    lower, kept = (train_tokenizer("bpe", iter([cased]), vocab_size=280, lowercase=lowercase)
                   for lowercase in (True, False))
    models = ngram(lower, 2, cased), ngram(kept, 2, cased)
    results = [evaluate(model, tmp_path / "cased.txt") for model in models]
    for order in (1, -1):
        with pytest.raises(ConfigError, match=r"^--against: the models do not read the same text: '[Hh]e hid\.' of .*"
                                              r" is '[Hh]e hid\.' of [^\n]*$"):
            compare_models(*results[::order], models[::order])
    assert compare_models(results[0], results[0], (models[0], models[0])).p == 1


def test_how_much_white_space_there_is_does_not_matter(tmp_path):
    (tmp_path / "words.txt").write_text(TEXT.replace(" he ", "  he "))
    words, pieces = (train_tokenizer(kind, iter([TEXT]), vocab_size=300, word_style="spaces")
                     for kind in ("word", "bpe"))
    models = ngram(words, 2, TEXT), ngram(pieces, 2, TEXT)
    results = [evaluate(model, tmp_path / "words.txt") for model in models]
    assert not compare_models(*results, models).same_tokenizer


def test_words_that_are_hidden_are_no_prediction(characters, text):
    words = train_tokenizer("word", iter(["a head ached . he hid"] * 3), vocab_size=20)
    models = ngram(characters, 3, TEXT), ngram(words, 2, TEXT)
    results = [evaluate(model, text) for model in models]
    assert results[1].unknown
    with pytest.raises(ConfigError, match=r"<unk> for .*which hides what word it was"):
        compare_models(*results, models)
    assert compare_models(results[1], results[1], (models[1], models[1])).p == 1


def test_a_text_of_one_piece_has_no_interval(characters, tmp_path):
    (tmp_path / "short.txt").write_text("a bad cab")
    model = ngram(characters, 2, TEXT)
    result = evaluate(model, tmp_path / "short.txt")
    found = compare_models(result, result, (model, model))
    assert (found.p, found.nats_per_word.interval) == (None, None)
