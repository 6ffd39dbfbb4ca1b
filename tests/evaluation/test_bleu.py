"""BLEU and self-BLEU against values worked out by hand and against a direct count."""

import math
import random

import pytest

from tickwise.core.errors import ConfigError, DataError
from tickwise.evaluation.generation import References, bleu, distinct, self_bleu, sentence_bleu


def words(text):
    return text.split()


def test_a_sentence_of_the_corpus_has_the_highest_score():
    references = References.of([words("the cat is on the mat"), words("a dog")], 4)
    assert sentence_bleu(words("the cat is on the mat"), references, 4) == pytest.approx(1.0)


def test_the_example_of_the_paper():
    """Papineni et al. 2002: "the" seven times matches "the" only twice: precision 2/7."""
    references = References.of([words("the cat is on the mat"), words("there is a cat on the mat")], 2)
    assert sentence_bleu(words("the the the the the the the"), references, 1) == pytest.approx(2 / 7)


def test_bleu_2_by_hand():
    """5 of 6 words and 3 of 5 pairs match; both have 6 words."""
    references = References.of([words("the cat is on the mat")], 2)
    score = sentence_bleu(words("the cat sat on the mat"), references, 2)
    assert score == pytest.approx(math.sqrt(5 / 6 * 3 / 5))


def test_short_sentences_are_punished_by_the_closest_length():
    references = References.of([words("a b c d"), words("a b c d e f g h")], 1)
    assert sentence_bleu(words("a b"), references, 1) == pytest.approx(math.exp(1 - 4 / 2))
    assert sentence_bleu(words("a b c d e f g"), references, 1) == pytest.approx(math.exp(1 - 8 / 7))
    assert sentence_bleu(words("a b c d e f"), references, 1) == pytest.approx(1.0)  # 4 is as near as 8


def test_a_length_without_matches_counts_a_tenth():
    references = References.of([words("a b c")], 2)
    assert sentence_bleu(words("c b a"), references, 2) == pytest.approx(math.sqrt(1.0 * 0.1 / 2))
    assert sentence_bleu(words("x y z"), references, 2) == 0.0


def test_self_bleu_leaves_each_sentence_out():
    assert self_bleu([words("a b c d"), words("e f g h")], 2) == 0.0
    assert self_bleu([words("a b c d"), words("a b c d")], 4) == pytest.approx(1.0)
    mixed = [words("a b c d"), words("a b x y"), words("p q r s")]
    by_hand = sum(sentence_bleu(s, References.of([o for o in mixed if o is not s], 2), 2) for s in mixed) / 3
    assert self_bleu(mixed, 2) == pytest.approx(by_hand)


def test_leaving_out_gives_what_references_without_the_sentence_give():
    chooser = random.Random(1)
    sentences = [[chooser.choice("abcd") for _ in range(chooser.randint(1, 9))] for _ in range(40)]
    direct = [sentence_bleu(s, References.of(sentences[:i] + sentences[i + 1 :], 3), 3)
              for i, s in enumerate(sentences)]
    assert self_bleu(sentences, 3) == pytest.approx(sum(direct) / 40)


def test_distinct_counts_kinds_of_n_grams():
    assert distinct([words("a b a b")], 2) == pytest.approx(2 / 3)


def test_nothing_to_judge_is_refused():
    references = References.of([words("a b")], 2)
    with pytest.raises(DataError):
        bleu([], references, 2)
    with pytest.raises(DataError):
        self_bleu([words("a")], 2)
    with pytest.raises(ConfigError):
        sentence_bleu(words("a"), references, 3)
    assert sentence_bleu([], references, 2) == 0.0
