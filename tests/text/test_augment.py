"""Altered copies of training texts."""

import random
from collections import Counter

import pytest

from tickwise.core.errors import ConfigError
from tickwise.text.augment import AugmentOptions, altered, augmented

TEXT = "the quick brown fox jumps over the lazy dog again and again"


def test_copies_keep_their_label_and_differ():
    options = AugmentOptions(copies=3, swap=0.3, delete=0.2)
    texts, labels, sources = augmented([TEXT, "one"], ["a", "b"], options, seed=1)
    assert texts[:2] == [TEXT, "one"]
    assert sources == [0, 1, 0, 0, 0]
    assert Counter(labels)["a"] == 4
    assert all(text != TEXT for text in texts[2:])
    assert "" not in texts


def test_the_seed_decides():
    options = AugmentOptions(copies=2)
    first, second, other = (augmented([TEXT], ["a"], options, seed)[0] for seed in (1, 1, 2))
    assert first == second != other


def test_each_kind_of_change_does_what_it_says():
    chooser = random.Random(0)
    swapped = altered(TEXT, AugmentOptions(swap=1.0, delete=0.0), chooser)
    assert sorted(swapped.split()) == sorted(TEXT.split())
    assert swapped != TEXT
    deleted = altered(TEXT, AugmentOptions(swap=0.0, delete=0.5), chooser)
    assert 0 < len(deleted.split()) < len(TEXT.split())
    assert "  " not in deleted
    split = altered(TEXT, AugmentOptions(swap=0.0, delete=0.0, split=1.0), chooser)
    assert split.replace(" ", "") == TEXT.replace(" ", "")
    assert len(split.split()) > len(TEXT.split())
    replaced = altered("good film", AugmentOptions(swap=0.0, delete=0.0, synonym=1.0), chooser,
                       lambda word: ["great"] if word == "good" else [])
    assert replaced == "great film"


@pytest.mark.parametrize("n_words", [2, 4, 7, 10, 25])
@pytest.mark.parametrize("share", [0.1, 0.35])
def test_of_short_texts_too_the_share_that_was_asked_for_changes_places(n_words, share):
    words = [f"w{i}" for i in range(n_words)]
    chooser, n, moved = random.Random(5), 4000, 0
    for _ in range(n):
        changed = altered(" ".join(words), AugmentOptions(swap=share, delete=0.0), chooser).split()
        assert sorted(changed) == sorted(words)
        moved += sum(a != b for a, b in zip(words, changed, strict=True))
    # A word that is swapped twice counts once, so that of many swaps slightly fewer words have moved.
    assert 0.8 * share < moved / (n * n_words) < 1.1 * share


def test_a_text_of_one_word_has_nothing_to_swap():
    assert altered("one", AugmentOptions(swap=1.0, delete=0.0), random.Random(0)) == "one"


def test_at_least_one_word_stays_and_chinese_is_cut_into_words():
    chooser = random.Random(3)
    assert altered("hello", AugmentOptions(delete=1.0), chooser) == "hello"
    text = "我们在北京大学学习"
    shorter = altered(text, AugmentOptions(swap=0.0, delete=0.5), chooser)
    assert 0 < len(shorter) < len(text)
    assert set(shorter) <= set(text)


def test_synonyms_need_vectors():
    with pytest.raises(ConfigError, match="word vectors"):
        augmented([TEXT], ["a"], AugmentOptions(copies=1, synonym=0.1), seed=1)
