"""Counts of pairs, mutual information and its factors, on matrices small enough to work out."""

import math

import numpy
import pytest
import torch

from tickwise.training.cooccurrence import (
    SparseCounts,
    beside,
    pair_counts,
    positive_pmi,
    transposed,
    truncated_svd,
    window_counts,
)


def dense(matrix):
    full = numpy.zeros(matrix.shape)
    full[matrix.rows, matrix.columns] = matrix.values
    return full


def from_dense(full):
    rows, columns = numpy.nonzero(full)
    return SparseCounts(rows, columns, full[rows, columns].astype(float), full.shape)


WORDS = numpy.array([0, 1, 2, 0, 1, -1, 2])


def test_pairs_at_a_distance():
    assert dense(pair_counts(WORDS, 3, 1)).tolist() == [[0, 2, 0], [0, 0, 1], [1, 0, 0]]
    assert dense(pair_counts(WORDS, 3, 2)).tolist() == [[0, 0, 1], [1, 0, 1], [0, 1, 0]]


def test_a_window_counts_both_sides_and_less_further_away():
    one = dense(pair_counts(WORDS, 3, 1))
    two = dense(pair_counts(WORDS, 3, 2))
    expected = one + one.T + (two + two.T) / 2
    assert dense(window_counts(WORDS, 3, 2)).tolist() == expected.tolist()


def test_positive_pmi_by_hand():
    counts = from_dense(numpy.array([[4.0, 1.0], [1.0, 2.0]]))
    # P(0, 0) = 4/8, rows 5/8 and 3/8, columns the same: log (4 · 8 / 25) and log (2 · 8 / 9); 1 · 8 / 15 is negative.
    assert dense(positive_pmi(counts, smoothing=1.0)) == pytest.approx(
        numpy.array([[math.log(32 / 25), 0], [0, math.log(16 / 9)]]))
    shifted = dense(positive_pmi(counts, shift=1.5, smoothing=1.0))
    assert shifted == pytest.approx(numpy.array([[0, 0], [0, math.log(16 / 9 / 1.5)]]))
    share = 3**0.75 / (3**0.75 + 5**0.75)
    assert dense(positive_pmi(counts))[1, 1] == pytest.approx(math.log(2 / 3 / share))


def test_matrices_beside_each_other_and_turned():
    a, b = numpy.array([[1.0, 0], [2, 3]]), numpy.array([[0, 4.0, 5], [6, 0, 0]])
    assert dense(beside([from_dense(a), from_dense(b)])).tolist() == numpy.hstack([a, b]).tolist()
    assert dense(transposed(from_dense(b))).tolist() == b.T.tolist()


def test_factors_are_torch_s_svd():
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(40, 6, generator=generator) @ torch.randn(6, 30, generator=generator)
    left, values, right = truncated_svd(from_dense(full.numpy()), 4)
    expected = torch.linalg.svd(full)
    torch.testing.assert_close(values, expected.S[:4], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((left @ left.T), expected.U[:, :4] @ expected.U[:, :4].T, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close((right @ right.T), expected.Vh[:4].T @ expected.Vh[:4], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(left * values @ right.T, expected.U[:, :4] * expected.S[:4] @ expected.Vh[:4],
                               rtol=1e-3, atol=1e-3)


def test_a_slowly_falling_spectrum_keeps_nearly_all_of_its_weight():
    full = torch.rand(120, 200, generator=torch.Generator().manual_seed(1))
    _, values, _ = truncated_svd(from_dense(full.numpy()), 10)
    best = torch.linalg.svdvals(full)[:10]
    assert values[0] == pytest.approx(float(best[0]), rel=1e-4)
    assert values.square()[1:].sum() / best.square()[1:].sum() > 0.98


def test_the_rank_ends_at_the_smaller_side():
    assert truncated_svd(from_dense(numpy.ones((5, 3))), 10)[0].shape == (5, 3)
