"""Which document goes to which split, so that equal and nearly equal ones are never on both sides."""

import numpy as np
import numpy.typing as npt

from tickwise.text.duplicates import Groups
from tickwise.text.hashing import mix

TRAIN, VALIDATION, TEST = 0, 1, 2
# A shorter paragraph comes twice by chance (of tiny Shakespeare's 79 repeated ones the longest has 43 bytes).
LEAST_LEAK_BYTES = 64
# Of so few documents hashes alone would draw a share far from the one asked for.
_FEW_GROUPS = 50
_STEPS = 10_000  # of the text, to which sizes are rounded when a share is put together


def assign_by_hash(
    hashes: npt.NDArray[np.uint64], groups: Groups, sizes: npt.NDArray[np.int64], validation_fraction: float,
    test_fraction: float,
) -> npt.NDArray[np.uint8]:
    """(documents,) split numbers by the hash of the first document of each group.

    A document keeps its split when others are added or removed; but of at most 50 groups those are chosen whose
    ``sizes`` (bytes of each document that will stay) come nearest to the fractions. A split that is asked for gets
    at least one group as long as there are enough groups to leave one for training.
    """
    n = len(hashes)
    position = mix(hashes[groups.representative]) / 2.0**64
    firsts = np.flatnonzero(groups.representative == np.arange(n))
    if len(firsts) <= _FEW_GROUPS:
        by_hash = firsts[np.argsort(position[firsts], kind="stable")]
        weights = np.bincount(groups.representative, weights=sizes, minlength=n)[by_hash].astype(np.float64)
        of_group = np.full(n, TRAIN, dtype=np.uint8)
        of_group[by_hash] = _nearest_shares(weights, validation_fraction, test_fraction)
        return of_group[groups.representative]
    splits = np.full(n, TRAIN, dtype=np.uint8)
    splits[position < test_fraction + validation_fraction] = VALIDATION
    splits[position < test_fraction] = TEST
    for split, fraction in ((VALIDATION, validation_fraction), (TEST, test_fraction)):
        training = firsts[splits[firsts] == TRAIN]
        if fraction > 0 and not np.any(splits == split) and len(training) > 1:
            chosen = training[np.argmin(position[training])]
            splits[groups.representative == chosen] = split
    if n and not np.any(splits == TRAIN):
        splits[groups.representative == firsts[np.argmax(position[firsts])]] = TRAIN
    return splits


def _nearest_shares(
    sizes: npt.NDArray[np.float64], validation_fraction: float, test_fraction: float
) -> npt.NDArray[np.uint8]:
    """(groups,) split numbers that bring the bytes of validation, then test, nearest to their fractions."""
    splits = np.full(len(sizes), TRAIN, dtype=np.uint8)
    wanted = [(split, fraction) for split, fraction in ((VALIDATION, validation_fraction), (TEST, test_fraction))
              if fraction > 0]
    for n_done, (split, fraction) in enumerate(wanted):
        free = np.flatnonzero(splits == TRAIN)
        if len(free) > 1:
            n_others = len(wanted) - n_done  # training and the splits to come
            chosen = _nearest_sum(sizes[free] / sizes.sum(), fraction)[: max(len(free) - n_others, 1)]
            splits[free[chosen]] = split
    return splits


def _nearest_sum(shares: npt.NDArray[np.float64], target: float) -> list[int]:
    """Which of ``shares``, at least one, sum nearest to ``target``: all sums are listed, each with the share that
    first reached it."""
    steps = np.rint(shares * _STEPS).astype(np.int64).clip(1)
    added = np.full(int(steps.sum()) + 1, -1)
    reached = added == 0
    reached[0] = True
    for index, step in enumerate(steps.tolist()):
        new = np.flatnonzero(reached[:-step] & ~reached[step:]) + step
        added[new] = index
        reached[new] = True
    sums = np.flatnonzero(reached)[1:]
    left = int(sums[np.argmin(abs(sums - target * _STEPS))])
    chosen = []
    while left:
        chosen.append(int(added[left]))
        left -= int(steps[chosen[-1]])
    return sorted(chosen)


def in_earlier_split(
    groups: Groups, unit_splits: npt.NDArray[np.uint8], units: slice, split: int
) -> npt.NDArray[np.bool_]:
    """(units in the slice,) whether a paragraph of a text in its order has an equal one in a split before ``split``.

    unit_splits: (units,) the split in which each begins; the first one of the slice may begin before ``split``.
    """
    first = groups.representative[units]
    earlier: npt.NDArray[np.bool_] = (unit_splits[first] < split) & (first != np.arange(units.start, units.stop))
    return earlier


def spans_to_remove(
    remove: npt.NDArray[np.bool_], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], begin: int, end: int
) -> npt.NDArray[np.int64]:
    """(spans, 2) the bytes to cut out between ``begin`` and ``end`` of a text so that the units marked go.

    starts, stops: (units,) where each is. What is between units goes with the one that follows it, so that a piece
    that stays ends with a visible character, where a token ends too; before the first unit that stays, all goes.
    """
    runs = np.flatnonzero(np.diff(remove, prepend=False, append=False)).reshape(-1, 2)
    spans = np.stack([np.append(begin, stops)[runs[:, 0]], stops[runs[:, 1] - 1]], axis=1).clip(begin, end)
    if len(spans) and spans[0, 0] == begin:
        spans[0, 1] = np.append(starts, end)[runs[0, 1]].clip(begin, end)
    return spans


def first_of_group_in_split(groups: Groups, splits: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """(documents,) whether a document is the first of its group inside its own split."""
    keep = np.zeros(len(splits), dtype=bool)
    _, first = np.unique(groups.representative * 4 + splits, return_index=True)
    keep[first] = True
    return keep


def count_leaks(groups: Groups, splits: npt.NDArray[np.uint8]) -> dict[str, int]:
    """How many validation and test units have an exact copy or near-duplicate in training."""
    in_train = np.zeros(len(splits), dtype=bool)
    in_train[groups.representative[splits == TRAIN]] = True
    leaked = in_train[groups.representative]
    return {
        "validation": int(np.count_nonzero(leaked & (splits == VALIDATION))),
        "test": int(np.count_nonzero(leaked & (splits == TEST))),
    }


def leaking_train_documents(groups: Groups, splits: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """(documents,) training documents whose group has a member in validation or test."""
    held_out = np.zeros(len(splits), dtype=bool)
    held_out[groups.representative[splits != TRAIN]] = True
    leaking: npt.NDArray[np.bool_] = held_out[groups.representative] & (splits == TRAIN)
    return leaking
