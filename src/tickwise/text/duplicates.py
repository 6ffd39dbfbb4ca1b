"""Groups of equal and nearly equal documents, from hashes and signatures that lie on disk."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tickwise.text.shingles import N_BINS, jaccard

N_BANDS = 16
_ROWS = N_BINS // N_BANDS
# Signatures of 64 bins estimate a Jaccard similarity to within about ±0.1; between these distances from the
# threshold the documents themselves are compared.
_SURE_ABOVE = 0.15
_SURE_BELOW = 0.3
_PAIRS_AT_ONCE = 512
_TEXT_AT_ONCE = 1 << 21
_BUCKETS = 1 << 22

Indices = npt.NDArray[np.int64]
TextPairs = tuple[list[str], list[str]]
Similarities = Callable[[Iterator[TextPairs]], Iterator[npt.NDArray[np.float64]]]


class BandFiles:
    """Signatures on disk, a file per band of 4 bins (one 64-bit key each), so that one band at a time is read."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"band-{band}.bin" for band in range(N_BANDS)]
        self._files = [path.open("wb") for path in self._paths]

    def append(self, signatures: npt.NDArray[np.uint16]) -> None:
        """Add the (n, 64) signatures of the next n documents."""
        keys = np.ascontiguousarray(signatures).view(np.uint64)
        for band, file in enumerate(self._files):
            file.write(keys[:, band].tobytes())

    def close(self) -> None:
        for file in self._files:
            file.close()

    def band(self, index: int) -> npt.NDArray[np.uint64]:
        return np.fromfile(self._paths[index], dtype=np.uint64)


@dataclasses.dataclass(frozen=True)
class Groups:
    """representative: for each document the first document of its group (itself when it has no duplicate);
    near: the documents that are in a group by similarity and not by equality."""

    representative: Indices
    near: npt.NDArray[np.bool_]

    @property
    def exact_duplicates(self) -> int:
        own = self.representative == np.arange(len(self.representative))
        return int(np.count_nonzero(~own & ~self.near))

    @property
    def near_duplicates(self) -> int:
        return int(np.count_nonzero(self.near))


def exact_groups(hashes: npt.NDArray[np.uint64]) -> Groups:
    """Documents with the same 64-bit hash."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    first = np.ones(len(hashes), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    del ordered
    representative = np.empty(len(hashes), dtype=np.int64)
    representative[order] = order[first][np.cumsum(first) - 1]
    return Groups(representative, np.zeros(len(hashes), dtype=bool))


def similarities_here(pairs: Iterator[TextPairs]) -> Iterator[npt.NDArray[np.float64]]:
    """Jaccard similarities, computed in this process."""
    for first, second in pairs:
        yield jaccard(first, second)


def near_groups(
    exact: Groups, bands: BandFiles, threshold: float, read_text: Callable[[int], str],
    similarities: Similarities = similarities_here,
) -> Groups:
    """Join the groups whose first documents have a Jaccard similarity of at least ``threshold``.

    Candidates share one of 16 bands: a pair of similarity s is one with probability 1 - (1 - s^4)^16, which is
    0.9998 at 0.8 and 0.99 at 0.7. Similarity is transitive here: a chain of neighbours is one group.
    read_text: the text of a document by number; called only for pairs near the threshold. similarities: maps batches
    of them, in order, to their Jaccard similarities (a place for parallel work).
    """
    n = len(exact.representative)
    distinct = exact.representative == np.arange(n)
    pairs = _candidates(bands, distinct)
    if not len(pairs):
        return exact
    estimate = _estimates(bands, pairs)
    accepted = estimate >= min(threshold + _SURE_ABOVE, 1.0)
    unsure = np.flatnonzero(~accepted & (estimate >= threshold - _SURE_BELOW))
    done = 0
    for similarity in similarities(_text_pairs(pairs[unsure], read_text)):
        accepted[unsure[done : done + len(similarity)]] = similarity >= threshold
        done += len(similarity)
    assert done == len(unsure)
    return _united(exact, pairs[accepted])


def _candidates(bands: BandFiles, distinct: npt.NDArray[np.bool_]) -> Indices:
    """(pairs, 2) documents that agree in a band, smaller number first, without repetition."""
    n = len(distinct)
    packed = np.empty(0, dtype=np.int64)
    for band in range(N_BANDS):
        keys = bands.band(band)
        # Most keys are alone; counting them in buckets leaves few to sort.
        buckets = (keys & np.uint64(_BUCKETS - 1)).astype(np.int64)
        crowded = np.bincount(buckets, minlength=_BUCKETS) > 1
        members = np.flatnonzero(crowded[buckets] & distinct & (keys != 0))
        del buckets
        if len(members) < 2:
            continue
        keys = keys[members]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        same = np.flatnonzero(keys[1:] == keys[:-1])
        members = members[order]
        group_start = np.ones(len(keys), dtype=bool)
        group_start[1:] = keys[1:] != keys[:-1]
        starts = np.maximum.accumulate(np.where(group_start, np.arange(len(keys)), 0))
        second = members[same + 1]
        # Each member is compared with the one before it and with the first of its group.
        found = np.concatenate([members[same] * n + second, members[starts[same + 1]] * n + second])
        packed = np.union1d(packed, found)
    return np.stack([packed // n, packed % n], axis=1)


def _estimates(bands: BandFiles, pairs: Indices) -> npt.NDArray[np.float64]:
    equal = np.zeros(len(pairs), dtype=np.int64)
    for band in range(N_BANDS):
        keys = bands.band(band)
        a, b = (keys[pairs[:, side]].view(np.uint16).reshape(-1, _ROWS) for side in (0, 1))
        equal += np.count_nonzero(a == b, axis=1)
    return equal / N_BINS


def _text_pairs(pairs: Indices, read_text: Callable[[int], str]) -> Iterator[TextPairs]:
    """The texts of ``pairs``, in batches."""
    start = 0
    while start < len(pairs):
        first: list[str] = []
        second: list[str] = []
        size = 0
        for a, b in pairs[start : start + _PAIRS_AT_ONCE].tolist():
            first.append(read_text(a))
            second.append(read_text(b))
            size += len(first[-1]) + len(second[-1])
            if size >= _TEXT_AT_ONCE:
                break
        yield first, second
        start += len(first)


def _united(exact: Groups, pairs: Indices) -> Groups:
    parent: dict[int, int] = {}

    def root(document: int) -> int:
        while (above := parent.get(document, document)) != document:
            parent[document] = parent.get(above, above)
            document = above
        return document

    for a, b in pairs.tolist():
        root_a, root_b = root(a), root(b)
        if root_a != root_b:
            parent[max(root_a, root_b)] = min(root_a, root_b)
    if not parent:
        return exact
    of_first = np.arange(len(exact.representative))
    moved = np.fromiter(parent, dtype=np.int64)
    of_first[moved] = [root(document) for document in moved.tolist()]
    representative = of_first[exact.representative]
    near = exact.near.copy()
    near[moved] = True  # copies of a moved document stay exact duplicates
    near &= representative != np.arange(len(representative))
    return Groups(representative, near)
