"""Text as numpy arrays of code points, with tables that classify them."""

import functools
import unicodedata

import numpy as np
import numpy.typing as npt

N_CODE_POINTS = 0x110000
SPACE, WORD, ALONE = 0, 1, 2

# Scripts that are written without spaces between words: each character stands alone.
_UNSPACED = (
    (0x0E00, 0x0F00),  # Thai, Lao
    (0x1000, 0x10A0),  # Myanmar
    (0x1780, 0x1800),  # Khmer
    (0x2E80, 0x3000),  # CJK radicals
    (0x3040, 0x3130),  # kana, bopomofo
    (0x31A0, 0x3200),
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x1F000, 0x1FB00),  # emoji
    (0x20000, 0x40000),
)
_HAN = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x40000))
_NOT_WORDS = (
    (0x2000, 0x2070), (0x2190, 0x2C00), (0x2E00, 0x2E80), (0x3000, 0x3040), (0xD800, 0xF900), (0xFE00, 0xFE70),
    (0xFF00, 0xFF10), (0xFF1A, 0xFF21), (0xFF3B, 0xFF41), (0xFF5B, 0xFF66), (0xFFE0, 0x10000),
)


def code_points(text: str) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint32]:
    """Code points of ``text``, shape (len(text),): uint8 when all are ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def byte_offsets(text: str) -> npt.NDArray[np.int64]:
    """Where each character starts in the UTF-8 form of ``text``, and where that ends, shape (len(text) + 1,)."""
    points = code_points(text)
    offsets = np.arange(len(points) + 1, dtype=np.int64)
    if points.dtype != np.uint8:
        for limit in (0x80, 0x800, 0x10000):
            offsets[1:] += np.cumsum(points >= limit)
    return offsets


@functools.cache
def shingle_classes() -> npt.NDArray[np.uint8]:
    """For each code point: SPACE (no content: spaces, punctuation), WORD (joins with its neighbours) or ALONE."""
    table = np.full(N_CODE_POINTS, WORD, dtype=np.uint8)
    for first, end in _NOT_WORDS:
        table[first:end] = SPACE
    # Below the CJK blocks punctuation is scattered; the categories say where (L, M, N are content).
    for point in range(0x2E00):
        if unicodedata.category(chr(point))[0] not in "LMN":
            table[point] = SPACE
    for first, end in _UNSPACED:
        region = table[first:end]
        region[region == WORD] = ALONE
    return table


@functools.cache
def word_classes() -> npt.NDArray[np.uint8]:
    """For each code point: SPACE (whitespace), ALONE (a Han character) or WORD (all else)."""
    table = np.full(N_CODE_POINTS, WORD, dtype=np.uint8)
    for first, end in _HAN:
        table[first:end] = ALONE
    for point in [*range(0x21), *range(0x7F, 0xA1), 0x1680, *range(0x2000, 0x2030), 0x205F, 0x3000]:
        if chr(point).isspace():
            table[point] = SPACE
    return table


@functools.cache
def case_folded() -> npt.NDArray[np.uint32]:
    """For each code point its lower-case form where that is one code point, else itself."""
    table = np.arange(N_CODE_POINTS, dtype=np.uint32)
    for point in [*range(0x2200), *range(0x2C00, 0x2D30), *range(0xA640, 0xA7D0), *range(0xFF21, 0xFF3B),
                  *range(0x10400, 0x10428)]:
        lower = chr(point).lower()
        if len(lower) == 1:
            table[point] = ord(lower)
    return table


def count_words(text: str) -> tuple[int, int]:
    """(words, Han characters): words are separated by whitespace, and each Han character is a word of its own."""
    if not text:
        return 0, 0
    classes = word_classes()[code_points(text)]
    is_word = classes == WORD
    starts = int(np.count_nonzero(is_word[1:] & ~is_word[:-1])) + int(is_word[0])
    han = int(np.count_nonzero(classes == ALONE))
    return starts + han, han
