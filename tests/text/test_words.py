"""Words with their places, in the habits of tagged news."""

import pytest

from tickwise.text.words import split_characters, split_sentences, split_words, unwrapped


def words(text):
    return [text[place.start : place.end] for place in split_words(text)]


@pytest.mark.parametrize(("text", "expected"), [
    ("EU rejects German call.", ["EU", "rejects", "German", "call", "."]),
    ("He didn't see U.S. shares.", ["He", "did", "n't", "see", "U.S.", "shares", "."]),
    ("It's $1,000.50 (AL-AIN 1996-08-22)", ["It", "'s", "$", "1,000.50", "(", "AL-AIN", "1996-08-22", ")"]),
    ("@ada #win http://a.b/c?d=1 ok", ["@ada", "#win", "http://a.b/c?d=1", "ok"]),
    ("👩‍🚀👍🏽 é", ["👩‍🚀", "👍🏽", "é"]),
    ("שלום עולם", ["שלום", "עולם"]),
    ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
    ("  \n ", []),
])
def test_words(text, expected):
    assert words(text) == expected


def test_characters_leave_spaces_out():
    assert split_characters("中 国") == [(0, 1), (2, 3)]


def test_sentences_end_at_marks_lines_and_at_the_longest():
    text = "Ada sang. He left! no, he\nstayed"
    found = [[text[p.start : p.end] for p in s] for s in split_sentences(text, split_words(text))]
    assert found == [["Ada", "sang", "."], ["He", "left", "!", "no", ",", "he"], ["stayed"]]
    long_text = "a " * 25
    assert [len(s) for s in split_sentences(long_text, split_words(long_text), longest=10)] == [10, 10, 5]


def test_line_ends_that_only_wrap_a_paragraph_become_spaces():
    wrapped = "The city council met on Tuesday evening to discuss the\nnew bridge over the river.\n\n"
    assert unwrapped(wrapped) == wrapped.replace("the\nnew", "the new")
    for kept in ("A title\nand a line of text that is much longer than its title.", "apple\nbanana\ncherry\n",
                 "one two three four five six seven eight nine ten\n- one two three four five six seven eight nine",
                 "word " * 60 + "\n" + "word " * 60, "", "\n"):
        assert unwrapped(kept) == kept
    chinese = "量" * 40 + "\n" + "子" * 40 + "\n短。"
    assert unwrapped(chinese) == chinese.replace("\n", " ")


@pytest.mark.parametrize("kept", [
    # a sentence on each line, without and with marks
    "Marie Curie worked with her husband Pierre\nAda Lovelace wrote the first program for it\n"
    "Plato was the teacher of the young Aristotle\nParis is the capital city of the Republic",
    "Paris is the capital city of the French Republic\nBerlin is the capital city of Germany.",
    "Marie Curie worked with her husband Pierre.\nthen Ada Lovelace wrote the first program.",
    # lists, in upper and lower case
    "Shopping list for the weekend party at our house\nForty bottles of mineral water, still and cold\n"
    "Two large loaves of dark bread from the bakery\nCheese, butter and a big bag of red apples",
    "shopping for the weekend party at our house.\nforty bottles of mineral water, still and cold\n"
    "two large loaves of dark bread from the bakery",
    "Shopping list for the weekend party at our house\nforty bottles of mineral water, still and cold\n"
    "two large loaves of dark bread from the bakery\ncheese, butter and a big bag of red apples",
    "Things to do before the guests come at night.\na) buy forty bottles of mineral water now\n"
    "b) call the plumber about the leaking tap\n",
    # tables, logs, verses
    "| name of the thing | what it is for and how. |\n| apple | to eat it when you are hungry now |\n"
    "| pear | to give it to somebody who is hungry |",
    "The name of the thing\twhat it is good for now.\nthe apple\tto eat it when you are hungry",
    "2024-01-01 10:00:01 ERROR connection to db lost.\n2024-01-01 10:00:02 INFO connection to db is back\n"
    "2024-01-01 10:00:03 WARN disk almost full again",
    "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\n"
    "Rough winds do shake the darling buds of May,\nAnd summer's lease hath all too short a date;",
    "量" * 41 + "\n" + "子" * 40 + "\n" + "场" * 39 + "。",
])
def test_lines_that_were_not_wrapped_keep_their_ends(kept):
    assert unwrapped(kept) == kept


def test_names_and_numbers_may_begin_a_line_of_wrapped_prose():
    wrapped = ("The bridge was planned by the engineer and poet\nAda Brown, who came before the city council in\n"
               "1999 with a drawing that nobody had asked for\nand left with a contract. It was the longest\n"
               "bridge of the country until 2007.\n")
    assert unwrapped(wrapped + "\n" + wrapped) == wrapped.rstrip().replace("\n", " ") + "\n\n" + \
        wrapped.rstrip().replace("\n", " ") + "\n"
    item = "- a list whose items are longer than what has room\n  on one line. The second one is short\n- the end"
    assert unwrapped(item) == item.replace("room\n", "room ")
