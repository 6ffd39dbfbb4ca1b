"""Classifiers of bags: what they compute, and what quantising changes."""

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.models.bag import Bag, BagConfig, product_quantise

LABELS = ("a", "b", "c")


def bag(**options):
    torch.manual_seed(0)
    module = Bag(BagConfig(labels=LABELS, n_features=50, **options)).initialise(3)
    with torch.no_grad():
        module.features.normal_()
        module.bias.normal_()
        if options.get("hidden"):
            module.out.weight.normal_()
    return module.eval()


ROWS, OFFSETS = torch.tensor([1, 4, 4, 9, 30]), torch.tensor([0, 2, 2])
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, -1.0, 3.0])


def dense():
    x_BK = torch.zeros(3, 50)
    for i, (row, weight) in enumerate(zip(ROWS, WEIGHTS, strict=True)):
        x_BK[0 if i < 2 else 2, row] += weight
    return x_BK


def test_the_linear_part_is_a_product_with_the_bag():
    module = bag()
    torch.testing.assert_close(module(ROWS, WEIGHTS, OFFSETS), dense() @ module.features + module.bias)
    assert torch.equal(module(ROWS, WEIGHTS, OFFSETS)[1], module.bias)  # an empty text


def test_the_hidden_layer_stands_beside_it():
    module = bag(width=8, hidden=5)
    summed = dense() @ module.features
    hidden = torch.relu(module.hidden(summed[:, 3:]))
    expected = summed[:, :3] + module.bias + hidden @ module.out.weight.T
    torch.testing.assert_close(module(ROWS, WEIGHTS, OFFSETS), expected)


def test_training_starts_at_no_opinion_and_the_same_for_a_seed():
    fresh = [Bag(BagConfig(labels=LABELS, n_features=9, width=4, hidden=4)).initialise(seed) for seed in (1, 1, 2)]
    assert torch.equal(fresh[0](*(torch.tensor(x) for x in ([1, 2], [1.0, 1.0], [0]))), torch.zeros(1, 3))
    assert torch.equal(fresh[0].features, fresh[1].features)
    assert not torch.equal(fresh[0].features, fresh[2].features)


@pytest.mark.parametrize(("width", "code_bytes"), [(0, 1), (0, 3), (5, 2)])
def test_a_quantised_bag_computes_with_the_nearest_centroids(width, code_bytes):
    module = bag(width=width, hidden=4 if width else 0)
    codes, codebooks = product_quantise(module.features.detach(), code_bytes)
    small = Bag(BagConfig(labels=LABELS, n_features=50, width=width, hidden=4 if width else 0, code_bytes=code_bytes))
    state = {name: tensor for name, tensor in module.state_dict().items() if name != "features"}
    small.load_state_dict(state | {"codes": codes, "codebooks": codebooks})
    restored = torch.cat([codebooks[m][codes[:, m].long()] for m in range(code_bytes)], dim=1)
    module.features.data.copy_(restored)
    torch.testing.assert_close(small.eval()(ROWS, WEIGHTS, OFFSETS), module(ROWS, WEIGHTS, OFFSETS))


def test_quantising_loses_little():
    torch.manual_seed(1)
    centres = torch.randn(40, 4)
    rows = centres[torch.randint(40, (3000,))] + 0.01 * torch.randn(3000, 4)
    codes, codebooks = product_quantise(rows, 1)
    error = (codebooks[0][codes[:, 0].long()] - rows).square().sum() / rows.square().sum()
    assert error < 1e-3
    again = product_quantise(rows, 1)
    assert torch.equal(codes, again[0])


@pytest.mark.parametrize(("options", "message"), [
    ({"labels": ("a",)}, "at least two"), ({"labels": ("a", "a")}, "all different"), ({"n_features": 0}, "n_features"),
    ({"width": 3}, "both 0 or both"), ({"code_bytes": 2}, "does not divide"), ({"positive": "d"}, "none of the labels"),
    ({"temperature": 0.0}, "positive"), ({"dropout": 1.0}, "dropout"),
])
def test_contradictions_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        BagConfig(**({"labels": LABELS, "n_features": 5} | options))
