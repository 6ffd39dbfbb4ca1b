"""Which document goes to which split, so that equal and nearly equal ones are never on both sides."""

import numpy as np
import numpy.typing as npt

from tickwise.text.duplicates import Groups
from tickwise.text.hashing import mix

TRAIN, VALIDATION, TEST = 0, 1, 2
# A shorter paragraph comes twice by chance (of tiny Shakespeare's 79 repeated ones the longest has 43 bytes).
LEAST_LEAK_BYTES = 64


def assign_by_hash(
    hashes: npt.NDArray[np.uint64], groups: Groups, validation_fraction: float, test_fraction: float
) -> npt.NDArray[np.uint8]:
    """(documents,) split numbers by the hash of the first document of each group.

    A document keeps its split when others are added or removed. A split that is asked for gets at least one
    group as long as there are enough groups to leave one for training.
    """
    n = len(hashes)
    position = mix(hashes[groups.representative]) / 2.0**64
    splits = np.full(n, TRAIN, dtype=np.uint8)
    splits[position < test_fraction + validation_fraction] = VALIDATION
    splits[position < test_fraction] = TEST
    firsts = np.flatnonzero(groups.representative == np.arange(n))
    for split, fraction in ((VALIDATION, validation_fraction), (TEST, test_fraction)):
        training = firsts[splits[firsts] == TRAIN]
        if fraction > 0 and not np.any(splits == split) and len(training) > 1:
            chosen = training[np.argmin(position[training])]
            splits[groups.representative == chosen] = split
    if n and not np.any(splits == TRAIN):
        splits[groups.representative == firsts[np.argmax(position[firsts])]] = TRAIN
    return splits


def leaking_paragraphs(
    groups: Groups, unit_splits: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], units: slice, split: int
) -> npt.NDArray[np.bool_]:
    """(units in the slice,) whether a paragraph of a text in its order has an equal one in an earlier split.

    unit_splits: (units,) the split in which each begins; the first one of the slice may begin before ``split``.
    Paragraphs of less than 64 bytes are left alone.
    """
    first = groups.representative[units]
    earlier = (unit_splits[first] < split) & (first != np.arange(units.start, units.stop))
    leaking: npt.NDArray[np.bool_] = earlier & (lengths[units] >= LEAST_LEAK_BYTES)
    return leaking


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
