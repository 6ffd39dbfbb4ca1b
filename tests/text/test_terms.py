"""Content words of English and Chinese text."""

from tickwise.text.terms import content_runs, key_of


def runs(text):
    return [[text[t.start : t.end] for t in run] for run in content_runs(text)]


def test_stopwords_numbers_and_punctuation_part_the_runs():
    assert runs("The neural network of 1998 reads handwritten digits, quickly.") == [
        ["neural", "network"], ["reads", "handwritten", "digits"], ["quickly"]]


def test_chinese_words_keep_their_places():
    text = "我们在北京大学研究自然语言处理。"
    found = runs(text)
    assert "".join(word for run in found for word in run) in text
    assert any("北京" in word for run in found for word in run)
    assert all(len(word) > 1 for run in found for word in run)


def test_forms_of_a_word_share_a_key():
    assert key_of("Networks") == key_of("network") == key_of("Network's")
    assert key_of("glass") == "glass"


def test_a_text_without_content():
    assert runs("") == runs("the of 12 , 。") == []
