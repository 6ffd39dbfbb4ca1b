"""BLEU and chrF: known answers of sacrebleu's own tests, signatures, and texts that cannot be scored."""

import pytest

from tickwise.core.errors import DataError
from tickwise.evaluation.translation import are_sentences, table, tokenization_for, translation_scores

pytest.importorskip("sacrebleu")

# sacrebleu's test/test_bleu.py: the example of its README.
REFERENCES = [
    ["The dog bit the man.", "It was not unexpected.", "The man bit him first."],
    ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."],
]
TRANSLATIONS = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]


@pytest.mark.parametrize(("tokenize", "expected"), [("13a", 48.530827), ("none", 49.1919566), ("intl", 43.91623493)])
def test_bleu_of_sacrebleus_example(tokenize, expected):
    scores = translation_scores(TRANSLATIONS, REFERENCES, tokenize=tokenize, samples=0)
    assert scores.bleu.value == pytest.approx(expected, abs=1e-6)
    assert f"tok:{tokenize}" in scores.signatures["bleu"]
    assert "nrefs:2" in scores.signatures["bleu"]


@pytest.mark.parametrize(("translation", "reference", "expected"), [  # sacrebleu's test/test_chrf.py
    ("Co nás nejvíc trápí, protože lékaři si vybírají, kdo bude žít a kdo zemře.",
     "Nejvíce smutní jsme z toho, že musíme rozhodovat o tom, kdo bude žít a kdo zemře.", 39.14078509),
    ("Nebo prostě nemají vybavení, které by jim pomohlo, uvedli lékaři.",
     "A někdy nemáme ani potřebný materiál, abychom jim pomohli, popsali lékaři.", 31.22557079),
])
def test_chrf_of_sacrebleus_sentences(translation, reference, expected):
    scores = translation_scores([translation], [[reference]], samples=0)
    assert scores.chrf.value == pytest.approx(expected, abs=1e-4)


def test_case_counts_unless_said_otherwise():
    translations, references = ["the dog bit the man today ."], [["The Dog bit the man today ."]]
    cased = translation_scores(translations, references, samples=0)
    lowered = translation_scores(translations, references, lowercase=True, samples=0)
    assert cased.bleu.value < lowered.bleu.value == pytest.approx(100)
    assert "case:mixed" in cased.signatures["bleu"]
    assert "case:lc" in lowered.signatures["bleu"]
    assert lowered.chrf.value == pytest.approx(100)


def test_chinese_is_scored_by_characters():
    assert tokenization_for(["我喜欢狗。", "OK"]) == "13a"
    assert tokenization_for(["我喜欢狗。", "他也是。"]) == "zh"
    scores = translation_scores(["我喜欢大狗。"], [["我喜欢大猫。"]], samples=0)
    assert "tok:zh" in scores.signatures["bleu"]
    assert 0 < scores.bleu.value < 100


def test_intervals_and_json():
    scores = translation_scores(TRANSLATIONS * 5, [stream * 5 for stream in REFERENCES], samples=200)
    assert scores.bleu.value == pytest.approx(48.530827, abs=1e-6)
    assert scores.bleu.interval.low < 48.53 < scores.bleu.interval.high
    shown = scores.to_json("translation")
    assert shown["results"]["translation"]["bleu,none"] == scores.bleu.value
    assert shown["results"]["translation"]["chrf_stderr,none"] > 0
    assert shown["n-samples"]["translation"]["original"] == 15
    assert "version:" in shown["signatures"]["chrf"]
    printed = table(scores)
    assert "48.53" in printed
    assert scores.signatures["bleu"] in printed


def test_empty_translations_score_nothing_and_what_cannot_be_scored_is_named():
    assert translation_scores(["", ""], [["a dog", "a cat"]]).bleu.value == 0
    with pytest.raises(DataError, match="2 translations but 1 references"):
        translation_scores(["a", "b"], [["a"]])
    with pytest.raises(DataError, match="reference 2 is empty"):
        translation_scores(["a", "b"], [["a", " "]])
    with pytest.raises(DataError, match="no translations"):
        translation_scores([], [[]])


def test_sentences_are_told_from_labels():
    assert are_sentences(["a dog runs there", "yes", "the cat sleeps here"])
    assert are_sentences(["他是学生。", "我也是的"])
    assert not are_sentences(["positive", "very negative indeed", "neutral"])
    assert not are_sentences([])
