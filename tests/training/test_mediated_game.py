"""A generator and a language model that judges it."""

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.models.recurrent import Recurrent, RecurrentConfig
from tickwise.training.adversarial import AdversarialOptions, resume_game, save_game
from tickwise.training.gan import DiscriminatorOptions, GanTrainConfig
from tickwise.training.mediated_game import MediatedGame, divergence

REAL = torch.tensor([[1, 2, 3, 0, 0], [1, 2, 4, 0, 0], [2, 3, 1, 2, 0]]).repeat(20, 1)


def mediated(**options):
    torch.manual_seed(0)
    generator, mediator = (Recurrent(RecurrentConfig(vocab_size=7, width=8, hidden=8, n_layers=1)).initialise(1)
                           for _ in range(2))
    return MediatedGame(generator, mediator, REAL, first_id=0, eos_id=0, options=AdversarialOptions(
        judge="language-model", **{"steps": 3, "discriminator_first": 2, "discriminator_steps": 1, "lr": 0.01,
                                   "discriminator_lr": 0.01} | options))


def play(game, until=None):
    rows = []
    while game.step < (game.options.steps if until is None else until):
        rows.append(game.move())
    return rows


def test_the_loss_is_the_divergence_of_what_is_expected():
    p, m = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    kl = torch.nn.functional.kl_div(m.log(), p, reduction="sum")
    found = divergence(torch.stack([p, m, p]).log() + 3, torch.stack([m, m, m]).log())
    assert found.item() == pytest.approx(2 * kl.item())


def test_places_a_few_at_once_give_the_same_gradients(monkeypatch):
    gradients = []
    for at_once in (1 << 24, 7 * 3):
        monkeypatch.setattr("tickwise.training.mediated_game._LOGITS_AT_ONCE", at_once)
        game = mediated()
        hidden, other = torch.randn(2, 11, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        distance = game._distance(hidden, other)
        gradients.append([distance, *torch.autograd.grad(distance, (hidden, game.generator.lm_head.weight))])
    for one, several in zip(*gradients, strict=True):
        torch.testing.assert_close(one, several)


def test_the_mediator_stands_between_real_and_written_and_the_generator_comes_closer():
    game = mediated(steps=150, discriminator_first=100)
    real = REAL[:3]
    before = game.likelihood_loss(real).item()
    rows = play(game)
    assert game.likelihood_loss(real).item() < before - 0.5
    distances = [row["distance"] for row in rows if "distance" in row]
    assert sum(distances[-20:]) < 0.5 * sum(distances[:20])
    assert all(torch.equal(a, b) is False for a, b in zip(
        game.generator.parameters(), game.mediator.parameters(), strict=True) if a.numel() > 8), "two models"


def test_a_resumed_game_goes_on_bit_for_bit(tmp_path):
    whole, stopped = mediated(), mediated()
    play(whole)
    torch.manual_seed(0)
    stopped = mediated()
    play(stopped, until=2)
    save_game(tmp_path, stopped, {"seed": 0})
    torch.rand(7)
    resumed = mediated()
    resume_game(tmp_path, resumed, {"seed": 0})
    play(resumed)
    for mine, theirs in ((whole.generator, resumed.generator), (whole.mediator, resumed.mediator)):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_what_has_no_effect_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--adversarial.rollouts: has no effect on --adversarial.judge language"):
        AdversarialOptions(judge="language-model", rollouts=8)
    with pytest.raises(ConfigError, match=r"--adversarial.judge: convolutions or language-model, got 'lm'"):
        AdversarialOptions(judge="lm")
    with pytest.raises(ConfigError, match=r"--adversarial.baseline: has no effect"):
        AdversarialOptions(judge="language-model", baseline="none")
    with pytest.raises(ConfigError, match=r"--discriminator.width: has no effect on --adversarial.judge language"):
        GanTrainConfig(data=tmp_path, out=tmp_path, discriminator=DiscriminatorOptions(width=8),
                       adversarial=AdversarialOptions(judge="language-model"))
    assert AdversarialOptions(judge="language-model").decay == 0
    assert AdversarialOptions().decay == 0.3
    assert AdversarialOptions(judge="language-model", discriminator_weight_decay=0.1).decay == 0.1
