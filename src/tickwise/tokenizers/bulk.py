"""Fast encoding of many documents at once, with exactly the ids of ``Tokenizer.encode``.

Byte-level BPE splits text into words by GPT-2's pattern and merges inside each word, so equal words have equal
ids. Here the split is made by array operations on a whole block, each word is looked up by its hash in a table
of words seen before, and only new words go through the ``tokenizers`` library.

Special tokens that are written in the text are text here: a document cannot forge the end of a document.
"""

import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import tokenizers
from tickwise.text.codepoints import N_CODE_POINTS, code_points
from tickwise.text.hashing import UInt64, mix, span_hashes
from tickwise.text.segment import segment_chinese
from tickwise.tokenizers.tokenizer import Tokenizer, symbol_of_byte
from tokenizers import Regex, pre_tokenizers

Ids = npt.NDArray[np.int64]
TokenIds = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_OTHER, _LETTER, _NUMBER, _SPACE, _END, _UNKNOWN = 0, 1, 2, 3, 4, 255
_CLASS_PATTERNS = ((_LETTER, r"\p{L}"), (_NUMBER, r"\p{N}"), (_SPACE, r"\s"))
# The endings that GPT-2's pattern takes off after an apostrophe.
_CONTRACTIONS = ("s", "t", "re", "ve", "m", "ll", "d")


class BulkEncoder:
    """Encodes lists of documents. Keeps tables between calls; make one per process."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._byte_level = ByteLevelEncoder(tokenizer) if is_plain_byte_level(tokenizer) else None
        # The library reads special tokens out of the text unless told otherwise.
        self._plain = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
        self._plain.encode_special_tokens = True

    def encode(self, texts: Sequence[str]) -> tuple[TokenIds, Ids]:
        """(ids, counts): the ids of all texts one after the other, and how many each text has."""
        if not texts:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        if self._byte_level is not None:
            return self._byte_level.encode(texts)
        if self._tokenizer.kind == "char":
            counts = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
            return self._tokenizer.encode_characters("".join(texts)), counts
        if self._tokenizer.segments_chinese:
            texts = [segment_chinese(text) for text in texts]
        encodings = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]
        return np.concatenate(ids), np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))


def is_plain_byte_level(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer is BPE over GPT-2's split, with nothing before it or in between."""
    model, settings = tokenizer.backend.model, json.loads(tokenizer.backend.to_str(pretty=False))
    split = settings["pre_tokenizer"] or {}
    return (
        type(model).__name__ == "BPE"
        and settings["normalizer"] is None
        and settings["truncation"] is None
        and split.get("type") == "ByteLevel"
        and split.get("use_regex") is True
        and split.get("add_prefix_space") is False
        and not settings["model"].get("dropout")
        and not any(not token["special"] for token in settings["added_tokens"])
    )


class CharacterClasses:
    """Which class GPT-2's pattern gives each code point, as the ``tokenizers`` library sees it.

    The library's tables of Unicode properties decide, and they are asked once per character that occurs.
    """

    def __init__(self) -> None:
        self._table = np.full(N_CODE_POINTS, _UNKNOWN, dtype=np.uint8)
        self._splitters = [(c, pre_tokenizers.Split(Regex(p), "isolated")) for c, p in _CLASS_PATTERNS]
        self._learn(np.arange(128, dtype=np.uint32))

    def __call__(self, points: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        classes: npt.NDArray[np.uint8] = self._table[points]
        if points.dtype != np.uint8:
            unknown = classes == _UNKNOWN
            if unknown.any():
                self._learn(np.unique(points[unknown]))
                classes = self._table[points]
        return classes

    def _learn(self, points: npt.NDArray[np.uint32]) -> None:
        self._table[points] = _OTHER
        characters = [chr(point) for point in points.tolist()]
        asked = frozenset(characters)
        for class_number, splitter in self._splitters:
            # "." is of no class, so with one before every character a matching one is a piece of its own.
            pieces = splitter.pre_tokenize_str("." + ".".join(characters) + ".")
            for piece, (start, _) in pieces:
                if start % 2 == 1 and piece in asked:
                    self._table[ord(piece)] = class_number


class ByteLevelEncoder:
    """GPT-2's split and a table of words, see the module's text."""

    # A corpus in a language without spaces has ever new words; the table starts afresh when it is full.
    MOST_WORDS = 1 << 20
    _TABLE_BITS = 18

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._classes = CharacterClasses()
        self._words_to_ids = _WordMerger(tokenizer)
        self._symbols = mix(np.arange(N_CODE_POINTS, dtype=np.uint64) + np.uint64(0x2545F4914F6CDD1D))
        self._clear()

    def _clear(self) -> None:
        self._keys = np.zeros(1 << self._TABLE_BITS, dtype=np.uint64)
        self._words = np.zeros(1 << self._TABLE_BITS, dtype=np.int32)
        self._first = np.zeros(1 << 16, dtype=np.int32)  # where the ids of a word start in _pool
        self._length = np.zeros(1 << 16, dtype=np.int32)
        self._pool = np.zeros(1 << 18, dtype=np.int32)
        self._n_words = self._n_pool = 0

    def encode(self, texts: Sequence[str]) -> tuple[TokenIds, Ids]:
        """(ids, counts) as ``BulkEncoder.encode``."""
        block = "\0".join(texts) + "\0"
        points = code_points(block)
        ends = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1) - 1
        starts = np.flatnonzero(word_starts(points, self._classes(points), ends))
        symbols = self._symbols[:128] if points.dtype == np.uint8 else self._symbols
        hashes = span_hashes(symbols[points], starts)
        words = self._look_up(hashes, starts, block)
        is_end = np.zeros(len(points), dtype=bool)
        is_end[ends] = True
        lengths = self._length[words].astype(np.int64)
        lengths[is_end[starts]] = 0  # the mark between documents is not text
        total = int(lengths.sum())
        after = np.cumsum(lengths)
        ids = self._pool[np.repeat(self._first[words] - (after - lengths), lengths) + np.arange(total)]
        last_word = np.searchsorted(starts, ends)
        return ids, np.diff(after[last_word], prepend=0)

    def _look_up(self, hashes: UInt64, starts: Ids, block: str) -> npt.NDArray[np.int32]:
        """The number of each word; new words are encoded and stored first."""
        if self._n_words > self.MOST_WORDS:
            self._clear()
        hashes[hashes == 0] = 1  # 0 marks a free place
        words, missing = self._find(hashes)
        if len(missing):
            new, first_use = np.unique(hashes[missing], return_index=True)
            places = missing[first_use]
            spans = np.append(starts, len(block))
            self._add(new, [block[spans[place] : spans[place + 1]] for place in places.tolist()])
            words[missing], still = self._find(hashes[missing])
            assert not len(still)
        return words

    def _find(self, hashes: UInt64) -> tuple[npt.NDArray[np.int32], Ids]:
        """Word numbers by open addressing with linear probing, and the places whose hash is not in the table."""
        mask = np.int64(len(self._keys) - 1)
        slots = (hashes >> np.uint64(64 - self._TABLE_BITS)).astype(np.int64)
        found = self._keys[slots]
        words = self._words[slots]
        pending = np.flatnonzero(found != hashes)
        missing = [pending[found[pending] == 0]]
        pending = pending[found[pending] != 0]
        while len(pending):
            slots[pending] = (slots[pending] + 1) & mask
            here = self._keys[slots[pending]]
            hit = here == hashes[pending]
            words[pending[hit]] = self._words[slots[pending[hit]]]
            missing.append(pending[here == 0])
            pending = pending[~hit & (here != 0)]
        return words, np.concatenate(missing)

    def _add(self, hashes: UInt64, texts: list[str]) -> None:
        while self._n_words + len(texts) > len(self._keys) // 2:
            self._TABLE_BITS += 1
            self._rehash()
        ids, counts = self._words_to_ids(texts)
        numbers = np.arange(self._n_words, self._n_words + len(texts))
        self._first = _grown(self._first, self._n_words + len(texts))
        self._length = _grown(self._length, self._n_words + len(texts))
        self._pool = _grown(self._pool, self._n_pool + len(ids))
        self._pool[self._n_pool : self._n_pool + len(ids)] = ids
        self._first[numbers] = self._n_pool + np.cumsum(counts) - counts
        self._length[numbers] = counts
        self._n_words += len(texts)
        self._n_pool += len(ids)
        self._insert(hashes, numbers)

    def _insert(self, hashes: UInt64, numbers: Ids) -> None:
        mask = np.int64(len(self._keys) - 1)
        slots = (hashes >> np.uint64(64 - self._TABLE_BITS)).astype(np.int64)
        pending = np.arange(len(hashes))
        while len(pending):
            free = pending[self._keys[slots[pending]] == 0]
            self._keys[slots[free]] = hashes[free]  # of several for one place the last stays
            self._words[slots[free]] = numbers[free]
            pending = pending[self._keys[slots[pending]] != hashes[pending]]
            slots[pending] = (slots[pending] + 1) & mask

    def _rehash(self) -> None:
        used = np.flatnonzero(self._keys)
        hashes, numbers = self._keys[used], self._words[used].astype(np.int64)
        self._keys = np.zeros(1 << self._TABLE_BITS, dtype=np.uint64)
        self._words = np.zeros(1 << self._TABLE_BITS, dtype=np.int32)
        self._insert(hashes, numbers)


# Bytes that UTF-8 text cannot contain.
_NEVER_IN_UTF8 = (0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0xFA, 0xF9, 0xF8, 0xF7, 0xF6, 0xF5, 0xC1, 0xC0)
_WORDS_AT_ONCE = 64


@functools.cache
def _symbol_table() -> npt.NDArray[np.uint16]:
    return np.array([ord(symbol) for symbol in symbol_of_byte()], dtype="<u2")


class _WordMerger:
    """Merges of many words in one call of the library, which costs more than the merges themselves.

    The words are joined by a byte that text cannot contain. No merge has it, so none reaches into another word.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._library = tokenizers.Tokenizer(tokenizer.backend.model)
        merges = json.loads(tokenizer.backend.to_str(pretty=False))["model"]["merges"]
        used = {symbol for merge in merges for symbol in "".join(merge)}
        ids = {byte: self._library.token_to_id(symbol_of_byte()[byte]) for byte in _NEVER_IN_UTF8}
        free = [byte for byte in _NEVER_IN_UTF8 if ids[byte] is not None and symbol_of_byte()[byte] not in used]
        self._joint = free[0] if free else None
        self._joint_id = ids[free[0]] if free else -1

    def __call__(self, words: list[str]) -> tuple[npt.NDArray[np.int32], Ids]:
        """(ids of all words one after the other, how many each has)."""
        if self._joint is None:
            merged = [self._library.encode(symbols).ids for word in words for symbols in _byte_symbols([word.encode()])]
            counts = np.fromiter(map(len, merged), dtype=np.int64, count=len(merged))
            return np.array([i for ids in merged for i in ids], dtype=np.int32), counts
        encoded = [word.encode() for word in words]
        joint = bytes([self._joint])
        groups = [
            joint.join(encoded[first : first + _WORDS_AT_ONCE]) + joint
            for first in range(0, len(encoded), _WORDS_AT_ONCE)
        ]
        encodings = self._library.encode_batch_fast(_byte_symbols(groups), add_special_tokens=False)
        ids = np.concatenate([np.array(encoding.ids, dtype=np.int32) for encoding in encodings])
        is_joint = ids == self._joint_id
        counts = np.diff(np.flatnonzero(is_joint), prepend=-1) - 1
        return ids[~is_joint], counts


def _byte_symbols(texts: list[bytes]) -> list[str]:
    """Each text in GPT-2's byte alphabet, the form in which the model knows it."""
    return [
        _symbol_table()[np.frombuffer(text, dtype=np.uint8)].tobytes().decode("utf-16-le") for text in texts
    ]


def _grown(array: npt.NDArray[np.int32], length: int) -> npt.NDArray[np.int32]:
    if length <= len(array):
        return array
    return np.concatenate([array, np.zeros(max(length - len(array), len(array)), dtype=array.dtype)])


def word_starts(points: npt.NDArray[Any], classes: npt.NDArray[np.uint8], ends: Ids) -> Bools:
    """Where the words of GPT-2's pattern start, shape (n,).

    The pattern: ``'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+``.
    points, classes: (n,) code points and their classes; ends: places of the marks that end each document, the
    last of which is the last point. Each mark is a word of its own. ``classes`` is written to.
    """
    classes[ends] = _END
    start = np.empty(len(points), dtype=bool)
    start[0] = True
    np.not_equal(classes[1:], classes[:-1], out=start[1:])
    # The last space before a word belongs to the word, if it is U+0020; any other whitespace there stands alone.
    is_space = classes == _SPACE
    before_word = is_space[:-1] & ~is_space[1:] & (classes[1:] != _END)
    start[:-1] |= before_word
    start[1:] &= ~(before_word & (points[:-1] == 0x20))
    start[ends] = True
    start[ends[:-1] + 1] = True
    _split_contractions(points, classes, start)
    return start


def _split_contractions(points: npt.NDArray[Any], classes: npt.NDArray[np.uint8], start: Bools) -> None:
    """An apostrophe that starts a word and is followed by an ending makes a word with that ending."""
    at = np.flatnonzero((points[:-1] == ord("'")) & start[:-1] & (classes[1:] == _LETTER))
    if not len(at):
        return
    n = len(points)
    first = points[at + 1]
    second = points[np.minimum(at + 2, n - 1)]
    length = np.zeros(len(at), dtype=np.int64)
    for ending in _CONTRACTIONS:
        match = first == ord(ending[0])
        if len(ending) == 2:
            match &= second == ord(ending[1])
        length[match & (length == 0)] = len(ending)
    at, length = at[length > 0], length[length > 0]
    start[at + 1] = False
    start[at + 1 + length] = True
