"""Words of raw text as a tagger's training data has them."""

import pytest

from tickwise.core.errors import CheckpointError
from tickwise.text.word_habits import FILE, WordHabits
from tickwise.text.words import split_sentences, split_words


def words(text, habits=None):
    return [text[place.start : place.end] for place in (habits or WordHabits()).split(text)]


@pytest.mark.parametrize(("text", "expected"), [
    ("C. Cairns b Saqlain 10.", ["C.", "Cairns", "b", "Saqlain", "10", "."]),
    ("Mr. George W. Bush left the U.S. today.", ["Mr.", "George", "W.", "Bush", "left", "the", "U.S.", "today", "."]),
    ("Malcolm X. (plan B.)", ["Malcolm", "X", ".", "(", "plan", "B", ".", ")"]),
    ("U.S.-led, 19-year-old, 10th", ["U.S.-led", ",", "19-year-old", ",", "10th"]),
    ("O'Brien didn't; I'LL", ["O'Brien", "did", "n't", ";", "I", "'LL"]),
    ("2. Ada 1996-08-22 1,000.5% +44 .500", ["2.", "Ada", "1996-08-22", "1,000.5%", "+44", ".500"]),
    ("C$5 -- so... http://a.b/C.D @ada", ["C$", "5", "--", "so", "...", "http://a.b/C.D", "@ada"]),
    ("Č. Novák 👍🏽 हिन्दी", ["Č.", "Novák", "👍🏽", "हिन्दी"]),
    (" \n", []),
])
def test_what_tagged_news_keeps_whole(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("It was me and I. He left. We had Plan B. The end came.",
     ["It was me and I .", "He left .", "We had Plan B .", "The end came ."]),
    ("It is vitamin C. Oranges have it.", ["It is vitamin C .", "Oranges have it ."]),
    ("Acme Inc. It is big.", ["Acme Inc .", "It is big ."]),
    ("We had Plan B. A man came. In group C. 3 left.", ["We had Plan B .", "A man came .", "In group C .", "3 left ."]),
    ("It was group D.\nSpain won.", ["It was group D .", "Spain won ."]),
    ("Acme Inc. Shares and Mr. He Jin rose.", ["Acme Inc. Shares and Mr. He Jin rose ."]),
    ("It was hit by J. A. Smith and J. van Dyke.", ["It was hit by J. A. Smith and J. van Dyke ."]),
])
def test_a_full_stop_that_may_end_a_sentence_does(text, expected):
    for habits in (WordHabits(), WordHabits.learn([["Mr.", "C.", "Cairns", "."], ["Acme", "Inc.", "and", "Inc."]])):
        sentences = split_sentences(text, habits.split(text))
        assert [" ".join(text[p.start : p.end] for p in sentence) for sentence in sentences] == expected


@pytest.mark.parametrize("run", ["1-", "12-345-", "1-_", "1_-", "1.-", "1a-", "A.", "A.-", "a'"])
def test_a_long_run_is_read_once(run):
    """Reading what follows anew from every place would take many minutes."""
    text = run * (200_000 // len(run))
    assert "".join(words(text)) == text


@pytest.mark.parametrize(("text", "expected"), [
    ("1-2-3", ["1-2-3"]), ("1-2-", ["1-2", "-"]), ("1-2-kg-x y", ["1-2-kg-x", "y"]), ("1-2_3-kg", ["1-2_3-kg"]),
    ("1.5kg, 3-a", ["1.5kg", ",", "3-a"]), ("1-_2 5:30pm", ["1", "-", "_2", "5:30pm"]),
])
def test_numbers_with_letters(text, expected):
    assert words(text) == expected


def test_abbreviations_are_learned_from_the_tokens():
    habits = WordHabits.learn([["Ray", "Calif.", "said"], ["in", "Calif.", "."], ["wait", "result.", "no", "."],
                               ["Dr", ".", "No"], ["no.", "7"]])
    assert words("of Calif. today") == ["of", "Calif", ".", "today"]
    assert words("of Calif. today", habits) == ["of", "Calif.", "today"]
    assert words("a result. no. Dr. No", habits) == ["a", "result", ".", "no", ".", "Dr", ".", "No"]
    assert words("Mr. Yes", habits) == ["Mr.", "Yes"]


def test_data_with_other_habits_is_followed():
    habits = WordHabits.learn([["I", "don't", "know", ":)"], ["you", "can't", ":)"], ["vitamin", "C", ".", "Good"],
                               ["1", ".", "Ada"], ["it", "'s"]])
    assert words("we won't :) C. it's", habits) == ["we", "won't", ":)", "C", ".", "it", "'s"]
    assert words("1. Ada", habits) == ["1", ".", "Ada"]


def test_tokens_joined_by_spaces_come_back():
    sentences = [["Mr.", "A.", "B", "."], ["St.", "Calif.", "O'Neil", "U.S"], ["at", "St.", "9", "."], ["U.S", "x"]]
    habits = WordHabits.learn(sentences)
    for tokens in sentences:
        assert words(" ".join(tokens), habits) == tokens


def test_habits_survive_saving(tmp_path):
    habits = WordHabits.learn([["Calif.", "don't"], ["Calif.", "don't"]])
    habits.save(tmp_path)
    again = WordHabits.load(tmp_path)
    assert (again.kept, again.forms, again.endings) == (habits.kept, habits.forms, habits.endings)
    (tmp_path / FILE).write_text('{"kept": [], "forms": ["odd"], "endings": []}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="how text is split"):
        WordHabits.load(tmp_path)
    (tmp_path / FILE).unlink()
    text = "C. Cairns of Acme Inc. has 19-year-old U.S.-led 10th ... -- O'Brien +44"
    assert WordHabits.load(tmp_path).split(text) == split_words(text)  # as before directories had the file
