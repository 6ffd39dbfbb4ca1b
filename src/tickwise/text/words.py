"""Words and sentences of raw text with their places, for models that were trained on text split into words.

The words follow the habits of tagged English news (CoNLL, Penn Treebank): punctuation stands alone, ``don't`` is ``do``
and ``n't``, ``U.S.``, ``1,000.5``, ``1996-08-22`` and ``AL-AIN`` are one word each.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

ADDRESS = r"https?://\S+|www\.\S+|[@#]\w+"  # mentions and tags too
ACRONYM = r"(?:[^\W\d_]\.){2,}"  # U.S.
_WORD = re.compile(
    rf"{ADDRESS}|{ACRONYM}"
    r"|\d+(?:[.,:/-]\d+)*%?"
    r"|n['’]t\b|['’](?:s|re|ve|ll|d|m)\b|\w+?(?=n['’]t\b)"
    r"|\w+(?:[-&]\w+)*|\S",
    re.IGNORECASE,
)
_ENDS = {".", "!", "?", "…", "。", "！", "？"}
_CLOSING = {'"', "'", "”", "’", ")", "]", "」", "』"}
_END_INSIDE = re.compile(r"[^\W\d_][\"'”’)\]]*[.!?…](?=[\s\"'”’)\]]|$)|[。！？]")
_CLOSED = re.compile(r"[.!?…:;。！？：；][\"'”’)\]」』]*$")
_ITEM = re.compile(r"\s*(?:[-*+•–>#](?:\s|$)|(?:\d+|[^\W\d_])[.)]\s)")  # of a list
_CELL = re.compile(r"\||\S\s*\t")  # of a table
_JOINERS = {"\u200c", "\u200d", "\ufe0e", "\ufe0f"}


class Place(NamedTuple):
    """Characters ``start`` up to (not including) ``end`` of a text."""

    start: int
    end: int


def split_words(text: str, whole: re.Pattern[str] | None = None) -> list[Place]:
    """The words of ``text`` in order; accents that stand alone, and what is joined to an emoji, stay with what is
    before them. Where ``whole`` matches, that is one word."""
    words: list[Place] = []
    for start, end in _spans(text, whole):
        if words and words[-1].end == start and _are_joined(text[start - 1], text[start]):
            words[-1] = Place(words[-1].start, end)
        else:
            words.append(Place(start, end))
    return words


def _spans(text: str, whole: re.Pattern[str] | None) -> Iterator[tuple[int, int]]:
    if whole is None:
        yield from (match.span() for match in _WORD.finditer(text))
        return
    at = 0
    while (match := _WORD.search(text, at)) is not None:
        match = whole.match(text, match.start()) or match
        yield match.span()
        at = match.end()


def _are_joined(before: str, after: str) -> bool:
    """Whether a combining mark, a joiner or an emoji's skin colour keeps two neighbouring characters in one word."""
    if after in _JOINERS or _is_mark(after) or "🏻" <= after <= "🏿":
        return True
    return before == "\u200d" or ((_is_mark(before) or before == "\u200c") and after.isalnum())


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def split_characters(text: str) -> list[Place]:
    """Every character but spaces as a word of its own."""
    return [Place(i, i + 1) for i, c in enumerate(text) if not c.isspace()]


def split_by_spaces(text: str) -> list[Place]:
    """What white space separates, for text that is split into words already."""
    return [Place(*match.span()) for match in re.finditer(r"\S+", text)]


def unwrapped(text: str, narrowest: int = 40, widest: int = 120) -> str:
    """``text`` with a space for each line end that only wraps a paragraph of ``narrowest`` to ``widest`` columns; what
    may be a list, a table, verses or a sentence on each line keeps its line ends."""
    parts = re.split(r"(\n)", text)
    lines, first = parts[::2], 0
    for i in range(len(lines) + 1):
        if i < len(lines) and lines[i].strip():
            continue
        if narrowest <= max((len(line.rstrip()) for line in lines[first:i]), default=0) <= widest:
            for j in _wrapping_ends([line.rstrip() for line in lines[first:i]]):
                parts[2 * (first + j) + 1] = " "
        first = i + 1
    return "".join(parts)


def _wrapping_ends(lines: Sequence[str]) -> list[int]:
    """After which lines of a paragraph a sentence goes on.

    It has a mark that ends a sentence, and of its lines that end without one at least half have no room for the next
    one's first word beside the longest line. Then a sentence goes on before a line that begins in lower case and, where
    such lines are at least half (or, in scripts without case, there are two or more), before the others too.
    """
    if lines[0].lstrip()[0].islower() or not any(map(_END_INSIDE.search, lines)):
        return []
    open_ends = [i for i in range(len(lines) - 1) if not _CLOSED.search(lines[i])]
    full, width = [], max(map(len, lines))
    for i in open_ends:
        word = lines[i + 1].split(None, 1)[0]
        needed = 1 if word[0] >= "\u2e80" else 1 + len(word)  # Han characters stand without spaces
        if len(lines[i]) + needed > width:
            full.append(i)
    if 2 * len(full) < len(open_ends):
        return []
    may = [i for i in full if not (_ITEM.match(lines[i + 1]) or _CELL.search(lines[i]) or _CELL.search(lines[i + 1]))]
    begin = {i: lines[i + 1].lstrip()[0] for i in may}
    lower = [i for i in may if begin[i].islower()]
    caseless = [i for i in may if unicodedata.category(begin[i]) == "Lo"]
    prose = 2 * len(lower) >= len(may) or (len(full) > 1 and 2 * len(lower + caseless) >= len(may))
    return may if prose else lower


def split_sentences(text: str, words: list[Place], longest: int = 500, *, at_marks: bool = True) -> list[list[Place]]:
    """``words`` in sentences: up to an end mark before something that is not in lower case, or a line's end, and at
    most ``longest`` words. Without ``at_marks`` every line is a sentence."""
    sentences: list[list[Place]] = []
    for index, word in enumerate(words):
        begins = index == 0 or len(sentences[-1]) >= longest
        if not begins:
            before = words[index - 1]
            ended = at_marks and text[before.start : before.end] in _ENDS
            first = text[word.start]
            follows_on = first.islower() or first in _ENDS or first in _CLOSING
            begins = (ended and not follows_on) or "\n" in text[before.end : word.start]
        if begins:
            sentences.append([])
        sentences[-1].append(word)
    return sentences
