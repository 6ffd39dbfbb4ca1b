import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from tickwise.text.clean import clean
from tickwise.text.codepoints import byte_offsets, count_words


def test_control_characters_go_and_line_ends_are_plain():
    result = clean("a\x00b\x07\tc\r\nd\re\x0bf\x7f")
    assert result.text == "ab\tc\nd\ne\nf"
    assert result.removed == 3


def test_beyond_ascii():
    result = clean("\ufeffé\x9bx\u2028y\u0085z\ufffe")
    assert result.text == "éx\ny\nz"
    assert result.removed == 3


def test_line_ends_beside_other_scripts():
    assert clean("é\r\n我\r").text == "é\n我\n"


def test_composed_form():
    result = clean("e\u0301 한")
    assert result.text == "é 한"
    assert result.normalised


def test_joiners_of_emoji_and_persian_stay():
    assert clean("👩\u200d👧 می\u200cخواهم").text == "👩\u200d👧 می\u200cخواهم"


@given(st.text())
def test_clean_text_stays_as_it_is(text):
    once = clean(text).text
    assert clean(once).text == once
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\t\n" for c in once)


@given(st.text())
def test_byte_offsets(text):
    offsets = byte_offsets(text)
    assert [len(text[:n].encode()) for n in range(len(text) + 1)] == offsets.tolist()


@given(st.text(alphabet="ab é\n\t\u3000\xa0!"))
def test_words_are_what_stands_between_whitespace(text):
    assert count_words(text) == (len(text.split()), 0)


def test_each_chinese_character_is_a_word():
    assert count_words("I like 自然语言 a lot") == (8, 4)
    assert count_words("") == (0, 0)
