"""The text VAE: distributions against torch's, reading word by word as at once, padding without effect."""

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.models.lockstep import draw, ended_lengths, write
from tickwise.models.vae import GivenLatent, Posterior, Vae, VaeConfig, normal_log_density

NETWORKS = [("lstm", "lstm"), ("lstm", "transformer"), ("transformer", "lstm"), ("transformer", "transformer")]


def tiny(encoder="lstm", decoder="lstm", **changes):
    options = {"vocab_size": 30, "eos_id": 0, "latent": 4, "width": 32, "hidden": 24, "encoder_hidden": 16,
               "n_layers": 2, "context_length": 12, **changes}
    module = Vae(VaeConfig(encoder=encoder, decoder=decoder, **options)).initialise(0).eval()
    with torch.no_grad():  # blocks begin as the identity; here they shall do something
        for name, parameter in module.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.normal_(0, 0.1)
    return module


def sentences():
    ids_BT = torch.tensor([[3, 7, 9, 4, 0], [5, 0, 0, 0, 0], [8, 8, 0, 0, 0]])
    return ids_BT, torch.tensor([5, 2, 3])


def test_the_divergence_and_density_are_those_of_normal_distributions():
    torch.manual_seed(0)
    posterior = Posterior(torch.randn(3, 4), torch.randn(3, 4))
    q = torch.distributions.Normal(posterior.mean, (0.5 * posterior.log_var).exp())
    p = torch.distributions.Normal(torch.zeros(3, 4), torch.ones(3, 4))
    torch.testing.assert_close(posterior.kl(), torch.distributions.kl_divergence(q, p))
    z = torch.randn(7, 3, 4)
    torch.testing.assert_close(posterior.log_density(z), q.log_prob(z).sum(-1))
    torch.testing.assert_close(normal_log_density(z), p.log_prob(z).sum(-1))


@pytest.mark.parametrize(("encoder", "decoder"), NETWORKS)
def test_reading_word_by_word_gives_what_reading_at_once_gives(encoder, decoder):
    module, (ids_BT, _), z_BZ = tiny(encoder, decoder), sentences(), torch.randn(3, 4)
    inputs_BT = module.decoder_inputs(ids_BT)
    at_once, _ = module.read(inputs_BT, z_BZ)
    state, steps = None, []
    for t in range(ids_BT.shape[1]):
        step, state = module.read(inputs_BT[:, t : t + 1], z_BZ, state)
        steps.append(step)
    torch.testing.assert_close(torch.cat(steps, 1), at_once)


@pytest.mark.parametrize(("encoder", "decoder"), NETWORKS)
def test_padding_changes_neither_place_nor_loss(encoder, decoder):
    module, (ids_BT, lengths_B), z_BZ = tiny(encoder, decoder), sentences(), torch.randn(3, 4)
    places, nats = module.encode(ids_BT, lengths_B), module.sentence_nats(ids_BT, lengths_B, z_BZ)
    for row in range(3):
        alone = ids_BT[row : row + 1, : lengths_B[row]]
        torch.testing.assert_close(module.encode(alone, lengths_B[row : row + 1]).mean[0], places.mean[row])
        torch.testing.assert_close(module.sentence_nats(alone, lengths_B[row : row + 1], z_BZ[row : row + 1])[0],
                                   nats[row])


@pytest.mark.parametrize("cutoffs", [(), (5, 12)])
def test_the_training_loss_is_the_mean_of_the_sentences_nats(cutoffs):
    module, (ids_BT, lengths_B), z_BZ = tiny(cutoffs=cutoffs), sentences(), torch.randn(3, 4)
    hidden_BTC, _ = module.read(module.decoder_inputs(ids_BT), z_BZ)
    inside_BT = torch.arange(5) < lengths_B[:, None]
    mean = module.loss(hidden_BTC[inside_BT], ids_BT[inside_BT])
    torch.testing.assert_close(mean * lengths_B.sum(), module.sentence_nats(ids_BT, lengths_B, z_BZ).sum())


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_the_latent_vector_changes_what_is_written(decoder):
    module, (ids_BT, lengths_B) = tiny(decoder=decoder), sentences()
    first, second = (module.sentence_nats(ids_BT, lengths_B, torch.full((3, 4), value)) for value in (-2.0, 2.0))
    assert (first - second).abs().min() > 1e-3


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_the_likeliest_sentence_is_written_greedily(decoder):
    module, z_BZ = tiny(decoder=decoder), torch.randn(3, 4)
    written = write(GivenLatent(module, z_BZ), torch.zeros(3, dtype=torch.long), 8, eos_id=0, temperature=0.0)
    hidden_BTC, _ = module.read(module.decoder_inputs(written), z_BZ)
    likeliest = module.logits(hidden_BTC).argmax(-1)
    for row, length in enumerate(ended_lengths(written, 0)):
        assert torch.equal(written[row, :length], likeliest[row, :length])
        assert (written[row, length:] == 0).all()


def test_draws_follow_the_distribution():
    logits = torch.randn(150, generator=torch.Generator().manual_seed(1))
    drawn = draw(logits.repeat(40_000, 1), 0.7, torch.Generator().manual_seed(2))
    frequencies = torch.bincount(drawn, minlength=150) / 40_000
    expected = torch.softmax(logits / 0.7, 0)
    assert ((frequencies - expected).abs() < 5 * (expected / 40_000).sqrt()).all()


def test_a_word_that_cannot_come_is_never_drawn():
    logits = torch.full((5000, 200), -float("inf"))
    logits[:, 130] = 0.0
    assert (draw(logits, 1.0) == 130).all()


def test_impossible_shapes_are_refused():
    for changes in ({"eos_id": 30}, {"latent": 0}, {"cutoffs": (12, 5)}, {"dropout": 1.0},
                    {"decoder": "transformer", "width": 33}):
        with pytest.raises(ConfigError):
            tiny(**changes)
    with pytest.raises(ConfigError, match="longest sentence"):
        tiny(decoder="transformer").read(torch.zeros(1, 13, dtype=torch.long), torch.zeros(1, 4))


@pytest.mark.parametrize(("encoder", "decoder"), NETWORKS)
def test_without_lengths_every_sentence_fills_its_row(encoder, decoder):
    module, ids_BT = tiny(encoder, decoder), torch.randint(1, 30, (3, 6))
    torch.testing.assert_close(module(ids_BT), module(ids_BT, torch.full((3,), 6)))
