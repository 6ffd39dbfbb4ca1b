"""Many small problems at once: smooth ones, kinks, and ones that cannot be started."""

import numpy

from tickwise.scaling.minimise import minimise


def test_every_start_of_a_curved_valley_ends_at_its_minimum():
    def rosenbrock(x, rows):
        first, second = x[:, 0], x[:, 1]
        value = (1 - first) ** 2 + 100 * (second - first**2) ** 2
        return value, numpy.stack([-2 * (1 - first) - 400 * first * (second - first**2), 200 * (second - first**2)], 1)

    starts = numpy.array([[-1.2, 1.0], [2.0, -1.0], [0.0, 0.0], [3.0, 3.0]])
    found = minimise(rosenbrock, starts)
    assert found.converged.all()
    numpy.testing.assert_allclose(found.points, 1.0, atol=1e-5)


def test_each_problem_has_its_own_objective():
    targets = numpy.array([[1.0, -2.0], [5.0, 0.5], [-3.0, 8.0]])

    def distance(x, rows):
        return ((x - targets[rows]) ** 2).sum(1), 2 * (x - targets[rows])

    numpy.testing.assert_allclose(minimise(distance, numpy.zeros((3, 2))).points, targets, atol=1e-6)


def test_a_sum_of_absolute_values_ends_at_the_median():
    values = numpy.array([1.0, 2.0, 7.0, 30.0, 31.0])

    def objective(x, rows):
        difference = x - values
        return numpy.abs(difference).sum(1), numpy.sign(difference).sum(1, keepdims=True)

    found = minimise(objective, numpy.array([[0.2], [50.0]]))
    numpy.testing.assert_allclose(found.points[:, 0], 7.0, atol=1e-3)


def test_a_start_without_a_finite_value_is_given_up():
    def objective(x, rows):
        with numpy.errstate(invalid="ignore"):
            return numpy.log(x[:, 0]) ** 2, 2 * numpy.log(x) / x

    found = minimise(objective, numpy.array([[-1.0], [3.0]]))
    assert found.values[0] == numpy.inf
    assert not found.converged[0]
    numpy.testing.assert_allclose(found.points[1], 1.0, atol=1e-5)
