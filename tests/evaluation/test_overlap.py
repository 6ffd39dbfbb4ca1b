"""ROUGE and METEOR against known answers and outside code."""

import random

import pytest

from tickwise.core.errors import DataError
from tickwise.evaluation.overlap import mean_meteor, meteor, meteor_words, rouge
from tickwise.text.segment import mostly_chinese

pytest.importorskip("rouge_score")

HYPOTHESIS = "It is a guide to action which ensures that the military always obeys the commands of the party"
REFERENCES = (
    "It is a guide to action that ensures that the military will forever heed Party commands",
    "It is the guiding principle which guarantees the military forces always being under the command of the Party",
    "It is the practical guide for the army always to heed the directions of the party",
)


def test_meteor_of_the_example_in_nltks_documentation():
    assert round(meteor(HYPOTHESIS, REFERENCES), 4) == 0.6944
    assert round(meteor("non matching hypothesis", ["this is a cat"]), 4) == 0.0


def test_synonyms_match_where_they_are_given():
    always = {"always": {"forever", "constantly"}}
    assert round(meteor(HYPOTHESIS, REFERENCES[:1], synonyms=lambda word: always.get(word, set())), 4) == 0.7398


def test_meteor_equals_nltks():
    nltk_meteor = pytest.importorskip("nltk.translate.meteor_score")

    class NoWordnet:
        def synsets(self, word):
            return []

    draw = random.Random(1)
    words = ["the", "cat", "cats", "sat", "sitting", "on", "a", "mat", "mats", "runs", "running", "quickly", "quick"]
    for _ in range(200):
        a, b = (" ".join(draw.choices(words, k=draw.randint(1, 14))) for _ in range(2))
        expected = nltk_meteor.meteor_score([b.split()], a.split(), wordnet=NoWordnet())
        assert meteor(a, [b]) == pytest.approx(expected, abs=1e-12), (a, b)


def test_meteor_by_hand():
    # 6 of 6 words match in one chunk: F = 1, penalty = 0.5 / 6³.
    assert meteor("the cat sat on the mat", ["the cat sat on the mat"]) == pytest.approx(1 - 0.5 / 216)
    # "cats" matches "cat" by its stem only.
    assert meteor("cats", ["cat"]) == pytest.approx(0.5)


def test_meteor_takes_words_without_their_punctuation():
    assert meteor_words("Don't pay $3.50, said the cat_mat (twice).") == [
        "don't", "pay", "$", "3.50", ",", "said", "the", "cat", "_", "mat", "(", "twice", ")", "."]
    # 3 of 4 and of 3 words, in one chunk.
    f_mean = 0.75 / (0.9 * 0.75 + 0.1)
    assert meteor("the cat sat.", ["the cat sat"]) == pytest.approx(f_mean * (1 - 0.5 / 27))


def test_meteor_of_chinese_is_of_characters():
    assert meteor_words("我爱ABC。") == ["我", "爱", "abc", "。"]
    assert meteor("我爱北京", ["我爱上海"]) == pytest.approx(0.5 * (1 - 0.5 / 8))


def test_rouge_by_hand():
    scores = rouge(["the cat sat"], [["the cat lay down"]])
    assert scores["rouge1"].value == pytest.approx(2 * 2 / (3 + 4))
    assert scores["rouge2"].value == pytest.approx(2 * 1 / (2 + 3))
    assert scores["rougeL"].value == pytest.approx(2 * 2 / (3 + 4))


def test_rouge_stems_words():
    assert rouge(["cats running"], [["cat runs"]])["rouge1"].value == pytest.approx(1.0)


def test_several_references_count_by_the_best_or_the_mean():
    texts, references = ["a b"], [["a b", "c d"]]
    assert rouge(texts, references)["rouge1"].value == pytest.approx(1.0)
    assert rouge(texts, references, of="mean")["rouge1"].value == pytest.approx(0.5)


def test_chinese_is_compared_by_characters():
    scores = rouge(["量子计算机"], [["量子计算"]])
    assert scores["rouge1"].value == pytest.approx(2 * 4 / 9)
    assert scores["rouge2"].value == pytest.approx(2 * 3 / 7)


def test_a_chinese_name_does_not_make_english_chinese():
    texts, references = ["cats running", "she met 李"], [["cat runs"], ["she meets 李明 today in town"]]
    assert rouge(texts[:1], references[:1])["rouge1"].value == pytest.approx(1.0)
    with_name = rouge(texts, references)["rouge1"].value
    assert with_name == pytest.approx((1.0 + 2 * 1 / (2 + 5)) / 2)  # still stemmed, still words of Latin letters
    assert mostly_chinese(["量子 computer"])
    assert not mostly_chinese(["the word 中 means centre", ""])


def test_intervals_hold_the_mean():
    texts = ["a b c", "x", "a b", "b c d"] * 5
    score = rouge(texts, [["a b c d"]] * 20)["rouge1"]
    assert score.interval is not None
    assert score.interval.low < score.value < score.interval.high


def test_mistakes():
    with pytest.raises(DataError, match="2 texts but 1"):
        rouge(["a", "b"], [["a"]])
    with pytest.raises(DataError, match="text 2 has no reference"):
        rouge(["a", "b"], [["a"], []])
    with pytest.raises(DataError, match="no texts"):
        mean_meteor([], [])
