"""The two games: the policy gradient's sign, a generator that learns what is wanted, resuming bit for bit."""

import pytest
import torch

from tickwise.core.errors import CheckpointError, ConfigError, NumericsError
from tickwise.models.gan import Discriminator, DiscriminatorConfig, LatentGan, LatentGanConfig
from tickwise.models.recurrent import Recurrent, RecurrentConfig
from tickwise.training.adversarial import (
    AdversarialOptions,
    LatentGame,
    Played,
    SeqGan,
    game_settings,
    policy_loss,
    resume_game,
    save_game,
)


def seq_gan(**changes):
    torch.manual_seed(0)
    options = {"steps": 4, "batch_size": 16, "rollouts": 2, "discriminator_first": 3, "discriminator_steps": 2,
               "lr": 0.01, **changes}
    generator = Recurrent(RecurrentConfig(vocab_size=6, width=8, hidden=12, n_layers=1)).initialise(0)
    discriminator = Discriminator(DiscriminatorConfig(vocab_size=6, width=6, features=4)).initialise(0)
    real = torch.tensor([[1, 2, 3, 0, 0], [1, 2, 0, 0, 0]]).repeat(20, 1).to(torch.int32)
    return SeqGan(generator, discriminator, real, first_id=0, eos_id=0, options=AdversarialOptions(**options))


def play(game, until=None):
    while game.step < (game.options.steps if until is None else until):
        game.move()


def test_words_with_more_reward_than_the_others_become_likelier():
    log_p = torch.zeros(4, 2, requires_grad=True)
    rewards = torch.tensor([[1.0, 0.5], [0.0, 0.5], [0.0, 0.5], [0.0, 0.5]])
    policy_loss(log_p, rewards, torch.ones(4, 2, dtype=torch.bool)).backward()
    assert log_p.grad[0, 0] < 0  # going down the gradient makes it likelier
    assert (log_p.grad[1:, 0] > 0).all()
    assert (log_p.grad[:, 1] == 0).all()


def test_without_a_baseline_every_rewarded_word_becomes_likelier():
    log_p = torch.zeros(4, 2, requires_grad=True)
    rewards = torch.tensor([[1.0, 0.5], [0.0, 0.5], [0.0, 0.5], [0.5, 0.5]])
    policy_loss(log_p, rewards, torch.ones(4, 2, dtype=torch.bool), "none").backward()
    assert torch.equal(log_p.grad, -rewards / 8)


def test_what_stands_behind_the_end_has_no_gradient():
    log_p = torch.zeros(2, 2, requires_grad=True)
    inside = torch.tensor([[True, True], [True, False]])
    policy_loss(log_p, torch.tensor([[1.0, 0.3], [0.0, 9.0]]), inside).backward()
    assert log_p.grad[:, 1].tolist() == [0.0, 0.0]


def test_the_policy_gradient_finds_what_a_fixed_judge_wants():
    game = seq_gan(steps=60, discriminator_steps=0, discriminator_first=0, lr=0.03, batch_size=32)
    wanted = 4

    class Judge(torch.nn.Module):
        def forward(self, ids_BT):
            return ((ids_BT == wanted).float().mean(1) - 0.3) * 20

    game.discriminator = Judge()
    before = (game.written(400) == wanted).float().mean()
    play(game)
    assert (game.written(400) == wanted).float().mean() > before + 0.3


def test_a_discriminator_learns_to_tell_and_its_rewards_say_so():
    game = seq_gan()
    for _ in range(120):
        figures = game.train_discriminator()
    assert figures["discriminator_loss"] < 0.3
    ids_BT = torch.tensor([[1, 2, 3, 0, 0], [5, 5, 4, 5, 0]])
    rewards = game.rewards(ids_BT)
    assert rewards.shape == (2, 5)
    assert rewards[0, -1] > rewards[1, -1] + 0.3


def test_maximum_likelihood_beside_the_game_raises_the_real_sequences():
    game = seq_gan(steps=30, likelihood=1.0)
    real = game.real[:2].long()
    before = game.likelihood_loss(real).item()
    play(game)
    assert game.likelihood_loss(real).item() < 0.5 * before


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("at", ["warming up", "step 2"])
def test_a_resumed_game_of_sentences_goes_on_bit_for_bit(tmp_path, at):
    whole, stopped = seq_gan(), seq_gan()
    play(whole)
    torch.manual_seed(0)
    stopped = seq_gan()
    if at == "warming up":
        stopped.move(), stopped.move()
    else:
        play(stopped, until=2)
    assert stopped.warms_up == (at == "warming up")
    save_game(tmp_path, stopped, {"seed": 0}, played=Played(2.5, {"reward": 0.5}))
    torch.rand(7)
    resumed = seq_gan()
    assert resume_game(tmp_path, resumed, {"seed": 0}) == Played(2.5, {"reward": 0.5})
    play(resumed)
    for name, value in weights(whole.generator).items():
        assert torch.equal(value, weights(resumed.generator)[name])
    with pytest.raises(CheckpointError, match="seed was 0"):
        resume_game(tmp_path, seq_gan(), {"seed": 1})


def test_a_game_that_was_saved_before_there_were_judges_goes_on(tmp_path):
    game = seq_gan()
    play(game, until=1)
    settings = game_settings(game.options)
    save_game(tmp_path, game, {name: value for name, value in settings.items() if name != "judge"})
    assert settings["discriminator_weight_decay"] == 0.3
    assert resume_game(tmp_path, seq_gan(), settings) is not None


@pytest.mark.parametrize("module", ["generator", "discriminator"])
def test_a_gradient_that_is_not_finite_ends_the_game_and_changes_nothing(module):
    game = seq_gan(discriminator_first=0)
    with torch.no_grad():
        next(getattr(game, module).parameters())[:] = torch.nan
    before = {name: weights(getattr(game, name)) for name in ("generator", "discriminator")}
    with pytest.raises(NumericsError, match="gradient of the generator is not finite"):
        play(game)
    for name, values in before.items():
        assert all(torch.equal(values[key].nan_to_num(7), value.nan_to_num(7))
                   for key, value in weights(getattr(game, name)).items())


def latent_game(seed=0):
    torch.manual_seed(seed)
    angle = torch.rand(2000) * 6.2832
    ring = torch.stack((angle.cos() * 3 + 5, angle.sin() * 3), 1) + 0.05 * torch.randn(2000, 2)
    gan = LatentGan(LatentGanConfig(latent=2, noise=4, hidden=32, n_layers=2)).initialise(0)
    return LatentGame(gan, ring, batch_size=64, lr=3e-3, critic_steps=3, penalty=1.0)


def test_the_latent_game_finds_a_ring():
    game = latent_game()

    def distance():
        with torch.no_grad():
            z = game.gan(torch.randn(500, 4, generator=torch.Generator().manual_seed(1)))
        return ((z - torch.tensor([5.0, 0.0])).norm(dim=1) - 3).abs().mean(), z.std(0)

    before, _ = distance()
    for _ in range(200):
        game.train_generator()
    after, deviation = distance()
    assert after < 0.6 * before
    assert ((deviation - 3 / 2**0.5).abs() < 0.6).all()


def test_a_resumed_latent_game_goes_on_bit_for_bit(tmp_path):
    whole = latent_game()
    for _ in range(5):
        whole.train_generator()
        if whole.step == 3:
            save_game(tmp_path, whole, {})
    resumed = latent_game()
    assert resume_game(tmp_path, resumed, {}) == Played()
    for _ in range(2):
        resumed.train_generator()
    for name, value in weights(whole.gan).items():
        assert torch.equal(value, weights(resumed.gan)[name])


def test_bad_settings_are_refused():
    for changes in ({"rollouts": 0}, {"lr": 0.0}, {"steps": -1}, {"likelihood": -1.0}, {"max_seconds": 0.0}):
        with pytest.raises(ConfigError, match="--adversarial"):
            AdversarialOptions(**changes)
