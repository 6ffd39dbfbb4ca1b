"""The VAE's loss: annealing, free bits, and a posterior that is used."""

import numpy as np
import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.data.sentences import sentences_from_ids
from tickwise.models.vae import Vae, VaeConfig, active_units
from tickwise.training.vae_objective import KlSchedule, VaeObjective, kl_with_free_nats


def sentences(n=400):
    """Six kinds of sentences: the first word says all the others."""
    chooser = np.random.default_rng(0)
    return sentences_from_ids([[kind * 3 + i % 3 + 1 for i in range(int(chooser.integers(3, 7)))]
                               for kind in chooser.integers(0, 6, n)], 0)


def tiny(**changes):
    return Vae(VaeConfig(vocab_size=20, eos_id=0, latent=3, width=16, hidden=32, encoder_hidden=16, context_length=12,
                         **changes)).initialise(0)


def job(schedule=None, **changes):
    options = {"batch_size": 16, "seed": 1, "schedule": schedule or KlSchedule(warmup_epochs=1.0), **changes}
    return VaeObjective(sentences(), sentences(100), **options)


def train(module, objective, steps):
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.loss(module, *objective.next_batch().inputs)[0].backward()
        optimizer.step()


def test_the_weight_rises_linearly_after_the_autoencoder():
    schedule = KlSchedule(autoencoder_epochs=2, warmup_epochs=4)
    assert [schedule.at(epoch) for epoch in (0, 1.9, 2, 4, 6, 100)] == [0, 0, 0, 0.5, 1, 1]
    assert KlSchedule(warmup_epochs=0, weight=0.5).at(0) == 0.5


def test_cycles_start_again():
    schedule = KlSchedule(warmup_epochs=1, cycles=3)
    assert [schedule.at(epoch) for epoch in (0.5, 1.5, 2.0, 2.5, 4.25, 6.0, 9.0)] == [0.5, 1, 0, 0.5, 0.25, 1, 1]


def test_free_nats_stop_the_gradient_of_dimensions_below_them():
    kl_BZ = torch.tensor([[0.1, 2.0], [0.3, 4.0]], requires_grad=True)
    total = kl_with_free_nats(kl_BZ, 0.5)
    assert total.item() == pytest.approx(0.5 + 3.0)
    total.backward()
    assert kl_BZ.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]


def test_training_uses_the_latent_vector_and_lowers_the_bound():
    torch.manual_seed(0)
    module, objective = tiny(), job(KlSchedule(warmup_epochs=4.0, free_nats=0.3))
    before = objective.validate(module, torch.device("cpu"), None)
    train(module, objective, 250)
    after = objective.validate(module, torch.device("cpu"), None)
    assert after["loss"] < 0.5 * before["loss"]
    assert after["loss"] == pytest.approx(after["reconstruction"] + after["kl"])
    assert after["kl"] > 0.5
    assert after["active_units"] >= 1
    assert module.training


def test_at_first_it_is_an_autoencoder_without_noise():
    module, objective = tiny(), job(KlSchedule(autoencoder_epochs=1.0, free_nats=9.0))
    inputs = objective.next_batch().inputs
    first, second = (objective.loss(module, *inputs)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_dropped_words_are_not_read():
    module, objective = tiny(), job(word_dropout=0.5)
    inputs = objective.next_batch().inputs[:2]
    quiet = (torch.tensor(0.0), torch.tensor(0.0))
    losses = {objective.loss(module, *inputs, *quiet)[0].item() for _ in range(4)}
    assert len(losses) > 1
    module.eval()
    losses = {objective.loss(module, *inputs, *quiet)[0].item() for _ in range(4)}
    assert len(losses) == 1


def test_micro_batches_have_the_sentences_of_the_batch():
    objective = job()
    batch = objective.next_batch()
    parts = objective.split(batch, 4)
    assert torch.equal(torch.cat([part.inputs[0] for part in parts]), batch.inputs[0])
    assert sum(part.n_tokens for part in parts) == batch.n_tokens


def test_units_that_say_the_same_of_every_sentence_are_not_active():
    means = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.05, 0.0])
    assert active_units(means) == 1


def test_bad_settings_are_refused():
    for changes in ({"warmup_epochs": -1.0}, {"cycles": 0}, {"free_nats": -0.1}, {"weight": float("nan")}):
        with pytest.raises(ConfigError, match="--kl"):
            KlSchedule(**changes)
