"""Which document goes to which split, so that equal and nearly equal ones are never on both sides."""

import numpy as np
import numpy.typing as npt

from tickwise.text.duplicates import Groups
from tickwise.text.hashing import mix

TRAIN, VALIDATION, TEST = 0, 1, 2


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
