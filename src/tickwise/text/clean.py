"""Language-neutral cleaning: one form of each character (Unicode NFC), one line end, no control characters."""

import dataclasses
import re
import unicodedata

# C0 controls other than tab and line feed, and DEL, as single bytes: vertical tab and form feed end a line,
# the rest go. These bytes never occur inside the UTF-8 form of another character.
_TO_LINE_FEED = b"\x0b\x0c\r"
_REMOVED_BYTES = bytes(byte for byte in [*range(0x20), 0x7F] if byte not in b"\t\n" + _TO_LINE_FEED)
_BYTE_TABLE = bytes.maketrans(_TO_LINE_FEED, b"\n" * len(_TO_LINE_FEED))
# Beyond ASCII: C1 controls, the byte-order mark and the non-characters. Joiners (U+200C, U+200D) stay: Persian,
# Indic scripts and emoji need them. Next line, line and paragraph separator become line feeds. The first look is
# for their UTF-8 bytes, which is fast.
_SUSPECTS = (
    re.compile(b"\xc2[\x80-\x9f]"), re.compile(b"\xe2\x80[\xa8\xa9]"),
    re.compile(b"\xef(?:\xb7[\x90-\xaf]|\xbb\xbf|\xbf[\xbe\xbf])"),
)
_LINE_SEPARATORS = re.compile("[\x85\u2028\u2029]")
_REMOVED = re.compile("[\x80-\x9f\ufeff\ufdd0-\ufdef\ufffe\uffff]")


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """Clean text, how many characters were removed from it, and whether NFC changed anything."""

    text: str
    removed: int
    normalised: bool


def clean(text: str) -> Cleaned:
    """``text`` with line ends as ``\\n``, without control characters (tab and line feed stay), in Unicode NFC.

    Spaces, case and punctuation are left alone. Cleaning clean text changes nothing.
    """
    raw = text.encode()
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n")
    kept = raw.translate(_BYTE_TABLE, _REMOVED_BYTES)
    removed = len(raw) - len(kept)
    if text.isascii():
        return Cleaned(kept.decode("ascii"), removed, False)
    text = kept.decode()
    if any(pattern.search(kept) for pattern in _SUSPECTS):
        text, n = _REMOVED.subn("", _LINE_SEPARATORS.sub("\n", text))
        removed += n
    if unicodedata.is_normalized("NFC", text):
        return Cleaned(text, removed, False)
    return Cleaned(unicodedata.normalize("NFC", text), removed, True)
