"""The page of answers."""

import re
from html import unescape

from tickwise.report.answers import ShownAnswer, ShownPassage, answers_page

TEXT = "Ada <b>Lovelace</b> wrote it & more."


def shown(**more):
    passage = ShownPassage(text=TEXT, where="a & b.txt, line 1", scores=(("score", 0.5),), **more)
    return answers_page("t", [ShownAnswer("Who <wrote>?", "Ada <b>", (passage,))])


def words_of(page):
    return re.search('<p class="words" dir="auto">(.*?)</p>', page, re.S).group(1)


def test_texts_are_escaped_and_stay_whole():
    page = shown(start=0, end=6, tokens=((0, 3, 0.9, 0.1), (4, 7, 0.05, 0.8), (20, 25, 0.0001, 0.0)))
    assert unescape(re.sub("<[^>]*>", "", words_of(page))) == TEXT
    assert "<b>" not in page
    assert "Who &lt;wrote&gt;?" in page
    assert "a &amp; b.txt, line 1 · score 0.500" in page
    assert "default-src" in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_answer_is_marked_and_likely_tokens_are_shaded():
    words = words_of(shown(start=0, end=6, tokens=((0, 3, 0.9, 0.1), (4, 7, 0.05, 0.8), (20, 25, 0.0001, 0.0))))
    marked = re.search("<mark>(.*?)</mark>", words).group(1)
    assert unescape(re.sub("<[^>]*>", "", marked)) == "Ada <b"
    assert re.findall("begins ([0-9.]+), ends ([0-9.]+)", words) == [("0.900", "0.100"), ("0.050", "0.800"),
                                                                    ("0.050", "0.800")]
    first, second = re.findall(r"rgba\([0-9,]+,([0-9.]+)\) 50%,rgba\([0-9,]+,([0-9.]+)\)", words)[:2]
    assert first[0] == "0.75"
    assert float(first[1]) < float(second[1])
    assert float(second[0]) < float(second[1])


def test_without_answer_and_tokens_the_text_is_plain():
    page = shown()
    assert words_of(page) == "Ada &lt;b&gt;Lovelace&lt;/b&gt; wrote it &amp; more."
    assert "begins here" not in page
    page = answers_page("t", [ShownAnswer("q", "", ())], 7)
    assert "not found" in page
    assert "7 more answers are not shown" in page


def test_what_is_left_out_is_told():
    page = shown(before=1200, behind=5)
    assert "1,200 characters before" in page
    assert "5 characters behind" in page
