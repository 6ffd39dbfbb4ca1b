"""Three ways to word vectors, on a text whose meaning is known."""

import itertools
import math

import numpy
import pytest
import torch

from tickwise.core.errors import ConfigError, DataError
from tickwise.models.word_vectors import NamedVectors, WordVectors, WordVectorsConfig
from tickwise.tokenizers.train import train_tokenizer
from tickwise.training.word_vectors import (
    WordText,
    WordVectorSettings,
    _AdaGrad,
    _skip_gram_step,
    train_word_vectors,
    word_text,
)

GROUPS = (("cat", "dog", "horse", "bird"), ("red", "green", "blue", "white"), ("one", "two", "three", "four"))
NEAR = (("eats", "runs", "sleeps"), ("paint", "bright", "colour"), ("plus", "minus", "times"))


def text_of_groups(n_sentences=1500):
    """Words of a group are never side by side, but stand among the same words."""
    random = numpy.random.default_rng(0)
    lines = []
    for _ in range(n_sentences):
        group = random.integers(0, 3)
        near = random.choice(NEAR[group], size=4)
        lines.append(f"{near[0]} {near[1]} {random.choice(GROUPS[group])} {near[2]} {near[3]}")
    tokenizer = train_tokenizer("word", iter(["\n".join(lines)]), word_style="spaces", min_frequency=1)
    ids = numpy.array(tokenizer.encode("\n".join(lines)))
    return word_text(ids, tokenizer, min_count=1)


@pytest.mark.parametrize("method", ["sgns", "glove", "svd"])
def test_words_in_the_same_company_are_neighbours(method):
    settings = WordVectorSettings(method=method, width=8, window=2, subsample=0, epochs=25, negatives=2, min_count=1)
    vectors = train_word_vectors(text_of_groups(), settings)
    for group in GROUPS:
        for word in group:
            assert {near.word for near in vectors.neighbours(word, 3)} <= {*group, *NEAR[GROUPS.index(group)]}
        others = [w for g in GROUPS if g is not group for w in g]
        inside, outside = (numpy.mean([dict(vectors.neighbours(a, 20))[b] for a, b in pairs]) for pairs in (
            list(itertools.combinations(group, 2)), list(itertools.product(group, others))))
        assert inside > outside + 0.1


@pytest.mark.parametrize("shift", [1, 2, 5])
def test_the_svd_is_that_of_pmi_less_the_logarithm_of_the_shift(shift):
    text = text_of_groups(200)
    n = len(text.words)
    counts = numpy.zeros((n, n))
    numbers = text.numbers[text.numbers >= 0]
    for distance in (1, 2):
        for a, b in zip(numbers[:-distance], numbers[distance:], strict=True):
            counts[a, b] += 1 / distance
            counts[b, a] += 1 / distance
    of_column = counts.sum(0) ** 0.75
    with numpy.errstate(divide="ignore"):
        pmi = numpy.log(counts / (counts.sum(1, keepdims=True) * (of_column / of_column.sum())))
    kept = numpy.maximum(pmi - numpy.log(shift), 0)
    assert (kept > 0).sum() > 0
    assert (shift > 1) == ((kept > 0).sum() < (pmi > 0).sum())
    settings = WordVectorSettings(method="svd", shift=shift, width=n, window=2, min_count=1)
    weight = train_word_vectors(text, settings).module.weight
    # Vectors U S of all dimensions have the dot products of the matrix's rows.
    assert (weight @ weight.t()).numpy() == pytest.approx(kept @ kept.T, abs=1e-3)


def test_a_shift_that_leaves_no_pair_or_is_none_is_refused():
    with pytest.raises(DataError, match=r"more than 1000 times as often as by chance; .* lower --shift"):
        train_word_vectors(text_of_groups(50), WordVectorSettings(method="svd", shift=1000, min_count=1))
    for shift in (0.5, 0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="--shift: must be at least 1"):
            WordVectorSettings(shift=shift)


def test_the_loss_of_skip_gram_falls_and_a_seed_repeats_it():
    heard = []
    settings = WordVectorSettings(width=8, window=2, subsample=0, epochs=20, min_count=1, seed=3)
    text = text_of_groups(300)
    first = train_word_vectors(text, settings, lambda epoch, loss: heard.append(loss))
    assert heard[-1] < 0.9 * heard[0]
    assert torch.equal(first.module.weight, train_word_vectors(text, settings).module.weight)


def test_a_step_follows_the_gradient_of_its_loss():
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(12, 4, generator=generator) for _ in range(2)]
    centre, context = (torch.randint(0, 12, (256,), generator=generator) for _ in range(2))
    negatives = torch.randint(0, 12, (64,), generator=generator)
    sides = [_AdaGrad(weight.clone(), lr=1e-3) for weight in start]
    loss = _skip_gram_step(*sides, centre, context, negatives, n_negatives=5)

    leaves = [weight.clone().requires_grad_() for weight in start]
    groups = leaves[0][centre].view(2, 128, 4)
    noise = groups @ leaves[1][negatives].view(2, 32, 4).transpose(1, 2)
    expected = -torch.nn.functional.logsigmoid((leaves[0][centre] * leaves[1][context]).sum(1)).sum()
    expected = expected - 5 / 32 * torch.nn.functional.logsigmoid(-noise).sum()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for side, leaf, before in zip(sides, leaves, start, strict=True):
        # The first step of AdaGrad is the learning rate towards the sign of the gradient.
        torch.testing.assert_close(side.weight - before, -1e-3 * leaf.grad.sign(), atol=2e-6, rtol=0)


def test_words_are_tokens_without_their_spaces_and_rare_ones_leave_gaps():
    tokenizer = train_tokenizer("word", iter(["king the King king rare the"]), min_frequency=1)
    text = word_text(numpy.array(tokenizer.encode("king the King king rare the unseen")), tokenizer, min_count=2)
    assert dict(zip(text.words, text.counts.tolist(), strict=True)) == {"king": 2, "the": 2}
    names = [text.words[n] if n >= 0 else None for n in text.numbers]
    assert names == ["king", "the", None, "king", None, "the", None]
    lower = word_text(numpy.array(tokenizer.encode("king the King king rare the unseen")), tokenizer, min_count=2,
                      lowercase=True)
    assert dict(zip(lower.words, lower.counts.tolist(), strict=True)) == {"king": 3, "the": 2}


def test_chinese_words_have_vectors():
    sentence = "我们喜欢北京的天气，他们喜欢上海的天气。"
    tokenizer = train_tokenizer("word", iter([sentence] * 40), min_frequency=1)
    text = word_text(numpy.array(tokenizer.encode("\n".join([sentence] * 40))), tokenizer, min_count=5)
    vectors = train_word_vectors(text, WordVectorSettings(width=4, window=2, subsample=0, epochs=2))
    assert {"北京", "上海", "天气"} <= set(vectors.words)
    assert vectors.neighbours("北京", 3)


def test_analogies_and_neighbours_by_hand():
    words = ("man", "king", "woman", "queen", "stone")
    module = WordVectors(WordVectorsConfig(vocab_size=5, width=3))
    module.weight.data = torch.tensor([[1.0, 0, 0], [1, 2, 0], [1, 0, 1], [1, 2, 1], [-1, 0, 0]])
    vectors = NamedVectors(words, module)
    assert vectors.analogy("man", "king", "woman", 1)[0].word == "queen"
    nearest = vectors.neighbours("man", 4)
    assert [n.word for n in nearest] == ["woman", "king", "queen", "stone"]
    assert [n.cosine for n in nearest] == pytest.approx([2**-0.5, 5**-0.5, 6**-0.5, -1])


def test_mistakes_are_one_line():
    vectors = train_word_vectors(text_of_groups(50), WordVectorSettings(method="svd", width=4, min_count=1,
                                                                        negatives=1, subsample=0))
    with pytest.raises(DataError, match="'hors' has no vector; did you mean 'horse'"):
        vectors.neighbours("hors")
    with pytest.raises(ConfigError, match="-k 0"):
        vectors.neighbours("cat", 0)
    with pytest.raises(ConfigError, match="--width"):
        WordVectorSettings(width=0)
    tokenizer = train_tokenizer("word", iter(["a b c"]), min_frequency=1)
    with pytest.raises(DataError, match="fewer than two words occur 5 times"):
        word_text(numpy.array(tokenizer.encode("a b c")), tokenizer, min_count=5)
    lonely = WordText(numpy.array([0, -1, -1, -1, 1]), ("a", "b"), numpy.array([1, 1]))
    with pytest.raises(DataError, match="no two words"):
        train_word_vectors(lonely, WordVectorSettings(method="glove", window=2, min_count=1))


def test_the_usual_settings_find_words_of_a_kind_in_small_text(shared_data):
    with (shared_data / "tinystories" / "tinystories_sample.txt").open(encoding="utf-8") as file:
        story = file.read(600_000)
    tokenizer = train_tokenizer("word", iter([story]), min_frequency=1)
    text = word_text(numpy.array(tokenizer.encode(story)), tokenizer, min_count=5)
    vectors = train_word_vectors(text, WordVectorSettings(method="svd"))
    for word, like in (("girl", {"boy"}), ("mom", {"dad", "grandma", "mommy"}), ("red", {"blue", "green", "yellow"})):
        assert like & {near.word for near in vectors.neighbours(word, 5)}, word
