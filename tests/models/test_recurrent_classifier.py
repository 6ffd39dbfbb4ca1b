"""The recurrent classifier: padding changes nothing, masks hold, shapes and mistakes."""

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.models.recurrent_classifier import RecurrentClassifier, RecurrentClassifierConfig


def build(**options):
    config = RecurrentClassifierConfig(labels=("a", "b", "c"), feature_sizes=(20, 8), feature_widths=(6, 4),
                                       n_characters=9, hidden=5, **options)
    module = RecurrentClassifier(config).initialise(1)
    torch.nn.init.normal_(module.head.weight, generator=torch.Generator().manual_seed(2))
    return module


def batch(n_words=4):
    generator = torch.Generator().manual_seed(3)
    return (torch.randint(1, 8, (2, n_words, 2), generator=generator),
            torch.randint(1, 9, (2, n_words, 5), generator=generator), torch.tensor([n_words, n_words - 2]))


@pytest.mark.parametrize("options", [{}, {"kind": "gru", "n_layers": 2}])
def test_padding_changes_nothing(options):
    module = build(**options).eval()
    features, characters, lengths = batch()
    together = module(features, characters, lengths)
    short = module(features[1:, :2], characters[1:, :2], lengths[1:])
    assert torch.allclose(together[1], short[0], atol=1e-6)
    longer = [torch.cat((x, torch.zeros_like(x)), 1) for x in (features, characters)]
    assert torch.allclose(module(*longer, lengths), together, atol=1e-6)


def test_a_fresh_head_prefers_no_class_and_every_parameter_learns():
    module = RecurrentClassifier(build().config).initialise(1)
    assert (module(*batch()) == 0).all()
    module = build().train()
    torch.nn.functional.cross_entropy(module(*batch()), torch.tensor([0, 2])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("options", [{}, {"n_layers": 2}])
def test_fresh_recurrent_layers_start_as_they_do_anywhere(options):
    """Open forget gates, and each gate's matrix by its own fan-in, not by that of all gates stacked."""
    config = RecurrentClassifierConfig(labels=("a", "b"), feature_sizes=(20,), feature_widths=(64,), hidden=64,
                                       **options)
    module = RecurrentClassifier(config).initialise(1)
    for cell in [*module.layers.onward, *module.layers.backward_in_time]:
        bias = cell.from_input.bias.view(4, 64)
        assert (bias[2] == 1).all()
        assert (bias[[0, 1, 3]] == 0).all()
        for linear in (cell.from_input, cell.from_state):
            assert linear.weight.std().item() == pytest.approx(linear.in_features**-0.5, rel=0.03)
    assert (module.head.weight == 0).all()
    assert (module.head.bias == 0).all()


def test_frozen_words_get_no_gradient():
    module = build(frozen=True, dropout=0.0)
    module(*batch()).sum().backward()
    assert module.embeddings[0].weight.grad is None
    assert module.embeddings[1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("options", "message"), [
    ({"hidden": 0}, "hidden: must be positive"), ({"dropout": 1.0}, "dropout"), ({"labels": ("a",)}, "at least two"),
    ({"positive": "z"}, "none of the labels"), ({"feature_widths": (1, 2)}, "one number for each"),
])
def test_mistakes(options, message):
    with pytest.raises(ConfigError, match=message):
        RecurrentClassifierConfig(**{"labels": ("a", "b"), "feature_sizes": (5,), "feature_widths": (3,), **options})
