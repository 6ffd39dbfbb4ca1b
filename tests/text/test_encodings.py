"""Encodings guessed from texts in the languages that they are used for."""

import random

import pytest

from tickwise.core.errors import DataError
from tickwise.text.encodings import guess_encoding, guess_utf16
from tickwise.text.sources import decode

TEXTS = {
    "simplified": "今天的天气很好，我们一起去公园散步。他说：“这本书是在北京买的，里面有很多有趣的故事。”"
                  "经济发展和环境保护同样重要，政府应该听取人民的意见。",
    "traditional": "今天的天氣很好，我們一起去公園散步。他說：「這本書是在臺北買的，裡面有很多有趣的故事。」"
                   "經濟發展和環境保護同樣重要，政府應該聽取人民的意見。",
    "japanese": "今日は天気がとてもいいので、一緒に公園を散歩しましょう。この本は東京で買いました。"
                "コンピューターは毎日の生活に必要です。",
    "korean": "오늘은 날씨가 아주 좋아서 우리는 함께 공원에 갔습니다. "
              "이 책은 서울에서 샀고 재미있는 이야기가 많습니다.",
    "french": "Le garçon a mangé une pâtisserie très sucrée à l’école, où l’été était déjà arrivé.",
    "german": "Die Bäcker müssen früh aufstehen, damit die Brötchen für das Frühstück schön heiß sind.",
    "spanish": "El niño soñó con una montaña pequeña; ¿qué pasó después? ¡Ojalá él lo explicará mañana!",
    "russian": "Сегодня очень хорошая погода, и мы вместе пошли гулять в парк.",
}
CASES = [
    ("simplified", "gb18030", "GB18030"), ("simplified", "gb2312", "GB18030"), ("traditional", "big5", "BIG5"),
    ("traditional", "gb18030", "GB18030"),
    ("japanese", "cp932", "CP932"), ("japanese", "euc_jp", "EUC-JP"), ("korean", "euc_kr", "EUC-KR"),
    ("french", "cp1252", "WINDOWS-1252"), ("german", "latin-1", "WINDOWS-1252"),
    ("spanish", "latin-1", "WINDOWS-1252"), ("russian", "cp1251", None), ("russian", "koi8-r", None),
]


def first_error(data: bytes) -> int:
    with pytest.raises(UnicodeDecodeError) as caught:
        data.decode()
    return caught.value.start


@pytest.mark.parametrize(("language", "codec", "iconv"), CASES)
@pytest.mark.parametrize("repeats", [1, 100])
@pytest.mark.parametrize("before", ["", "Chapter 1\n\n", "a plain English line\n" * 200])
def test_encoding_is_guessed_from_the_bytes_around_the_error(language, codec, iconv, repeats, before):
    data = (before + TEXTS[language] * repeats).encode(codec)
    guess = guess_encoding(data, first_error(data))
    assert (guess.iconv if guess else None) == iconv


@pytest.mark.parametrize(("language", "codec", "iconv"), [case for case in CASES if case[2] not in (None, "EUC-KR")])
def test_a_part_of_a_text_is_enough(language, codec, iconv):
    """Forty parts of 40 letters each; one in ten may have too few telling letters."""
    rng = random.Random(6)
    text, right = TEXTS[language] * 2, 0
    for _ in range(40):
        start = rng.randrange(len(text) - 40)
        data = text[start : start + 40].encode(codec)
        try:
            data.decode()
        except UnicodeDecodeError as problem:
            guess = guess_encoding(data, problem.start)
            right += bool(guess) and guess.iconv == iconv
        else:
            right += 1
    assert right >= 36


def test_random_bytes_are_not_given_a_chinese_name():
    data = bytes(random.Random(1).randrange(128, 256) for _ in range(4000))
    assert guess_encoding(data, 0) is None


@pytest.mark.parametrize(("head", "iconv"), [
    ("\ufeffHello".encode("utf-16-le"), "UTF-16"), ("\ufeffHello".encode("utf-16-be"), "UTF-16"),
    ("Hello there\n".encode("utf-16-le"), "UTF-16LE"), ("Hello there\n".encode("utf-16-be"), "UTF-16BE"),
])
def test_utf16_is_known_by_its_mark_or_its_zeros(head, iconv):
    guess = guess_utf16(head)
    assert guess is not None
    assert guess.iconv == iconv


def test_other_bytes_are_not_utf16():
    assert guess_utf16(b"\x89PNG\0\0\0\rIHDR\0\0\2\0") is None
    assert guess_utf16(b"plain text") is None
    assert guess_utf16(b"") is None


def test_message_names_the_likeliest_encoding_or_none():
    with pytest.raises(DataError, match=r"a.txt: not valid UTF-8 at byte 103 \(0xbd\); it is probably GB18030 "
                                        r"\(Chinese\); convert it \(iconv -f GB18030 -t UTF-8\)"):
        decode(("abc" + TEXTS["simplified"]).encode("gb18030"), "a.txt", 100, "strict")
    with pytest.raises(DataError, match=r"byte 0 .*; convert it .*--errors replace"):
        decode(TEXTS["russian"].encode("cp1251"), "a.txt", 0, "strict")
