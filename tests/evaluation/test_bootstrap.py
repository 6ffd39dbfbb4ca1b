import numpy
import pytest

from tickwise.evaluation.bootstrap import interval, resample_sums


def test_the_interval_of_a_mean_agrees_with_the_normal_approximation():
    values = numpy.random.default_rng(0).normal(5.0, 2.0, size=400)
    blocks = numpy.stack([values, numpy.ones(400)], axis=1)
    sums = resample_sums(blocks, samples=4000, seed=1)
    found = interval(sums[:, 0] / sums[:, 1])
    stderr = values.std() / 20
    assert found.stderr == pytest.approx(stderr, rel=0.05)
    assert found.low == pytest.approx(values.mean() - 1.96 * stderr, abs=0.2 * stderr)
    assert found.high == pytest.approx(values.mean() + 1.96 * stderr, abs=0.2 * stderr)


def test_about_95_of_100_intervals_hold_the_true_mean():
    generator = numpy.random.default_rng(2)
    held = 0
    for trial in range(300):
        sums = resample_sums(generator.exponential(1.0, size=(100, 1)), samples=300, seed=trial)
        found = interval(sums[:, 0] / 100)
        held += found.low <= 1.0 <= found.high
    assert 0.89 < held / 300 < 0.98


def test_every_resample_draws_as_many_blocks_as_there_are():
    sums = resample_sums(numpy.ones((37, 1)), samples=50, seed=0)
    assert (sums == 37).all()


def test_columns_of_a_block_stay_together():
    lengths = numpy.arange(1.0, 51.0)
    sums = resample_sums(numpy.stack([3 * lengths, lengths], axis=1), samples=100, seed=0)
    assert sums[:, 0] / sums[:, 1] == pytest.approx(numpy.full(100, 3.0))


def test_memory_stays_bounded_by_drawing_in_parts(monkeypatch):
    blocks = numpy.random.default_rng(0).normal(size=(20, 2))
    monkeypatch.setattr("tickwise.evaluation.bootstrap._DRAWS_AT_ONCE", 60)
    parts = resample_sums(blocks, samples=100, seed=3)
    assert parts.shape == (100, 2)
    assert len(numpy.unique(parts[:, 0])) > 90


def test_same_seed_same_resamples():
    blocks = numpy.random.default_rng(0).normal(size=(20, 1))
    assert (resample_sums(blocks, 10, seed=3) == resample_sums(blocks, 10, seed=3)).all()
    assert (resample_sums(blocks, 10, seed=3) != resample_sums(blocks, 10, seed=4)).any()
