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
    chinese = "量" * 40 + "\n" + "子" * 40 + "\n短"
    assert unwrapped(chinese) == chinese.replace("\n", " ")
