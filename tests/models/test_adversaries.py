"""Adversaries: shapes, padding, the gradient penalty, and rollouts that keep what was given."""

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.models.gan import Discriminator, DiscriminatorConfig, LatentGan, LatentGanConfig, gradient_penalty
from tickwise.models.lockstep import ended_lengths, roll_out, write
from tickwise.models.recurrent import Recurrent, RecurrentConfig


def generator(vocab_size=9):
    return Recurrent(RecurrentConfig(vocab_size=vocab_size, width=8, hidden=12, n_layers=2)).initialise(0).eval()


def test_a_discriminator_judges_each_sequence_alone_and_short_ones_too():
    module = Discriminator(DiscriminatorConfig(vocab_size=9, width=6, features=5)).initialise(0).eval()
    torch.nn.init.normal_(module.out.weight)
    ids_BT = torch.randint(9, (4, 7))
    together = module(ids_BT)
    torch.testing.assert_close(torch.cat([module(ids_BT[i : i + 1]) for i in range(4)]), together)
    assert module(torch.randint(9, (3, 2))).shape == (3,)


def test_filters_are_convolutions():
    module = Discriminator(DiscriminatorConfig(vocab_size=9, width=6, features=5, filters=(3,))).initialise(0)
    x_BTC = module.embed_tokens(torch.randint(9, (2, 7)))
    weight = module.layers[0].weight.unflatten(1, (6, 3))  # a window's features, then its tokens
    expected = torch.nn.functional.conv1d(x_BTC.transpose(1, 2), weight)
    torch.testing.assert_close(module.layers[0](x_BTC.unfold(1, 3, 1).flatten(2)).transpose(1, 2), expected)


def test_the_penalty_is_zero_for_slopes_of_one():
    gan = LatentGan(LatentGanConfig(latent=3, noise=2, hidden=4, n_layers=1)).initialise(0)
    gan.critic = lambda z_BZ: 2.0 * z_BZ[:, 0]
    real, written = torch.randn(5, 3), torch.randn(5, 3)
    assert gradient_penalty(gan, real, written, torch.rand(5, 1)).item() == pytest.approx(1.0)
    gan.critic = lambda z_BZ: z_BZ[:, 1]
    assert gradient_penalty(gan, real, written, torch.rand(5, 1)).item() == pytest.approx(0.0)


def test_rollouts_keep_their_prefixes_and_end_like_the_model():
    module = generator()
    torch.manual_seed(0)
    first_B, ids_BT = torch.zeros(3, dtype=torch.long), torch.randint(9, (3, 6))
    ends = roll_out(module, first_B, ids_BT, 4)
    assert ends.shape == (5, 4, 3, 6)
    for prefix in range(1, 6):
        assert (ends[prefix - 1, :, :, :prefix] == ids_BT[:, :prefix]).all()
    # A model that is sure of every word ends each prefix in one way: the greedy one.
    module = Recurrent(RecurrentConfig(vocab_size=9, width=8, hidden=12, n_layers=2, tie_embeddings=False))
    module.initialise(0).eval()
    torch.nn.init.normal_(module.lm_head.weight, std=1e6, generator=torch.Generator().manual_seed(1))
    ends = roll_out(module, first_B, ids_BT, 2)
    for prefix in range(1, 6):
        _, state = module.read(torch.cat((first_B[:, None], ids_BT[:, : prefix - 1]), 1))
        greedy = write(module, ids_BT[:, prefix - 1], 6 - prefix, state=state, temperature=0.0)
        assert (ends[prefix - 1, :, :, prefix:] == greedy).all()


def test_nothing_is_written_behind_the_end():
    module = generator(4)
    first_B = torch.zeros(50, dtype=torch.long)
    ids_BT = write(module, first_B, 12, eos_id=0)
    lengths = ended_lengths(ids_BT, 0)
    behind = torch.arange(ids_BT.shape[1]) >= lengths[:, None]
    assert behind.any()
    assert (ids_BT[behind] == 0).all()
    ends = roll_out(module, first_B, ids_BT, 2, eos_id=0)
    lengths = ended_lengths(ends.flatten(0, 2), 0)
    assert (ends.flatten(0, 2)[torch.arange(ids_BT.shape[1]) >= lengths[:, None]] == 0).all()


def test_the_same_generator_state_writes_the_same():
    module, first_B = generator(), torch.zeros(5, dtype=torch.long)
    first, second = (write(module, first_B, 8, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_impossible_shapes_are_refused():
    for changes in ({"filters": ()}, {"filters": (0,)}, {"features": 0}, {"dropout": 1.0}):
        with pytest.raises(ConfigError):
            DiscriminatorConfig(vocab_size=9, **changes)
    with pytest.raises(ConfigError):
        LatentGanConfig(latent=0)


def test_listings_count_the_matrix_products():
    from tickwise.profiling.program import list_program

    module = Discriminator(DiscriminatorConfig(vocab_size=9, width=6, features=5, filters=(2,))).initialise(0).eval()
    program = list_program(module, *module.example_inputs(3, 8))
    assert program.flops == 2 * 3 * (7 * 12 * 5 + 5 * 10 + 5)
