"""The recurrent family: its shapes, its head, its dropouts, and the loss of long texts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage
from tickwise.models.recurrent import Recurrent, RecurrentConfig, stream_losses
from tickwise.profiling.program import list_program

TINY = {"vocab_size": 50, "width": 12, "hidden": 20, "n_layers": 2}
DROPOUTS = ("word_dropout", "input_dropout", "dropout", "output_dropout", "weight_drop")


def tiny(**changes):
    return Recurrent(RecurrentConfig(**{**TINY, **changes})).initialise(0)


@pytest.mark.parametrize("changes", [
    {}, {"cell": "gru"}, {"cell": "rnn", "hidden": 12}, {"tie_embeddings": False}, {"cutoffs": (10, 25)},
])
def test_logits_of_a_text_in_pieces_are_those_of_the_whole(changes):
    module = tiny(**changes).eval()
    ids = torch.randint(0, 50, (3, 8))
    whole, _ = module(ids)
    assert whole.shape == (3, 8, 50)
    first, state = module(ids[:, :5])
    second, _ = module(ids[:, 5:], state)
    torch.testing.assert_close(torch.cat((first, second), 1), whole)
    torch.testing.assert_close(module.logits(module.hidden_states(ids)), whole)


@pytest.mark.parametrize("changes", [{}, {"vocab_size": 3000}, {"cutoffs": (10, 25)}])
def test_the_loss_is_the_cross_entropy_of_the_logits(changes):
    module = tiny(**changes)
    hidden, targets = torch.randn(30, 12), torch.randint(0, 50, (30,))
    torch.testing.assert_close(module.loss(hidden, targets), F.cross_entropy(module.logits(hidden), targets))


def test_a_text_that_is_read_in_parts_has_the_hidden_states_of_the_whole():
    module, ids = tiny().eval(), torch.randint(0, 50, (2, 2500))
    whole = module.hidden_states(ids)
    with torch.no_grad():
        torch.testing.assert_close(module.hidden_states(ids), whole)


@pytest.mark.parametrize("name", DROPOUTS)
def test_each_dropout_acts_while_training_only(name):
    module, ids = tiny(**{name: 0.5}), torch.arange(40).view(2, 20)
    assert not torch.equal(module(ids)[0], module(ids)[0])
    module.eval()
    torch.testing.assert_close(module(ids)[0], tiny().eval()(ids)[0])


def test_a_dropped_word_is_dropped_wherever_it_occurs():
    torch.manual_seed(0)
    module = tiny(word_dropout=0.5, cell="rnn", n_layers=1)
    seen = []
    hook = module.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(torch.arange(20).repeat(2, 2))
    hook.remove()
    silent = (seen[0] == 0).all(-1)
    assert silent.any()
    assert not silent.all()
    assert torch.equal(silent[:, :20], silent[:, 20:])
    assert torch.equal(silent[0], silent[1])


def test_losses_of_a_long_text_hardly_depend_on_the_number_of_streams():
    module = tiny().eval()
    tokens = np.random.default_rng(0).integers(0, 50, 1000)
    ids = torch.from_numpy(tokens)[None]
    expected = F.cross_entropy(module(ids[:, :-1])[0][0], ids[0, 1:], reduction="none")
    one = stream_losses(module, tokens)
    torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-4)
    # Parts other than the first begin with a little of the text before them.
    many = stream_losses(module, tokens, 7)
    assert many.shape == one.shape
    torch.testing.assert_close(many[143:], one[143:], atol=0.02, rtol=0.01)
    torch.testing.assert_close(many.mean(), one.mean(), atol=0.01, rtol=0.01)
    # The first part has nothing before it, as in one stream.
    torch.testing.assert_close(many[:143], one[:143], atol=1e-5, rtol=1e-5)


def test_some_losses_of_a_long_text_are_spread_over_it():
    module = tiny().eval()
    tokens = np.random.default_rng(0).integers(0, 50, 1000)
    every = stream_losses(module, tokens, 10).view(-1)
    some = stream_losses(module, tokens, 10, most=200)
    begins = torch.arange(10)[:, None] * 100 + torch.arange(20)
    torch.testing.assert_close(some, every[begins[begins < 999]])
    assert stream_losses(module, tokens, 10, most=10**6).shape == every.shape


def test_its_listing_counts_every_product():
    module = tiny().eval().requires_grad_(False)
    program = list_program(module, torch.zeros(3, 4, dtype=torch.long))
    flops = {stage: cost.flops for stage, cost in program.by_stage().items()}
    layers = 4 * 20 * (12 + 20) + 4 * 20 * (20 + 20)
    assert flops[Stage.RECURRENT] == 2 * 3 * 4 * layers
    assert flops[Stage.HEAD] == 2 * 3 * 4 * (20 * 12 + 12 * 50)
    assert {i.layer for i in program.instructions if i.stage == Stage.RECURRENT} == {0, 1}


@pytest.mark.parametrize("changes", [{"hidden": 0}, {"dropout": 1.0}, {"cutoffs": (30, 10)}, {"cutoffs": (60,)}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        RecurrentConfig(**{**TINY, **changes})
