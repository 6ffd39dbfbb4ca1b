"""Language-neutral cleaning: one form of each character (Unicode NFC), one line end, no control characters."""

import dataclasses
import re
import unicodedata

# C0 controls other than tab and line feed, and DEL, as single bytes: vertical tab and form feed end a line,
# the rest go.
_TO_LINE_FEED = b"\x0b\x0c"
_REMOVED_BYTES = bytes(byte for byte in [*range(0x20), 0x7F] if byte not in b"\t\n\x0b\x0c\r")
_BYTE_TABLE = bytes.maketrans(_TO_LINE_FEED + b"\r", b"\n\n\n")
# Beyond ASCII: C1 controls, the byte-order mark and the non-characters. Joiners (U+200C, U+200D) stay: Persian,
# Indic scripts and emoji need them. Line and paragraph separators become line feeds.
_REMOVED = re.compile("[\x80-\x9f\ufeff\ufdd0-\ufdef\ufffe\uffff]")
_LINE_SEPARATORS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_REMOVED_ASCII = re.compile("[" + re.escape(_REMOVED_BYTES.decode("ascii")) + "]")


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
    if text.isascii():
        raw = text.encode("ascii")
        if b"\r" in raw:
            raw = raw.replace(b"\r\n", b"\n")
        result = raw.translate(_BYTE_TABLE, _REMOVED_BYTES)
        return Cleaned(result.decode("ascii"), len(raw) - len(result), False)
    text = _LINE_SEPARATORS.sub("\n", text)
    result_text, n_ascii = _REMOVED_ASCII.subn("", text)
    result_text, n_other = _REMOVED.subn("", result_text)
    if unicodedata.is_normalized("NFC", result_text):
        return Cleaned(result_text, n_ascii + n_other, False)
    return Cleaned(unicodedata.normalize("NFC", result_text), n_ascii + n_other, True)
