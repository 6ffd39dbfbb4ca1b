"""Rules, lexicon, naive Bayes and dictionary on texts small enough to check by hand."""

import math
from types import SimpleNamespace

import pytest

from tickwise.compare.cases import Case
from tickwise.compare.measure import exact
from tickwise.compare.programs import Constant, Tally
from tickwise.compare.spelling import corrected
from tickwise.compare.text_programs import SPAM_PATTERNS, Dictionary, Lexicon, NaiveBayes, Rules, words_of

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


MESSAGES = [Case("you won a prize, call 08001234567", "spam"), Case("claim your prize 08009876543", "spam"),
            Case("are you free tonight?", "ham"), Case("i am free now", "ham"), Case("free ringtone 87121", "spam"),
            Case("will you call me", "ham"), Case("nobody won", "ham"), Case("see you", "ham")]


def test_rules_are_those_that_speak_for_spam_in_the_training():
    rules = Rules.chosen(SPAM_PATTERNS, MESSAGES, "spam", "ham")
    patterns = [pattern.pattern for pattern in rules.patterns]
    assert r"\bfree\b" not in patterns, "two of three free messages are none"
    assert any("prize" in pattern for pattern in patterns)
    assert [rules.answer(case.text) for case in MESSAGES] == [case.answer for case in MESSAGES]


def test_no_pattern_is_found_inside_another_word():
    assert Rules(SPAM_PATTERNS, "spam", "ham", 1).answer("the mobility of wine in cashmere stops nobody") == "ham"


def test_the_lexicon_turns_round_after_a_negation():
    training = [Case("a great film", "1"), Case("so boring", "0"), Case("a film", "0"), Case("too great", "1"),
                Case("too funny", "1"), Case("funny", "1")]
    lexicon = Lexicon(training, "1", "0")
    texts = {"a great film": "1", "not a great film": "0", "boring": "0", "it is not boring": "1",
             "it is n't boring": "1", "it isn't boring": "1", "it isn’t great": "0",
             "not that i slept , it was great": "1", "a film": "0"}
    assert {text: lexicon.answer(text) for text in texts} == texts
    assert "too" not in lexicon.weights, "it is listed as a bad word, and the training has it in good ones"


def test_negations_are_words():
    assert words_of("It isn't; ca n't, don’t!") == ["it", "is", "n't", ";", "ca", "n't", ",", "do", "n’t", "!"]


def test_the_edit_reads_unknown_words_as_known_ones():
    program = NaiveBayes(TRAINING)
    edited, what = corrected(program, [case.text for case in TRAINING])
    assert "one typing error" in what
    assert (program.answer("csah"), edited.answer("csah")) == ("ham", "spam")
    assert edited.answer("see you") == program.answer("see you")
    heard = []
    edited.program = SimpleNamespace(answer=lambda text, tally=None: heard.append(text))
    edited.answer("caash for yuo, Csah nwo zebra 123")
    assert heard == ["cash for you, cash now zebra 123"]


def test_a_constant_answer_is_the_one_that_does_best_on_the_development_part():
    development = [Case("", "ham"), Case("", "spam"), Case("", "spam")]
    assert Constant(TRAINING, TRAINING, exact).answer("win cash") == "ham"
    assert Constant(TRAINING, development, exact).answer("see me") == "spam"


def test_a_dictionary_follows_from_pairs():
    pairs = [Case("the house", "das haus"), Case("the book", "das buch"), Case("a book", "ein buch")]
    dictionary = Dictionary(pairs * 3)
    assert dictionary.answer("the book") == "das buch"
    assert dictionary.answer("a house") == "ein haus"
    assert dictionary.answer("a zebra") == "ein zebra", "what it does not know stays"
