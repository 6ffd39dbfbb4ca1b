"""Exact match and F1 as the official scripts of SQuAD and CMRC 2018 have them."""

import pytest

from tickwise.core.errors import DataError
from tickwise.evaluation.answers import answer_scores, cmrc_words, exact_match, f1, normalise


def test_normal_form_of_squad():
    assert normalise("The  Broncos' (2016) an apple, a day!") == "broncos 2016 apple day"


def test_squad():
    assert exact_match("the Denver Broncos.", ["Denver Broncos"])
    assert not exact_match("Broncos", ["Denver Broncos"])
    assert f1("Broncos of Denver", ["Denver Broncos"]) == pytest.approx(2 * 2 / (3 + 2))
    # The best reference counts; words count as often as both have them.
    assert f1("New York New York", ["York", "New York"]) == pytest.approx(2 * 2 / (4 + 2))
    assert f1("cat", ["dog"]) == 0


def test_questions_without_an_answer():
    assert exact_match("", [])
    assert f1("", []) == 1
    assert not exact_match("something", [])
    assert f1("something", []) == 0
    assert f1("something", ["...", "something"]) == 1


def test_cmrc_counts_the_longest_run_of_characters():
    assert cmrc_words("《战国无双3》是ω-Force的GAME。") == ["战", "国", "无", "双", "3", "是", "ωforce", "的", "game"]
    assert exact_match("《光荣》", ["光荣"], "cmrc")
    assert not exact_match("光荣公司", ["光荣"], "cmrc")
    assert f1("光荣公司", ["光荣"], "cmrc") == pytest.approx(2 * 2 / (4 + 2))
    # Two characters in common, but not in one run.
    assert f1("光公荣", ["光荣"], "cmrc") == pytest.approx(2 * 1 / (3 + 2))


def test_words_of_cmrc_equal_nltks_where_answers_have_latin_words(shared_data):
    treebank = pytest.importorskip("nltk.tokenize.destructive").NLTKWordTokenizer()
    import json
    import re

    content = json.loads((shared_data / "cmrc2018" / "cmrc2018_trial.json").read_text(encoding="utf-8"))
    answers = [a["text"] for article in content["data"] for p in article["paragraphs"] for q in p["qas"]
               for a in q["answers"]]
    runs = [run for answer in answers for run in re.findall(r"[A-Za-z0-9. ']{2,}", answer)]
    assert len(runs) > 100
    same = sum(cmrc_words(run) == treebank.tokenize(run.lower().strip()) for run in runs)
    assert same / len(runs) > 0.99


def test_means():
    scores = answer_scores(["a cat", "dog"], [["cat"], ["fish"]])
    assert (scores.exact_match.value, scores.f1.value, scores.n) == (0.5, 0.5, 2)
    with pytest.raises(DataError, match="each question needs one"):
        answer_scores(["a"], [])
