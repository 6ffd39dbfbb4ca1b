"""Ids of texts together with where in the text each token stands."""

from collections.abc import Sequence
from dataclasses import dataclass

from tickwise.core.errors import DataError
from tickwise.text.segment import SEPARATOR, segment_chinese
from tickwise.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class PlacedIds:
    """Token ids, and for each the characters ``start`` up to (not including) ``end`` that it stands for, white space at
    their ends left out. Parts of one character have the same place."""

    ids: list[int]
    places: list[tuple[int, int]]


def placed_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[PlacedIds]:
    """The tokens of each text with their places in it; no special token is added. ``DataError`` as for ``encode``."""
    if tokenizer.kind == "char":
        encoded = tokenizer.encode_batch(list(texts))
        # A special token that is written out in the text is one id for several characters.
        if all(len(ids) == len(text) for ids, text in zip(encoded, texts, strict=True)):
            return [PlacedIds(ids, [(i, i + 1) for i in range(len(ids))]) for ids in encoded]
    given = [segment_chinese(text) for text in texts] if tokenizer.segments_chinese else list(texts)
    try:
        encodings = tokenizer.backend.encode_batch(given, add_special_tokens=False)
    except Exception as problem:  # the library raises bare Exception
        raise DataError(f"cannot tokenize: {problem}") from None
    return [PlacedIds(encoding.ids, _places(encoding.offsets, text, own))
            for encoding, text, own in zip(encodings, texts, given, strict=True)]


def _places(offsets: Sequence[tuple[int, int]], text: str, given: str) -> list[tuple[int, int]]:
    """``offsets`` in ``given``, which is ``text`` with separators in it, as trimmed places in ``text``."""
    if len(given) != len(text):
        before = [0]
        for character in given:
            before.append(before[-1] + (character != SEPARATOR))
        offsets = [(before[start], before[end]) for start, end in offsets]
    places = []
    for start, end in offsets:
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        places.append((start, end))
    return places
