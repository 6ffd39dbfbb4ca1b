"""Sentences that are words already, as an encoder reads them: the tokens of each word, and where each word begins."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickwise.core.errors import ConfigError
from tickwise.data.encoder_inputs import marks_of
from tickwise.tokenizers.places import placed_ids
from tickwise.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """Words ``start`` up to (not including) ``end`` of sentence number ``sentence``: ``ids`` (T,) with marks around
    them, and the place in them of each word's first token (W,); a word without a token has that of the first mark."""

    sentence: int
    start: int
    end: int
    ids: NDArray[np.int64]
    firsts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


class WordPieces:
    """Makes pieces of at most ``longest`` tokens. Words are read with spaces between them; ``characters`` (Chinese,
    where a word is one) each by itself, for a token may hold several."""

    def __init__(self, tokenizer: Tokenizer, longest: int, characters: bool) -> None:
        if longest < 3:
            raise ConfigError(f"an encoder of {longest} tokens has no room for a word between its marks")
        self.tokenizer, self.marks = tokenizer, marks_of(tokenizer)
        self._room, self._characters = longest - 2, characters

    def make(self, sentences: Sequence[Sequence[str]], joined: Sequence[Collection[int]] | None = None) -> list[Piece]:
        """The pieces of all sentences, in order. ``joined``: of each sentence the words at which no piece should begin;
        it does only where there is no other way. Of a word that is longer than a piece the beginning is read."""
        pieces: list[Piece] = []
        for number, words in enumerate(self._tokens(sentences)):
            closed = joined[number] if joined is not None else ()
            start = 0
            while start < len(words):
                end = self._end(words, start, closed)
                ids, firsts = [self.marks.cls], []
                for tokens in words[start:end]:
                    firsts.append(len(ids) if tokens else 0)
                    ids += tokens[: self._room]
                pieces.append(Piece(number, start, end, np.array([*ids, self.marks.sep], dtype=np.int64),
                                    np.array(firsts, dtype=np.int64)))
                start = end
        return pieces

    def _end(self, words: Sequence[Sequence[int]], start: int, closed: Collection[int]) -> int:
        end, n_tokens = start + 1, len(words[start])
        while end < len(words) and n_tokens + len(words[end]) <= self._room:
            n_tokens += len(words[end])
            end += 1
        if end == len(words):
            return end
        return next((place for place in range(end, start, -1) if place not in closed), end)

    def _tokens(self, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """The tokens of each word."""
        if self._characters:
            ids = iter(self.tokenizer.encode_batch([word for words in sentences for word in words]))
            return [[next(ids) for _ in words] for words in sentences]
        found = []
        for words, placed in zip(sentences, placed_ids(self.tokenizer, [" ".join(words) for words in sentences]),
                                 strict=True):
            own: list[list[int]] = [[] for _ in words]
            ends = np.cumsum([len(word) + 1 for word in words])
            for token, (start, _) in zip(placed.ids, placed.places, strict=True):
                own[min(int(np.searchsorted(ends, start, side="right")), len(words) - 1)].append(token)
            found.append(own)
        return found
