"""The best size for a budget, against a search that knows nothing of the law's algebra."""

import numpy
import pytest

from known_laws import LAW, losses_of
from tickwise.scaling.plan import best_model, expected_loss, optimal_size_interval, published_recipe, tokens_within
from tickwise.scaling.study import FittedLaw

_COEFFICIENTS = numpy.array([LAW[name] for name in ("E", "A", "B", "alpha", "beta")])
_LAW = FittedLaw(_COEFFICIENTS, _COEFFICIENTS * (1 + 0.01 * numpy.random.default_rng(1).standard_normal((200, 5))),
                 0.01 * numpy.random.default_rng(2).standard_normal(50), 1e20, 1e7, 1e10)
_SIZES = [int(size) for size in numpy.geomspace(1e6, 1e10, 150)]


def _lowest(budget: float, cost_of_inference: float = 0.0) -> int:
    losses = [losses_of(size, numpy.maximum((budget - cost_of_inference * size) / (6 * size), 1e-9)) for size in _SIZES]
    return int(numpy.argmin(losses))


@pytest.mark.parametrize("budget", [1e17, 1e19, 1e21])
def test_the_best_size_has_the_lowest_loss_of_all(budget):
    asked = []

    def cost(index):
        asked.append(index)
        return 6.0 * _SIZES[index]

    found = best_model(_LAW, _SIZES, cost, budget)
    assert found == _lowest(budget)
    assert len(asked) < 20, "each price may take seconds"
    size, (low, high) = optimal_size_interval(_LAW, budget)
    assert low < size < high
    assert _SIZES[found] == pytest.approx(size, rel=0.05)


def test_later_use_makes_a_smaller_model_best():
    """Sardana et al. 2024: 2·N FLOPs for each token of its life."""
    def with_use(tokens):
        return best_model(_LAW, _SIZES, lambda index: 6.0 * _SIZES[index], 1e20, tokens)

    assert with_use(1e11) < with_use(1e10) < with_use(0)
    assert with_use(1e11) == _lowest(1e20, 2e11)


@pytest.mark.parametrize("inference_tokens", [1e9, 1e11, 1e13])
def test_the_optimum_with_later_use_is_that_of_training_and_use_together(inference_tokens):
    size, (low, high) = optimal_size_interval(_LAW, 1e20, inference_tokens)
    assert _SIZES[_lowest(1e20, 2 * inference_tokens)] == pytest.approx(size, rel=0.04)
    assert low < size < high
    assert size < optimal_size_interval(_LAW, 1e20)[0]


def test_hardly_any_use_leaves_the_optimum_where_it_is():
    assert optimal_size_interval(_LAW, 1e20, 1.0)[0] == pytest.approx(optimal_size_interval(_LAW, 1e20)[0], rel=1e-5)


def test_a_budget_that_trains_nothing_has_no_best_size():
    assert best_model(_LAW, _SIZES, lambda index: 6.0 * _SIZES[index], 1e6) is None
    assert best_model(_LAW, _SIZES, lambda index: 6.0 * _SIZES[index], 1e18, 1e15) is None


def test_prices_that_grow_faster_than_the_size_make_a_smaller_model_best():
    plain = best_model(_LAW, _SIZES, lambda index: 6.0 * _SIZES[index], 1e19)
    dear = best_model(_LAW, _SIZES, lambda index: 6.0 * _SIZES[index] * (_SIZES[index] / 1e8) ** 0.5, 1e19)
    assert dear < plain


def test_tokens_pay_for_later_use_at_a_third():
    assert tokens_within(600.0, 6.0, 0.0) == 100
    assert tokens_within(600.0, 6.0, 30.0) == 90


def test_the_expected_loss_is_the_law_s_and_its_interval_holds_the_scatter():
    found = expected_loss(_LAW, 1e8, 2e9)
    assert found.loss == pytest.approx(losses_of(1e8, 2e9))
    low, high = found.interval
    assert low < found.loss * 0.985
    assert found.loss * 1.015 < high
    plain = FittedLaw(_COEFFICIENTS, numpy.zeros((0, 5)), _LAW.residuals, 1e20, 1e7, 1e10)
    assert expected_loss(plain, 1e8, 2e9).interval is None


def test_the_published_recipe_is_used_where_it_was_fitted():
    """Bi et al. 2024, figure 3: about 0.3 M to 9 M tokens and 1.5e-3 to 4e-4 at the compute of their models."""
    assert published_recipe(9e16) is None
    recipe = published_recipe(3e22)
    assert 5e6 < recipe.batch_tokens < 9e6
    assert 4e-4 < recipe.lr < 7e-4
