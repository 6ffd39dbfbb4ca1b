"""The factorised model: its fast path, its fit, and what it adds to the n-grams."""

import math

import numpy
import pytest
import torch

from tickwise.core.errors import ConfigError, DataError
from tickwise.models.factorised import Factorised, FactorisedConfig
from tickwise.training.factorised import FactorisedSettings, build_factorised
from tickwise.training.ngram import count_ngrams


@pytest.fixture
def random_factorised():
    ids = numpy.random.default_rng(0).integers(0, 20, size=500)
    ngram = count_ngrams(ids, 20, order=3, boundary=3)
    module = Factorised(FactorisedConfig(rank=4, n_positions=3, decays=(0.5, 0.9), window=7, ngram=ngram.config))
    module.ngram = ngram
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if not name.startswith("ngram."):
            parameter.data = torch.rand(parameter.shape, generator=generator)
    return module, torch.from_numpy(ids)


def test_features_of_a_text_are_those_of_its_windows(random_factorised):
    module, ids = random_factorised
    slow = module.features(module.hidden_states(ids[None, :40])[0])
    torch.testing.assert_close(module.text_features(ids[None, :40], 40), slow)
    torch.testing.assert_close(module.text_features(ids[None, :40], 6), slow[-6:])


def test_features_by_hand(random_factorised):
    module, _ = random_factorised
    e, salience = module.context_vectors, module.salience
    found = module.features(torch.tensor([[-1, -1, -1, -1, -1, 4, 9]]))[0]
    weights = torch.tensor([0.5**d for d in range(7)])
    weights = weights / weights.norm()
    assert found[:4].tolist() == [0.0] * 4
    torch.testing.assert_close(found[4:12], torch.cat([e[4], e[9]]))
    torch.testing.assert_close(found[12:16], weights[1] * salience[4] * e[4] + weights[0] * salience[9] * e[9])


def test_distributions_sum_to_one_and_agree_with_single_look_ups(random_factorised):
    module, ids = random_factorised
    text = ids[:60]
    log_probabilities = module(text[None, :-1])[0]
    assert log_probabilities.exp().sum(-1).tolist() == pytest.approx([1.0] * 59, abs=1e-5)
    single = module.target_log_probabilities(text)
    torch.testing.assert_close(log_probabilities.gather(1, text[1:, None])[:, 0], single)


def topical_text(n, seed):
    """Runs of 50 words on one of four topics; two of three words could be on any, so that one says little."""
    random = numpy.random.default_rng(seed)
    topics = random.integers(0, 4, size=n // 50 + 1).repeat(50)[:n]
    return numpy.where(random.random(n) < 2 / 3, random.integers(0, 40, size=n),
                       topics * 10 + random.integers(0, 10, size=n))


def test_the_factors_add_what_n_grams_cannot_see():
    train, validation, test = topical_text(20_000, 0), topical_text(3000, 1), topical_text(3000, 2)
    ngram = count_ngrams(train, 40, order=2)
    heard = []
    module = build_factorised(ngram, train, validation, FactorisedSettings(
        rank=16, n_positions=2, window=40, decays=(0.9,), epochs=6, batch_size=256, sampled_words=40, lr=1e-3,
    ), heard.append)
    text = torch.from_numpy(test)
    mixed, counted = (math.exp(-m.target_log_probabilities(text).mean()) for m in (module, ngram))
    assert mixed < 0.95 * counted
    assert heard[-1].validation_loss < heard[0].validation_loss
    assert not any(p.requires_grad for p in module.parameters())
    assert ((module.mixture > 0) & (module.mixture < 1)).all()


def test_the_same_seed_builds_the_same_model():
    train, validation = topical_text(3000, 0), topical_text(500, 1)
    settings = FactorisedSettings(rank=8, n_positions=2, window=10, epochs=1, batch_size=256, sampled_words=20)
    one, two = (build_factorised(count_ngrams(train, 40, order=2), train, validation, settings) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_what_cannot_be_built_is_refused():
    ngram = count_ngrams(numpy.array([0, 1, 2, 3]), 4, order=2)
    with pytest.raises(DataError, match="validation part"):
        build_factorised(ngram, topical_text(100, 0) % 4, numpy.array([1]), FactorisedSettings(rank=2))
    with pytest.raises(DataError, match="too few"):
        build_factorised(ngram, numpy.array([0, 1, 2, 3]), numpy.array([1, 2, 3]), FactorisedSettings(rank=2))
    with pytest.raises(ConfigError, match="rank"):
        FactorisedSettings(rank=0)
