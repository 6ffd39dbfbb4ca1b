"""Chinese words. Chinese is written without spaces, so a word tokenizer needs a segmenter."""

import re
from collections.abc import Iterable

# Marks a border between Chinese words inside a text that is about to be tokenized. A control character
# (U+001F, unit separator) that cleaning removes from every text, so it can never be content.
SEPARATOR = "\x1f"

# The characters themselves: the regular expressions of tokenizers would take a \U escape for letters and digits.
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HAN_RUN = re.compile(f"[{_HAN}]+")
HAN_PATTERN = f"[{_HAN}]"
CHARACTER_OR_WORD = re.compile(rf"{HAN_PATTERN}|(?:(?!{HAN_PATTERN})[^\W_])+")


def has_chinese(text: str) -> bool:
    """Whether the text has at least one Han character."""
    return not text.isascii() and HAN_RUN.search(text) is not None


def mostly_chinese(texts: Iterable[str]) -> bool:
    """Whether more than half of the words of all texts are Han characters, each of which counts as one."""
    n_han = n_words = 0
    for text in texts:
        words = CHARACTER_OR_WORD.findall(text)
        n_words += len(words)
        n_han += sum(map(has_chinese, words))
    return 2 * n_han > n_words


def segment_chinese(text: str) -> str:
    """``text`` with ``SEPARATOR`` between the words of each run of Han characters; the rest is unchanged.

    The words are rjieba's (a Rust port of jieba, HMM for unknown words on). Removing the separators gives
    the text back.
    """
    if not has_chinese(text):
        return text
    return HAN_RUN.sub(lambda run: SEPARATOR.join(("", *cut_chinese(run.group()), "")), text)


def cut_chinese(run: str) -> list[str]:
    """The words of a run of Han characters; joined they are the run."""
    import rjieba

    words: list[str] = rjieba.cut(run, True)
    return words
