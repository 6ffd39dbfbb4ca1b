"""The terms under which a text is found.

Latin words are stemmed by Snowball's English stemmer (Porter 2). Chinese counts by words and by pairs of neighbouring
characters, which find what the segmenter cut otherwise. Function words are left out.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from tickwise.text.segment import HAN_PATTERN, HAN_RUN, cut_chinese

_WORD = re.compile(rf"{HAN_PATTERN}+|(?:(?!{HAN_PATTERN})[^\W_])+")
# What questions are asked with, and what stands in every passage. Rarer words of the kind weigh little by themselves.
_ENGLISH = """a an the and or but if of at by for with about to from in on into onto as than that this these those
it its he she they him his her their there here is are was were be been being am do does did done have has had
having will would can could shall should may might must what which who whom whose when where why how s t"""
_CHINESE = """的 了 是 在 和 与 或 及 也 都 就 而 但 被 把 让 从 到 于 对 为 之 其 这 那 哪
谁 什么 怎么 怎样 如何 为什么 为何 哪里 哪些 哪个 哪一 多少 几 吗 呢 啊 吧 有 没有 会 能 可以 一个 他 她 它
他们 我 你 我们 你们"""
_FUNCTION_WORDS = frozenset(_ENGLISH.split()) | frozenset(_CHINESE.split())


def words(text: str) -> Iterator[str]:
    """The words of ``text`` as it writes them (in Unicode's form NFKC): runs of letters or digits, Chinese words."""
    for match in _WORD.finditer(text if text.isascii() else unicodedata.normalize("NFKC", text)):
        word = match.group()
        if HAN_RUN.match(word):
            yield from cut_chinese(word)
        else:
            yield word


def search_terms(text: str) -> list[str]:
    """The terms of ``text``."""
    terms = [term for word in words(text) if (term := term_of(word))]
    if not text.isascii():
        for run in HAN_RUN.findall(text):
            terms += [run[i : i + 2] for i in range(len(run) - 1)]
    return terms


@functools.lru_cache(maxsize=1 << 18)
def term_of(word: str) -> str:
    """The term that a word's forms share; empty for a function word."""
    word = word.casefold()
    if word in _FUNCTION_WORDS:
        return ""
    return str(_stemmer().stemWord(word)) if word.isascii() else word


@functools.cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")
