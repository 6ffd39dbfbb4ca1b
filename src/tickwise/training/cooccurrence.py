"""Which words stand near which, as sparse matrices: counts, shifted positive pointwise mutual information, and their
factors (Levy & Goldberg 2014; randomised subspace iteration: Halko, Martinsson & Tropp 2011, algorithm 4.4).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

# Columns drawn beyond the rank that is asked for, and times that the matrix is applied to sharpen the subspace.
_OVERSAMPLED, _ITERATIONS = 16, 3


class SparseCounts(NamedTuple):
    """Entries of a matrix (n_rows, n_columns), in the order of their rows and columns."""

    rows: NDArray[numpy.int64]
    columns: NDArray[numpy.int64]
    values: NDArray[numpy.float64]
    shape: tuple[int, int]


def pair_counts(words: NDArray[Any], n_words: int, distance: int) -> SparseCounts:
    """How often word i stands ``distance`` before word j, at (i, j). Negative ids are places without a word. The end
    of a document is a word like others: pairs go over it."""
    before, after = words[:-distance].astype(numpy.int64), words[distance:].astype(numpy.int64)
    is_pair = (before >= 0) & (after >= 0)
    keys, counts = numpy.unique(before[is_pair] * n_words + after[is_pair], return_counts=True)
    return SparseCounts(keys // n_words, keys % n_words, counts.astype(numpy.float64), (n_words, n_words))


def window_counts(words: NDArray[Any], n_words: int, window: int) -> SparseCounts:
    """Symmetric counts of words at most ``window`` apart; a pair at distance d counts 1/d (GloVe, section 3)."""
    keys: NDArray[Any] = numpy.empty(0, dtype=numpy.int64)
    values: NDArray[Any] = numpy.empty(0)
    for distance in range(1, min(window, len(words) - 1) + 1):
        one = pair_counts(words, n_words, distance)
        both = numpy.concatenate([one.rows * n_words + one.columns, one.columns * n_words + one.rows])
        keys, place = numpy.unique(numpy.concatenate([keys, both]), return_inverse=True)
        added = numpy.concatenate([values, one.values / distance, one.values / distance])
        values = numpy.bincount(place, weights=added, minlength=len(keys))
    return SparseCounts(keys // n_words, keys % n_words, values, (n_words, n_words))


def positive_pmi(counts: SparseCounts, *, shift: float = 1.0, smoothing: float = 0.75) -> SparseCounts:
    """``max(0, log P(i, j) / (P(i) P(j)) - log shift)``, with the columns' probabilities raised to ``smoothing``
    (Levy, Goldberg & Dagan 2015, section 3). ``shift`` stands for the number of negative samples."""
    of_row = numpy.bincount(counts.rows, weights=counts.values, minlength=counts.shape[0])
    of_column = numpy.bincount(counts.columns, weights=counts.values, minlength=counts.shape[1]) ** smoothing
    share = of_column / max(of_column.sum(), 1e-300)
    pmi = numpy.log(counts.values / (of_row[counts.rows] * share[counts.columns])) - numpy.log(shift)
    kept = pmi > 0
    return SparseCounts(counts.rows[kept], counts.columns[kept], pmi[kept], counts.shape)


def beside(matrices: Iterable[SparseCounts]) -> SparseCounts:
    """The matrices, which have the same rows, side by side."""
    matrices = list(matrices)
    offsets = numpy.cumsum([0, *(m.shape[1] for m in matrices)])
    rows = numpy.concatenate([m.rows for m in matrices])
    columns = numpy.concatenate([m.columns + offset for m, offset in zip(matrices, offsets[:-1], strict=True)])
    values = numpy.concatenate([m.values for m in matrices])
    by_place = numpy.lexsort((columns, rows))
    return SparseCounts(rows[by_place], columns[by_place], values[by_place], (matrices[0].shape[0], int(offsets[-1])))


def transposed(matrix: SparseCounts) -> SparseCounts:
    by_place = numpy.lexsort((matrix.rows, matrix.columns))
    return SparseCounts(matrix.columns[by_place], matrix.rows[by_place], matrix.values[by_place], matrix.shape[::-1])


def as_tensor(matrix: SparseCounts) -> Tensor:
    """The matrix as a sparse float32 tensor."""
    places = torch.from_numpy(numpy.stack([matrix.rows, matrix.columns]))
    return torch.sparse_coo_tensor(places, torch.from_numpy(matrix.values).float(), matrix.shape,
                                   is_coalesced=True, check_invariants=False)


def truncated_svd(matrix: SparseCounts, rank: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The ``rank`` largest singular values and their vectors: U (n_rows, rank), S (rank,), V (n_columns, rank).

    The rank is cut to the smaller side of the matrix. Signs are such that each column of U sums to a positive number.
    """
    rank = min(rank, *matrix.shape)
    wide = min(rank + _OVERSAMPLED, *matrix.shape)
    a, a_t = as_tensor(matrix), as_tensor(transposed(matrix))
    basis = torch.sparse.mm(a, torch.randn(matrix.shape[1], wide, generator=torch.Generator().manual_seed(seed)))
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(basis).Q
        basis = torch.sparse.mm(a, torch.linalg.qr(torch.sparse.mm(a_t, basis)).Q)
    basis = torch.linalg.qr(basis).Q
    tall = torch.linalg.qr(torch.sparse.mm(a_t, basis))
    small, values, left_t = torch.linalg.svd(tall.R)
    left, right = basis @ left_t.t(), tall.Q @ small
    sign = torch.where(left.sum(0) < 0, -1.0, 1.0)
    return (left * sign)[:, :rank], values[:rank], (right * sign)[:, :rank]
