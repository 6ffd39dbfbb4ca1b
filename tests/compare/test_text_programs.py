"""Rules, lexicon, naive Bayes and dictionary on texts small enough to check by hand."""

import math

import pytest

from tickwise.compare.cases import Case
from tickwise.compare.programs import Tally
from tickwise.compare.text_programs import SPAM_PATTERNS, Dictionary, Lexicon, NaiveBayes, Rules

TRAINING = [Case("win cash now", "spam"), Case("see you now", "ham"), Case("see me", "ham")]


def test_naive_bayes_is_the_textbook_s():
    model = NaiveBayes(TRAINING)
    # 6 different words; ham has 5 words, spam 3: P(see | ham) = (2 + 1) / (5 + 6), P(see | spam) = 1 / (3 + 6).
    assert model.labels == ("ham", "spam")
    assert model.weights["see"] == pytest.approx((math.log(3 / 11), math.log(1 / 9)))
    assert model.priors == pytest.approx((math.log(2 / 3), math.log(1 / 3)))
    assert model.answer("see cash") == "ham", "3/11 · 1/11 · 2/3 > 1/9 · 2/9 · 1/3"
    assert model.answer("cash cash") == "spam"
    tally = Tally()
    model.answer("see unheard cash", tally)
    assert tally.steps == {"characters examined": 16, "hash probes": 3, "additions": 4}


def test_rules_need_two_signs_of_spam():
    rules = Rules(SPAM_PATTERNS, "spam", "ham", 2)
    assert rules.answer("URGENT! You have won a prize, call 08001234567") == "spam"
    assert rules.answer("did you win?") == "ham"


def test_the_lexicon_turns_round_after_a_negation():
    lexicon = Lexicon("1", "0")
    assert [lexicon.answer(text) for text in ("a great film", "not a great film", "boring", "it is not boring")] \
        == ["1", "0", "0", "1"]
    assert lexicon.answer("borring") == "1"
    assert lexicon.edited()[0].answer("borring") == "0"


def test_a_dictionary_follows_from_pairs():
    pairs = [Case("the house", "das haus"), Case("the book", "das buch"), Case("a book", "ein buch")]
    dictionary = Dictionary(pairs * 3)
    assert dictionary.answer("the book") == "das buch"
    assert dictionary.answer("a house") == "ein haus"
    assert dictionary.answer("a zebra") == "ein zebra", "what it does not know stays"
