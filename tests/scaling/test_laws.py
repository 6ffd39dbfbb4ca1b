"""Each law's derivatives, and what it says in the limits that its paper describes."""

import numpy
import pytest

from tickwise.scaling.laws import DataConstrained, KaplanJoint, Parametric, parametric_loss

_N = numpy.geomspace(1e7, 1e10, 12)
_D = numpy.geomspace(1e11, 1e9, 12)
_BASE = numpy.array([1.8, 480.0, 2000.0, 0.35, 0.37])
_LAWS = [Parametric(numpy.log(_N), numpy.log(_D)), KaplanJoint(numpy.log(_N), numpy.log(_D)),
         DataConstrained(numpy.log(_N), numpy.log(_D), numpy.log(numpy.minimum(_D, 3e9)), _BASE)]


@pytest.mark.parametrize("law", _LAWS, ids=lambda law: type(law).__name__)
def test_derivatives_are_those_of_the_law(law):
    step = 1e-6
    for theta in law.starts(numpy.full(12, 3.0))[::17]:
        derivatives = law.log_losses(theta[None])[1]
        for index, derivative in enumerate(derivatives):
            above, below = theta[None].copy(), theta[None].copy()
            above[0, index] += step
            below[0, index] -= step
            measured = (law.log_losses(above)[0] - law.log_losses(below)[0]) / (2 * step)
            numpy.testing.assert_allclose(derivative, measured, atol=1e-7)


def test_inner_and_published_coefficients_say_the_same():
    law = Parametric(numpy.log(_N), numpy.log(_D))
    theta = law.starts(numpy.full(12, 3.0))[20:21]
    e, a, b, alpha, beta = law.coefficients(theta)[0]
    expected = numpy.log(e + a / _N**alpha + b / _D**beta)
    numpy.testing.assert_allclose(law.log_losses(theta)[0][0], expected)
    numpy.testing.assert_allclose(parametric_loss(law.coefficients(theta), _N, _D), numpy.exp(expected))


def test_kaplan_s_law_has_one_power_law_on_each_side():
    law = KaplanJoint(numpy.log(_N), numpy.log(_D))
    theta = law.starts(numpy.full(12, 3.0))[5:6]
    n_c, d_c, alpha_n, alpha_d = law.coefficients(theta)[0]
    expected = alpha_d * numpy.log((n_c / _N) ** (alpha_n / alpha_d) + d_c / _D)
    numpy.testing.assert_allclose(law.log_losses(theta)[0][0], expected)


def test_repeated_tokens_are_worth_less_than_new_ones_and_have_a_limit():
    """Muennighoff et al. 2023, equation 5: at most U + U·R*."""
    def loss(epochs):
        tokens = numpy.array([1e9 * epochs])
        law = DataConstrained(numpy.log([1e7]), numpy.log(tokens), numpy.log([1e9]), _BASE)
        theta = law.starts(numpy.array([3.0]))[:1]
        theta[0, 5:] = numpy.log([15.0, 5.0])
        return float(numpy.exp(law.log_losses(theta)[0][0, 0]))

    def plain(tokens):
        return float(parametric_loss(_BASE, 1e7, tokens))

    assert loss(1) == pytest.approx(plain(1e9))
    assert plain(4e9) < loss(4) < plain(1e9)
    assert loss(4) == pytest.approx(plain(4e9), rel=5e-3), "four epochs are almost as good as new data"
    assert loss(1e6) == pytest.approx(plain(16e9), rel=1e-6)
