"""Features of texts: which there are, where they stand, and that one text says nothing about another."""

import time

import numpy as np
import pytest

from tickwise.text.ngrams import Family, NgramSettings, ngrams

WORDS = NgramSettings(word_ngrams=1, max_characters=0)
PAIRS = NgramSettings(word_ngrams=2, max_characters=0)
CHARACTERS = NgramSettings(word_ngrams=0, min_characters=2, max_characters=3)


def pieces(text, settings, family):
    found = ngrams([text], settings)
    own = found.key >> 30 == family
    return [text[a:b] for a, b in zip(found.start[own], found.end[own], strict=True)]


def keys(text, settings=WORDS):
    return set(ngrams([text], settings).key.tolist())


def test_units_are_words_marks_emoji_and_chinese_words():
    assert pieces("Don't stop, 东方 12:30!😀", WORDS, Family.WORD) == [
        "Don", "'", "t", "stop", ",", "东方", "12", ":", "30", "!", "😀"]
    assert pieces("我们在北京大学学习", WORDS, Family.WORD) == ["我们", "在", "北京大学", "学习"]
    alone = NgramSettings(word_ngrams=1, max_characters=0, segment=False)
    assert pieces("北京大学", alone, Family.WORD) == ["北", "京", "大", "学"]


def test_pairs_of_units_know_the_beginning_and_the_end():
    assert pieces("a b", PAIRS, Family.WORD_NGRAM) == ["a", "a b", "b"]
    first, last = keys("who is", PAIRS), keys("is who", PAIRS)
    assert len(first & last) == 2  # the two words alone: no pair is the same


def test_characters_stay_between_spaces():
    assert pieces("ab cd", CHARACTERS, Family.CHARACTERS) == ["a", "ab", "b", "c", "cd", "d", "ab", "ab", "cd", "cd"]


def test_case_full_width_and_digits():
    assert keys("FREE") == keys("free") == keys("ＦＲＥＥ")
    shapes = [{k for k in keys(text) if k >> 30 == Family.SHAPE} for text in ("call 0812", "call 0937", "call 12")]
    assert shapes[0] == shapes[1] != shapes[2]
    assert keys("call 0812") != keys("call 0937")


@pytest.mark.parametrize("settings", [WORDS, PAIRS, CHARACTERS, NgramSettings()])
def test_a_text_has_the_same_features_in_any_company(settings):
    texts = ["Hello, world", "", "我们 在 北京!", "مرحبا بالعالم", "a\nb\n", "\u200f", "x", "Hello, world"]
    together = ngrams(texts, settings)
    for i, text in enumerate(texts):
        alone = ngrams([text], settings)
        own = together.text == i
        assert together.key[own].tolist() == alone.key.tolist()
        assert together.start[own].tolist() == alone.start.tolist()
        assert together.end[own].tolist() == alone.end.tolist()


def test_no_text_and_no_features():
    assert len(ngrams([], NgramSettings()).key) == 0
    assert len(ngrams(["", " \n\t"], NgramSettings()).key) == 0


def test_a_line_of_a_megabyte_takes_seconds():
    start = time.process_time()  # what other programs do does not count
    for text in ("ab" * 500_000, "word " * 200_000):
        found = ngrams([text], NgramSettings())
        assert found.end.max() == len(text.rstrip())
    assert time.process_time() - start < 10


def test_different_words_have_different_keys():
    texts = [f"word{i}" for i in range(20_000)]
    found = ngrams(texts, WORDS)
    words = found.key[found.key >> 30 == Family.WORD]
    assert len(np.unique(words)) >= 19_995  # 30 bits: about 0.2 pairs are expected to collide
