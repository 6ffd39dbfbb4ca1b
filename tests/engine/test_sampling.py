import numpy
import pytest
import torch

from tickwise.core.errors import NumericsError
from tickwise.engine import sampling
from tickwise.engine.sampling import candidates, penalise_repetition, row_generators, sample
from tickwise.engine.settings import GenerationSettings


def distribution(logits, **settings):
    """Probabilities (B, V) that the sampler draws from."""
    logits_BV = torch.as_tensor(logits)
    weights, ids = candidates(logits_BV, GenerationSettings(**settings))
    weights = weights / weights.sum(-1, keepdim=True)
    return weights if ids is None else torch.zeros_like(logits_BV.float()).scatter_(-1, ids, weights)


PROBABILITIES = torch.tensor([[0.5, 0.25, 0.15, 0.1]])
LOGITS = PROBABILITIES.log()


def test_temperature_raises_probabilities_to_its_inverse():
    expected = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    torch.testing.assert_close(distribution(LOGITS, temperature=0.5), expected)


def test_a_temperature_near_zero_is_greedy_without_overflow():
    assert distribution(LOGITS * 1e4, temperature=1e-30).tolist() == [[1, 0, 0, 0]]


def test_top_k_keeps_the_k_most_likely():
    torch.testing.assert_close(distribution(LOGITS, top_k=2), torch.tensor([[2 / 3, 1 / 3, 0, 0]]))


@pytest.mark.parametrize(("top_p", "kept"), [(0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.99, 4), (1e-9, 1)])
def test_top_p_keeps_the_smallest_set_that_holds_it(top_p, kept):
    assert int((distribution(LOGITS, top_p=top_p) > 0).sum()) == kept


@pytest.mark.parametrize(("min_p", "kept"), [(0.0, 4), (0.25, 3), (0.4, 2), (1.0, 1)])
def test_min_p_keeps_what_is_likely_enough_beside_the_best(min_p, kept):
    assert int((distribution(LOGITS, min_p=min_p) > 0).sum()) == kept


def test_repetition_penalty_moves_seen_tokens_down_whatever_their_sign():
    logits = torch.tensor([[2.0, -2.0, 1.0]])
    seen = torch.tensor([[True, True, False]])
    assert penalise_repetition(logits, seen, 2.0).tolist() == [[1.0, -4.0, 1.0]]


def test_draws_follow_the_distribution():
    n = 40_000
    ids = sample(LOGITS.expand(n, -1), GenerationSettings(top_k=3), row_generators(1, n))
    observed = torch.bincount(ids, minlength=4).double()
    expected = torch.tensor([0.5, 0.25, 0.15], dtype=torch.float64) / 0.9 * n
    assert observed[3] == 0
    chi_squared = ((observed[:3] - expected) ** 2 / expected).sum()
    assert chi_squared < 13.8  # the 99.9 % quantile with two degrees of freedom


class _FixedUniform:
    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


@pytest.mark.parametrize(("uniform", "expected"), [(0.0, 1), (numpy.nextafter(1.0, 0.0), 2)])
def test_extreme_uniform_numbers_never_pick_a_token_that_was_ruled_out(uniform, expected):
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    assert sample(logits, GenerationSettings(), [_FixedUniform(uniform)]).tolist() == [expected]


def test_the_nucleus_shortcut_for_large_vocabularies_equals_a_full_sort(monkeypatch):
    logits = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)) * 4
    short = distribution(logits, top_p=0.9)
    monkeypatch.setattr(sampling, "_NUCLEUS_CANDIDATES", 5000)
    full = distribution(logits, top_p=0.9)
    assert int((full > 0).sum(-1).max()) < 256
    torch.testing.assert_close(short, full)


def test_the_nucleus_shortcut_falls_back_when_the_distribution_is_flat():
    assert int((distribution(torch.zeros(1, 5000), top_p=0.9) > 0).sum()) == pytest.approx(4500, abs=2)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_are_an_error_not_a_token(temperature, bad):
    logits = torch.tensor([[0.0, bad, 1.0]])
    with pytest.raises(NumericsError):
        sample(logits, GenerationSettings(temperature=temperature), row_generators(0, 1))


def test_a_row_draws_the_same_whatever_rows_are_beside_it():
    settings = GenerationSettings(temperature=1.5)
    alone = [sample(LOGITS, settings, [row_generators(5, 3)[i]]).item() for i in range(3)]
    assert sample(LOGITS.expand(3, -1), settings, row_generators(5, 3)).tolist() == alone


@pytest.mark.parametrize(
    "settings",
    [{"top_k": 7}, {"top_p": 0.7}, {"min_p": 0.2}, {"temperature": 0.6, "top_k": 20, "top_p": 0.8, "min_p": 0.05}],
)
def test_equals_the_logits_processors_of_transformers(settings):
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(2)) * 2
    expected = logits
    if "temperature" in settings:
        expected = warpers.TemperatureLogitsWarper(settings["temperature"])(None, expected)
    if "top_k" in settings:
        expected = warpers.TopKLogitsWarper(settings["top_k"])(None, expected)
    if "top_p" in settings:
        expected = warpers.TopPLogitsWarper(settings["top_p"])(None, expected)
    if "min_p" in settings:
        expected = warpers.MinPLogitsWarper(settings["min_p"])(None, expected)
    torch.testing.assert_close(distribution(logits, **settings), expected.softmax(-1))


def test_repetition_penalty_equals_transformers():
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(2, 20, generator=torch.Generator().manual_seed(3))
    history = torch.tensor([[1, 5, 5], [7, 0, 19]])
    seen = torch.zeros(2, 20, dtype=torch.bool).scatter_(1, history, True)
    expected = warpers.RepetitionPenaltyLogitsProcessor(1.7)(history, logits.clone())
    torch.testing.assert_close(penalise_repetition(logits, seen, 1.7), expected)
