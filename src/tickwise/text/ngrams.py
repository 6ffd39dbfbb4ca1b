"""Words, word n-grams and character n-grams of many texts at once, as hashes.

A unit is a run of letters and digits, or one character where a script is written without spaces (or, with
``segment``, a Chinese word), or one punctuation mark or emoji. Case and full-width forms are folded. Character n-grams
stay inside what stands between spaces, with one space at either end (Bojanowski et al. 2017 mark borders likewise).
"""

import functools
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from tickwise.text.codepoints import ALONE, SPACE, WORD, case_folded, code_points, shingle_classes, word_classes
from tickwise.text.hashing import UInt64, mix, span_hashes
from tickwise.text.segment import HAN_RUN, cut_chinese

KEY_BITS = 30
_FACTORS = np.array([1, 0x9FB21C651E98DF25, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
                     0x27D4EB2F165667C5, 0x85EBCA77C2B2AE63, 0xFF51AFD7ED558CCD], dtype=np.uint64)
LONGEST_NGRAM = len(_FACTORS)
_BORDERS = np.array([0xA0761D6478BD642F, 0xE7037ED1A0B428DB], dtype=np.uint64)
"""Stand for the beginning and the end of a text among its units."""


class Family(IntEnum):
    """What a feature was made of; the highest two bits of its key."""

    WORD = 0
    WORD_NGRAM = 1
    CHARACTERS = 2
    SHAPE = 3
    """A unit with digits, whatever they are: ``080-1234`` and ``080-9876`` are one."""


@dataclass(frozen=True)
class NgramSettings:
    """Which features a text has."""

    word_ngrams: int = 2
    """Longest n-gram of units, where a text's beginning and its end count as units; 0 takes none."""
    min_characters: int = 2
    max_characters: int = 5
    """Shortest and longest n-gram of characters; 0 takes none."""
    segment: bool = True
    """Chinese units are jieba's words, not characters."""


@dataclass(frozen=True)
class Ngrams:
    """text: (n,) number of each feature's text; key: (n,) its hash, family in the highest two bits; start, end: (n,)
    the characters of its text that it stands for. Ordered by family, then text, then place."""

    n_texts: int
    text: npt.NDArray[np.int64]
    key: npt.NDArray[np.uint32]
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]


@functools.cache
def _classes() -> npt.NDArray[np.uint8]:
    """For each code point SPACE (white space only), WORD or ALONE (also punctuation)."""
    table = shingle_classes().copy()
    table[table == SPACE] = ALONE
    table[word_classes() == SPACE] = SPACE
    table[:0x20] = SPACE
    table[0x200B:0x2010] = SPACE  # joiners and direction marks
    table[0xFE00:0xFE10] = SPACE  # variation selectors
    return table


@functools.cache
def _folded() -> npt.NDArray[np.uint32]:
    table = case_folded().copy()
    table[0xFF01:0xFF5F] = case_folded()[0x21:0x7F]  # full-width ASCII
    return table


@functools.cache
def _symbols(digits_alike: bool) -> UInt64:
    """A random-looking value per code point; all white space is one symbol."""
    folded = _folded().copy()
    if digits_alike:
        folded[ord("0") : ord("9") + 1] = folded[0xFF10:0xFF1A] = ord("0")
    folded[_classes() == SPACE] = ord(" ")
    return mix(folded.astype(np.uint64) + np.uint64(0x632BE59BD9B4E019))


def ngrams(texts: list[str], settings: NgramSettings) -> Ngrams:
    """All features of ``texts``, with repetitions. Time and memory grow with the characters only."""
    joined = "\n" + "\n".join(texts) + "\n"
    points = code_points(joined)
    lengths = np.array([len(text) + 1 for text in texts], dtype=np.int64)
    begins = np.cumsum(lengths) - lengths + 1  # of each text in ``joined``
    text_of = np.repeat(np.arange(len(texts)), lengths)
    text_of = np.concatenate(([0], text_of)) if len(texts) else np.zeros(len(points), dtype=np.int64)
    classes = _classes()[points]
    parts = [*_unit_features(joined, points, classes, text_of, settings),
             *_character_features(points, classes, text_of, settings)]
    text, key, start, end = (np.concatenate([part[i] for part in parts]) if parts else np.empty(0, dtype=np.int64)
                             for i in range(4))
    if len(text):
        start, end = np.maximum(start - begins[text], 0), np.minimum(end - begins[text], lengths[text] - 1)
    return Ngrams(len(texts), text, key.astype(np.uint32), start, end)


_Part = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _key(hashes: UInt64, family: Family) -> npt.NDArray[np.uint32]:
    return ((hashes >> np.uint64(64 - KEY_BITS)) | np.uint64(family << KEY_BITS)).astype(np.uint32)


def _unit_features(joined: str, points: npt.NDArray[np.integer], classes: npt.NDArray[np.uint8],
                   text_of: npt.NDArray[np.int64], settings: NgramSettings) -> list[_Part]:
    if settings.word_ngrams < 1:
        return []
    is_word = classes == WORD
    is_start = classes == ALONE
    is_start[1:] |= is_word[1:] & ~is_word[:-1]
    if settings.segment and points.dtype != np.uint8:
        for run in HAN_RUN.finditer(joined):
            is_start[run.start() + 1 : run.end()] = False
            at = run.start()
            for word in cut_chinese(run.group()):
                is_start[at] = True
                at += len(word)
    starts = np.flatnonzero(is_start)
    if not len(starts):
        return []
    # A unit ends where the next one starts or at the first white space.
    spaces = np.append(np.flatnonzero(classes == SPACE), len(points))
    ends = np.minimum(np.append(starts[1:], len(points)), spaces[np.searchsorted(spaces, starts)])
    silent = np.where(classes == SPACE, np.uint64(0), _symbols(False)[points])
    units, text = span_hashes(silent, starts), text_of[starts]
    parts: list[_Part] = [(text, _key(units, Family.WORD), starts, ends)]
    parts += _unit_ngrams(units, text, starts, ends, settings.word_ngrams)
    is_digit = (_folded()[points] >= ord("0")) & (_folded()[points] <= ord("9"))
    has_digit = np.add.reduceat(is_digit, starts) > 0
    if has_digit.any():
        alike = np.where(classes == SPACE, np.uint64(0), _symbols(True)[points])
        shapes = span_hashes(alike, starts)[has_digit]
        parts.append((text[has_digit], _key(shapes, Family.SHAPE), starts[has_digit], ends[has_digit]))
    return parts


def _unit_ngrams(units: UInt64, text: npt.NDArray[np.int64], starts: npt.NDArray[np.int64],
                 ends: npt.NDArray[np.int64], longest: int) -> list[_Part]:
    """n-grams of 2 to ``longest`` units, of which the first may be the text's beginning and the last its end."""
    firsts = np.flatnonzero(np.concatenate(([True], text[1:] != text[:-1])))
    lasts = np.append(firsts[1:], len(text)) - 1
    places = np.stack([firsts, lasts + 1], axis=1).ravel()
    units = np.insert(units, places, np.tile(_BORDERS, len(firsts)))
    at = np.stack([starts[firsts], ends[lasts]], axis=1).ravel()
    starts, ends = np.insert(starts, places, at), np.insert(ends, places, at)
    text = np.insert(text, places, np.repeat(text[firsts], 2))
    parts: list[_Part] = []
    combined = units
    for n in range(2, longest + 1):
        combined = combined[: len(units) - n + 1] + units[n - 1 :] * _FACTORS[n - 1]
        whole = text[n - 1 :] == text[: len(text) - n + 1]
        parts.append((text[n - 1 :][whole], _key(mix(combined[whole] + np.uint64(n)), Family.WORD_NGRAM),
                      starts[: len(whole)][whole], ends[n - 1 :][whole]))
    return parts


def _character_features(points: npt.NDArray[np.integer], classes: npt.NDArray[np.uint8],
                        text_of: npt.NDArray[np.int64], settings: NgramSettings) -> list[_Part]:
    if settings.max_characters < 1:
        return []
    symbols = _symbols(False)[points]
    is_space = classes == SPACE
    n_spaces = np.concatenate(([0], np.cumsum(is_space)))
    parts: list[_Part] = []
    rolling = symbols
    for n in range(1, settings.max_characters + 1):
        if n > 1:
            rolling = rolling[:-1] + symbols[n - 1 :] * _FACTORS[n - 1]
        if n < max(settings.min_characters, 1) or len(rolling) < 1:
            continue
        first = np.arange(len(rolling))
        if n == 1:
            inside = ~is_space
        elif n == 2:
            inside = ~(is_space[:-1] & is_space[1:])
        else:
            inside = n_spaces[first + n - 1] == n_spaces[first + 1]
        first = first[inside]
        owner = text_of[np.minimum(first + is_space[first], len(text_of) - 1)]
        hashes = mix(rolling[inside] + np.uint64(n << 8))
        parts.append((owner, _key(hashes, Family.CHARACTERS), first + is_space[first],
                      first + n - is_space[first + n - 1]))
    return parts
