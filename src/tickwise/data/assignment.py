"""Which split every part of a text goes to: duplicates found, leaks counted, and copies removed where that is asked."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tickwise.core.errors import ConfigError, DataError
from tickwise.data import splits as split_rules
from tickwise.data.config import PrepareConfig
from tickwise.data.jobs import DROPPED
from tickwise.data.prepared import SPLIT_NAMES
from tickwise.data.spool import Spool
from tickwise.data.workers import Workers
from tickwise.text.duplicates import Groups, TextPairs, exact_groups, near_groups

Splits = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Assignment:
    """splits: (documents,) the split number of each, ``DROPPED`` for those removed; of one text in its order,
    (pieces,) of the pieces that the spool was divided into. duplicates: what ``dataset.json`` says of them."""

    splits: Splits
    duplicates: dict[str, Any]


def assign(
    spool: Spool, config: PrepareConfig, *, bounds: list[int], given: list[int] | None, origin: str, n_workers: int
) -> Assignment:
    """Assign all that is in ``spool``.

    bounds: the end of each input, in documents, or in bytes of one text in its order. given: the split that each input
    makes up; ``None``: splits are made here by the config's fractions. origin: the inputs' names, for messages.
    """
    exact = exact_groups(spool.hashes)
    groups = _find_near(spool, exact, config.near_threshold, n_workers)
    duplicates: dict[str, Any] = {
        "unit": "document" if spool.units_are_documents else "paragraph",
        "units": len(spool.hashes),
        "exact": groups.exact_duplicates,
        "near": groups.near_duplicates,
        "near_threshold": config.near_threshold,
        "removed": 0,
    }
    removed = exact if config.duplicates == "exact" else groups
    if not spool.units_are_documents:
        if config.remove_leaks:
            raise ConfigError("--remove-leaks needs documents to remove; add --documents line or paragraph")
        return _assign_in_order(spool, config, groups, removed, bounds, given, origin, duplicates)

    def kept(splits: Splits) -> npt.NDArray[np.bool_]:
        """(documents,) whether each stays, being no duplicate inside its split of those to remove."""
        if config.duplicates == "keep":
            return np.ones(len(splits), dtype=bool)
        return split_rules.first_of_group_in_split(removed, splits)

    if given is not None:
        splits = np.repeat(np.array(given, dtype=np.uint8), np.diff(bounds, prepend=0))
        duplicates["leaks"] = split_rules.count_leaks(groups, splits)
    else:
        # Groups stay together, so what is removed does not depend on the splits.
        sizes = np.where(kept(np.zeros(len(spool.hashes), dtype=np.uint8)), spool.lengths, 0)
        splits = split_rules.assign_by_hash(
            spool.hashes, groups, sizes, config.validation_fraction, config.test_fraction
        )
    result = np.where(kept(splits), splits, np.uint8(DROPPED))
    if config.remove_leaks:
        result[split_rules.leaking_train_documents(groups, splits)] = DROPPED
    duplicates["removed"] = int(np.count_nonzero(result == DROPPED))
    return Assignment(result, duplicates)


def _find_near(spool: Spool, exact: Groups, threshold: float, n_workers: int) -> Groups:
    with Workers("tickwise.data.jobs:compare", {}, n_workers) as workers:

        def similarities(pairs: Iterator[TextPairs]) -> Iterator[npt.NDArray[np.float64]]:
            for answer in workers.map({"first": first, "second": second} for first, second in pairs):
                yield answer["similarities"]

        return near_groups(exact, spool.bands, threshold, spool.unit_text, similarities)


def _assign_in_order(
    spool: Spool, config: PrepareConfig, groups: Groups, removed: Groups, bounds: list[int], given: list[int] | None,
    origin: str, duplicates: dict[str, Any],
) -> Assignment:
    """Cut the text where the fractions say, or where the given files end; the splits of the pieces."""
    if given is not None:
        splits = np.array(given, dtype=np.uint8)
        cuts = np.array(bounds)
    else:
        n = spool.n_characters
        # A text of a character or two still has something to train on.
        first = max(1, int(n * (1 - config.validation_fraction - config.test_fraction)))
        second = max(first, int(n * (1 - config.test_fraction)))
        splits = np.array([0, 1, 2], dtype=np.uint8)
        cuts = np.array([*(spool.byte_of_character(cut) if cut < n else spool.n_bytes for cut in (first, second)),
                         spool.n_bytes])
    unit_splits = splits[np.minimum(np.searchsorted(cuts, spool.unit_offsets, side="right"), len(cuts) - 1)]
    if given is not None or config.duplicates == "keep":
        lengths, result, ends = np.diff(cuts, prepend=0), splits, np.ones(len(cuts), dtype=np.uint8)
    else:
        pieces = _without_leaks(spool, removed, unit_splits, cuts, origin)
        lengths, result, ends = pieces.lengths, pieces.splits, pieces.ends
        duplicates["removed_from"] = pieces.removed_from
        duplicates["removed"] = sum(split["paragraphs"] for split in pieces.removed_from.values())
    duplicates["leaks"] = split_rules.count_leaks(groups, unit_splits)
    spool.divide(lengths, ends)
    return Assignment(np.where(lengths == 0, np.uint8(DROPPED), result), duplicates)


@dataclasses.dataclass(frozen=True)
class _Pieces:
    """lengths, splits, ends: (pieces,) bytes of each, its split number, and whether it is the last of its split.
    removed_from: paragraphs and bytes that are dropped, by the name of the split."""

    lengths: npt.NDArray[np.int64]
    splits: Splits
    ends: npt.NDArray[np.uint8]
    removed_from: dict[str, dict[str, int]]


def _without_leaks(
    spool: Spool, groups: Groups, unit_splits: Splits, cuts: npt.NDArray[np.int64], origin: str
) -> _Pieces:
    """The text in pieces, where paragraphs of validation and test that an earlier split has are pieces to drop. Marks
    the paragraphs in ``unit_splits``."""
    stops = spool.unit_offsets + spool.unit_lengths
    lengths, numbers, ends = [cuts[:1]], [np.array([split_rules.TRAIN])], [np.array([1])]
    removed_from: dict[str, dict[str, int]] = {}
    for split in (split_rules.VALIDATION, split_rules.TEST):
        begin, end = cuts[split - 1 : split + 1]
        units = slice(*(int(n) for n in (np.searchsorted(stops, begin, side="right"),
                                         np.searchsorted(spool.unit_offsets, end))))
        leaks = split_rules.in_earlier_split(groups, unit_splits, units, split)
        remove = leaks & (spool.unit_lengths[units] >= split_rules.LEAST_LEAK_BYTES)
        if remove.any() and leaks.all():
            raise DataError(f"{origin}: all of its {SPLIT_NAMES[split]} part is also in the text before it, so nothing "
                            "new would be left of it; prepare it with --documents paragraph, which splits it without "
                            "copies (or with --duplicates keep)")
        spans = split_rules.spans_to_remove(remove, spool.unit_offsets[units], stops[units], int(begin), int(end))
        pieces = np.diff(np.concatenate([[begin], spans.reshape(-1), [end]]))
        number = np.full(len(pieces), split)
        number[1::2] = DROPPED
        last = np.zeros(len(pieces))
        last[np.flatnonzero((number == split) & (pieces > 0))[-1:]] = 1
        lengths, numbers, ends = [*lengths, pieces], [*numbers, number], [*ends, last]
        inside = remove & (unit_splits[units] == split)
        unit_splits[units][inside] = DROPPED
        removed_from[SPLIT_NAMES[split]] = {"paragraphs": int(remove.sum()), "bytes": int(pieces[1::2].sum())}
    return _Pieces(np.concatenate(lengths), np.concatenate(numbers).astype(np.uint8),
                   np.concatenate(ends).astype(np.uint8), removed_from)
