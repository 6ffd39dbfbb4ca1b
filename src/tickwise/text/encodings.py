"""What encoding bytes that are not UTF-8 are probably in, by the characters that each candidate makes of them."""

import dataclasses
import re

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""With which a text in UTF-16 begins; no text in UTF-8 does."""
_BEFORE_BYTES = 1_000
_SAMPLE_BYTES = 4_000
_ENOUGH_COMMON = 0.75  # share of a language's everyday characters; text of another encoding has about half or fewer
_ENOUGH_KANA = 0.25  # of Japanese text half is kana
_ENOUGH_HANGUL = 0.9
_WORDS_BEYOND_ASCII = re.compile(rb"[A-Za-z]*[\x80-\xff][A-Za-z\x80-\xff]*")


@dataclasses.dataclass(frozen=True)
class Encoding:
    """An encoding's name for people, and its name for iconv."""

    name: str
    iconv: str


_GB18030 = Encoding("GB18030 (Chinese)", "GB18030")
_BIG5 = Encoding("Big5 (Chinese)", "BIG5")
_EUC_KR = Encoding("EUC-KR (Korean)", "EUC-KR")
_SHIFT_JIS = Encoding("Shift-JIS (Japanese)", "CP932")
_EUC_JP = Encoding("EUC-JP (Japanese)", "EUC-JP")
_WINDOWS_1252 = Encoding("Windows-1252 (Western European)", "WINDOWS-1252")


def guess_encoding(data: bytes, at: int) -> Encoding | None:
    """The likeliest encoding of ``data``, judged by the bytes around offset ``at``, where it stops being UTF-8.

    Bytes that are valid in several encodings are everyday characters in one of them only: the common hanzi, which
    GB 2312 and Big5 put into their first level, hangul or kana. None when no candidate fits.
    """
    sample = _around(data, at)
    words = b"".join(_WORDS_BEYOND_ASCII.findall(sample))
    if 2 * sum(byte >= 0x80 for byte in words) <= len(words):  # few letters have accents: Western European
        return _WINDOWS_1252 if _decoded(sample, "cp1252") is not None else None
    characters = {codec: _beyond_ascii(sample, codec) for codec in
                  ("euc_kr", "cp932", "euc_jp", "gb18030", "big5")}
    if _share(characters["euc_kr"], "\uac00", "\ud7a3") >= _ENOUGH_HANGUL:
        return _EUC_KR
    for codec, encoding in (("cp932", _SHIFT_JIS), ("euc_jp", _EUC_JP)):
        if _share(characters[codec], "\u3041", "\u30fc") >= _ENOUGH_KANA:
            return encoding
    chinese = max(
        (_share_of_common_hanzi(characters["gb18030"]), 1, _GB18030),
        (_share_of_common_hanzi(characters["big5"]), 0, _BIG5), key=lambda one: one[:2],
    )
    if chinese[0] >= _ENOUGH_COMMON:
        return chinese[2]
    return None


def guess_utf16(head: bytes) -> Encoding | None:
    """UTF-16 when the start of a file has its byte-order mark, or zeros in every other byte as ASCII gets them."""
    if head[:2] in UTF16_MARKS:
        return Encoding("UTF-16", "UTF-16")
    zeros = [half.count(0) / max(len(half), 1) for half in (head[::2], head[1::2])]
    for order, full, empty in (("LE", zeros[1], zeros[0]), ("BE", zeros[0], zeros[1])):
        if full > 0.3 and empty < 0.02:
            return Encoding(f"UTF-16{order}", f"UTF-16{order}")
    return None


def _around(data: bytes, at: int) -> bytes:
    """Bytes around ``at`` that begin at a character: after a byte that is never the second one of two."""
    begin = at
    for start in range(at, max(0, at - _BEFORE_BYTES), -1):
        if data[start - 1] < 0x30:
            begin = start
    if at <= _BEFORE_BYTES:
        begin = 0
    return data[begin : at + _SAMPLE_BYTES]


def _decoded(sample: bytes, codec: str) -> str | None:
    """``sample`` as text, without a last character that is cut in two; None when it is not valid."""
    for cut in range(4):
        try:
            return sample[: len(sample) - cut].decode(codec)
        except UnicodeDecodeError as problem:
            if problem.start < len(sample) - 4:
                return None
    return None


def _beyond_ascii(sample: bytes, codec: str) -> str:
    """The letters beyond ASCII that ``codec`` makes of ``sample``, "" when it is not valid in it."""
    text = _decoded(sample, codec) or ""
    return "".join(c for c in text if c > "\x7f" and (c.isalpha() or "\ue000" <= c <= "\uf8ff"))


def _share(characters: str, first: str, last: str) -> float:
    return sum(first <= c <= last for c in characters) / max(len(characters), 1)


def _share_of_common_hanzi(characters: str) -> float:
    """Share of ``characters`` in the first level of GB 2312 (first bytes B0 to D7) or of Big5 (A4 to C6)."""
    common = sum(
        b"\xb0" <= c.encode("gb2312", "ignore")[:1] <= b"\xd7" or b"\xa4" <= c.encode("big5", "ignore")[:1] <= b"\xc6"
        for c in characters
    )
    return common / max(len(characters), 1)
