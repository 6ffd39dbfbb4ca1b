"""Shingles and MinHash signatures: which documents are nearly the same, in any language.

A shingle is three neighbouring units, where a unit is a run of letters and digits (case ignored, punctuation
left out) or, in scripts written without spaces, one character. The Jaccard similarity of two documents is that
of their sets of shingles (Broder 1997). A signature is one-permutation MinHash (Li, Owen and Zhang 2012): the
shingle hashes fall into 64 bins and each bin keeps its smallest; empty bins copy another by optimal
densification (Shrivastava 2017). The share of equal bins estimates the Jaccard similarity.
"""

import functools

import numpy as np
import numpy.typing as npt

from tickwise.text.codepoints import ALONE, SPACE, WORD, case_folded, code_points, shingle_classes
from tickwise.text.hashing import UInt64, mix, span_hashes

SHINGLE_UNITS = 3
_BIN_BITS = 6
N_BINS = 1 << _BIN_BITS
_HASH_BITS = 48  # of a shingle hash; the other 16 bits of a sort key number the document
_MOST_DOCUMENTS = 1 << 16
# A document is judged by its beginning, so that memory does not grow with it.
MOST_CHARACTERS = 1 << 20
_RANDOM_ATTEMPTS = 24


@functools.cache
def _symbols() -> UInt64:
    """A random-looking value per code point, equal for upper and lower case, 0 for those without content."""
    values = mix(case_folded().astype(np.uint64) + np.uint64(0x51AFD7ED558CCD))
    values[shingle_classes() == SPACE] = 0
    return values


@functools.cache
def _donors() -> npt.NDArray[np.int64]:
    """(attempts, bins): which bin an empty one asks at each attempt; at last, every other bin in turn."""
    bins = np.arange(N_BINS)
    attempts = [
        (mix((bins + N_BINS * attempt).astype(np.uint64)) & np.uint64(N_BINS - 1)).astype(np.int64)
        for attempt in range(_RANDOM_ATTEMPTS)
    ]
    return np.stack([*attempts, *((bins + shift) % N_BINS for shift in range(1, N_BINS))])


def shingle_hashes(texts: list[str]) -> tuple[npt.NDArray[np.int64], UInt64]:
    """(documents, hashes): the number of its document and the hash of every shingle, in text order.

    A document with fewer than three units has one shingle of all it has; one without any unit has none.
    """
    texts = [text[:MOST_CHARACTERS] for text in texts]
    ends = np.cumsum([len(text) + 1 for text in texts])
    points = code_points("\n".join(texts) + "\n")
    classes = shingle_classes()[points]
    is_start = classes == ALONE
    is_word = classes == WORD
    is_start[0] |= is_word[0]
    is_start[1:] |= is_word[1:] & (classes[:-1] != WORD)
    starts = np.flatnonzero(is_start)
    if not len(starts):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
    symbols = _symbols()
    units = span_hashes((symbols[:128] if points.dtype == np.uint8 else symbols)[points], starts)
    document = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(starts, ends), prepend=0))
    combined = units.copy()
    for distance, factor in ((1, 0x9FB21C651E98DF25), (2, 0xD6E8FEB86659FD93)):
        if len(units) > distance:
            same = document[distance:] == document[:-distance]
            combined[:-distance] += units[distance:] * np.uint64(factor) * same
    complete = np.zeros(len(units), dtype=bool)
    complete[: -(SHINGLE_UNITS - 1)] = document[SHINGLE_UNITS - 1 :] == document[: -(SHINGLE_UNITS - 1)]
    complete[0] = True  # the first unit of a document always begins a shingle, however short
    complete[1:] |= document[1:] != document[:-1]
    return document[complete], mix(combined[complete])


def signatures(texts: list[str]) -> npt.NDArray[np.uint16]:
    """(len(texts), 64) MinHash signatures; all zero for a document without any unit."""
    result = np.zeros((len(texts), N_BINS), dtype=np.uint16)
    for first in range(0, len(texts), _MOST_DOCUMENTS):
        part = texts[first : first + _MOST_DOCUMENTS]
        result[first : first + len(part)] = _signatures(part)
    return result


def _signatures(texts: list[str]) -> npt.NDArray[np.uint16]:
    document, hashes = shingle_hashes(texts)
    values = np.zeros(len(texts) * N_BINS, dtype=np.uint16)
    filled = np.zeros(len(texts) * N_BINS, dtype=bool)
    # One sort orders by document, then bin (the high bits of the hash), then hash: the first of each bin is
    # its minimum.
    keys = (document.astype(np.uint64) << np.uint64(_HASH_BITS)) | (hashes >> np.uint64(64 - _HASH_BITS))
    keys.sort()
    bins = keys >> np.uint64(_HASH_BITS - _BIN_BITS)
    first = np.ones(len(keys), dtype=bool)
    first[1:] = bins[1:] != bins[:-1]
    minima = keys[first] & np.uint64((1 << (_HASH_BITS - _BIN_BITS)) - 1)
    where = bins[first].astype(np.int64)
    values[where] = (mix(minima) >> np.uint64(48)).astype(np.uint16)
    filled[where] = True
    _densify(values, filled)
    return values.reshape(len(texts), N_BINS)


def _densify(values: npt.NDArray[np.uint16], filled: npt.NDArray[np.bool_]) -> None:
    """Fill the empty bins of every document that has a full one, in place."""
    has_any = np.repeat(filled.reshape(-1, N_BINS).any(axis=1), N_BINS)
    empty = np.flatnonzero(~filled & has_any)
    for donors in _donors():
        if not len(empty):
            return
        source = (empty & ~(N_BINS - 1)) + donors[empty & (N_BINS - 1)]
        found = filled[source]
        values[empty[found]] = values[source[found]]
        empty = empty[~found]


def jaccard(texts_a: list[str], texts_b: list[str]) -> npt.NDArray[np.float64]:
    """Exact Jaccard similarity of the shingle sets of each pair, shape (len(texts_a),); 0 where both are empty."""
    n = len(texts_a)
    document, hashes = shingle_hashes([*texts_a, *texts_b])
    bounds = np.searchsorted(document, np.arange(2 * n + 1))
    sets = [np.unique(hashes[bounds[i] : bounds[i + 1]]) for i in range(2 * n)]
    result = np.zeros(n)
    for i in range(n):
        a, b = sets[i], sets[n + i]
        if len(a) and len(b):
            both = len(np.intersect1d(a, b, assume_unique=True))
            result[i] = both / (len(a) + len(b) - both)
    return result
