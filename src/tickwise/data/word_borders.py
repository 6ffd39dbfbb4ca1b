"""Which tokens begin a word, so that words are masked whole."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickwise.text.segment import HAN_PATTERN, HAN_RUN, cut_chinese
from tickwise.tokenizers.tokenizer import Tokenizer

_WORDS = re.compile(rf"{HAN_PATTERN}+|(?:(?!{HAN_PATTERN})\w)+|.", re.DOTALL)
_NO_TEXT = "\ufffe"
_OTHER, _LETTER, _DIGIT, _INNER_BYTE, _SPACE = range(5)


class WordBorders:
    """Of token ids. A word is a run of letters or of digits; Chinese words are jieba's where every token is one
    character, and else single tokens. Marks of WordPiece (``##``) and SentencePiece (``▁``) are heeded."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = [tokenizer.backend.id_to_token(i) or "" for i in range(tokenizer.vocab_size)]
        self._characters: list[str] | None = None
        self._inside: NDArray[np.bool_] | None = None
        if tokenizer.kind == "char":
            self._characters = [piece if len(piece) == 1 else _NO_TEXT for piece in pieces]
        elif any(piece.startswith("##") for piece in pieces):
            self._inside = np.array([piece.startswith("##") for piece in pieces])
        elif tokenizer.is_byte_level:
            spelt = [b"\n" if tokenizer.is_special(i) else tokenizer.token_bytes(i) or b"\n"
                     for i in range(len(pieces))]
            self._first = np.array([_byte_kind(word[0]) for word in spelt])
            self._last = np.array([_last_kind(word) for word in spelt])
        elif any(piece.startswith("▁") for piece in pieces):
            self._inside = np.array([not piece.startswith("▁") and not tokenizer.is_special(i)
                                     for i, piece in enumerate(pieces)])
        else:
            self._inside = np.zeros(len(pieces), dtype=np.bool_)

    def begins(self, ids_BT: NDArray[Any]) -> NDArray[np.bool_]:
        """(B, T) true where a word begins; always at a row's first token."""
        if self._characters is not None:
            return np.stack([self._character_row(row) for row in ids_BT])
        if self._inside is not None:
            found = ~self._inside[ids_BT]
        else:
            first, last = self._first[ids_BT], self._last[ids_BT]
            found = np.ones(ids_BT.shape, dtype=np.bool_)
            first, before = first[:, 1:], last[:, :-1]
            joined = (first == _INNER_BYTE) | (((first == _LETTER) | (first == _DIGIT)) & (first == before))
            joined |= (before == _SPACE) & (first != _SPACE)  # a space that its word could not be merged with
            found[:, 1:] = ~joined
        found[:, 0] = True
        return found

    def _character_row(self, ids_T: NDArray[Any]) -> NDArray[np.bool_]:
        assert self._characters is not None
        text = "".join(self._characters[i] for i in ids_T)
        found = np.zeros(len(text), dtype=np.bool_)
        for match in _WORDS.finditer(text):
            at = match.start()
            found[at] = True
            if HAN_RUN.match(text[at]):
                for word in cut_chinese(match.group())[:-1]:
                    at += len(word)
                    found[at] = True
        return found


def _byte_kind(byte: int) -> int:
    """What a UTF-8 byte belongs to. Two-byte characters are letters (Latin, Greek, Cyrillic …); those of three and more
    are mostly Chinese, each a word of its own."""
    if 0x80 <= byte < 0xC0:
        return _INNER_BYTE
    if 0xC0 <= byte < 0xE0 or (chr(byte).isalpha() and byte < 0x80):
        return _LETTER
    if byte in b" \n\t":
        return _SPACE
    return _DIGIT if 0x30 <= byte <= 0x39 else _OTHER


def _last_kind(word: bytes) -> int:
    """What the last character of a token belongs to; a space only where it is all of it."""
    if word != b" " and word[-1:] in (b" ", b"\n", b"\t"):
        return _OTHER
    lead = next((byte for byte in reversed(word) if not 0x80 <= byte < 0xC0), 0xC3)
    return _byte_kind(lead)
