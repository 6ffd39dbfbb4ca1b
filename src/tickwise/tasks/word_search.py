"""The likeliest words behind a text, by best-first search over the tokens that spell them.

A model gives probabilities of tokens, and a word may be spelt by several. A word's probability is that of its tokens
times that of something behind them which ends it: else "the" would count every "there". A beginning of a word is never
less likely than the words that begin with it. So the likeliest beginnings are read on first, and the search ends when
no beginning is left that is likelier than the last of the words that are asked for: no other spelling of what was
looked at can then beat them. A beam of fixed width would drop beginnings without such a proof, and keep some that
cannot win. Spellings of one word (other tokens, a line end in place of the blank) are added up as far as they are
found; those that are less likely than the last word shown are not looked for.

Not everything is looked at: of each beginning the likeliest 64 next tokens (twice as many as words are asked for, if
that is more), words of at most so many tokens, and so many reads of the model. Where the tokens behind these are likely
too, as behind a text that says little of what follows, a word that begins with one of them may be missing though it is
likelier than the last ones shown.

Where a vocabulary is made of words, a token is a word and the first distribution is all there is to see. Chinese has no
blanks: its words are those tokens, and in other vocabularies single characters.

Shape legend: R beginnings that are read together, V vocabulary.
"""

import heapq
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tickwise.text.segment import HAN_PATTERN, HAN_RUN
from tickwise.tokenizers.tokenizer import Tokenizer

LETTER = rf"(?:(?!{HAN_PATTERN})\w)"
WORD = rf"{LETTER}+(?:['’]{LETTER}+)*"
"""A run of letters, digits and underscores, with apostrophes inside: ``don't`` is one word."""
_WRITTEN = re.compile(
    rf"(?P<gap>\s*)(?:(?P<han>{HAN_PATTERN})|(?P<word>{WORD})(?P<open>['’]?))?(?P<rest>.*)", re.DOTALL)
_LETTER, _APOSTROPHE = re.compile(LETTER), ("'", "’")
_WORD_OF_TOKEN = re.compile(rf"\s*({WORD}|{HAN_PATTERN}+)")

MOST_TOKENS = 24
"""Of a word, with the blank before it."""
_BRANCHES = 64
"""Tokens that a beginning is continued with, at most; two for each word that is asked for, if that is more."""

Reader = Callable[[Sequence[tuple[int, ...]]], Tensor]
"""Of R beginnings (their tokens behind the text), the log-probabilities (R, V) of the next token."""
Start = Literal["anything", "blank"]


class FoundWord(NamedTuple):
    """A word, and how likely the text goes on with it."""

    word: str
    probability: float


class SpelledTokens:
    """What every token of a vocabulary spells, and which can begin, continue or end a word."""

    def __init__(self, tokenizer: Tokenizer, n_logits: int) -> None:
        """``n_logits`` is the model's vocabulary, which may be larger than the tokenizer's."""
        self.are_words = tokenizer.kind == "word"
        self.are_between_blanks = tokenizer.config.get("tickwise_word_style") == "spaces"
        self.bytes = [_spelled(tokenizer, token_id) if token_id < tokenizer.vocab_size else None
                      for token_id in range(max(n_logits, tokenizer.vocab_size))]
        texts = [None if piece is None else _decoded(piece) for piece in self.bytes]
        silent = torch.tensor([piece is None for piece in self.bytes])
        broken = ~silent & torch.tensor([text is None for text in texts])
        letter = torch.tensor([bool(text and _LETTER.match(text)) for text in texts])
        apostrophe = torch.tensor([bool(text and text.startswith(_APOSTROPHE)) for text in texts])
        han = torch.tensor([bool(text and HAN_RUN.match(text)) for text in texts])
        blank = torch.tensor([bool(text and text[0].isspace()) for text in texts])
        word = torch.tensor([bool(text and (text.isspace() or _WORD_OF_TOKEN.match(text))) for text in texts])
        self._goes_on = {False: letter | apostrophe | broken, True: letter | broken}
        """By whether the beginning ends with an apostrophe."""
        self._begins: dict[Start, Tensor] = {
            "anything": word | broken, "blank": word & (blank | han) | broken}
        self.words = [self._word(text) for text in texts] if self.are_words else []
        self.is_word = torch.tensor([bool(own) for own in self.words], dtype=torch.bool)

    def _word(self, text: str | None) -> str:
        """The word that a token of a vocabulary of words is; nothing for one that is none."""
        if text is None or self.are_between_blanks:
            return (text or "").strip()
        match = _WORD_OF_TOKEN.fullmatch(text)
        return match[1] if match is not None else ""

    def followers(self, written: "_Beginning", start: Start) -> Tensor:
        """(V,) true for the tokens that may stand behind a beginning of a word."""
        if not written.tokens:
            return self._begins[start]
        if written.word is None:
            behind_gap = self._begins["anything"]
            return torch.ones_like(behind_gap) if written.broken else behind_gap
        return self._goes_on[written.open]

    def ends(self, written: "_Beginning") -> Tensor:
        """(V,) true for the tokens that end the word of a beginning."""
        return ~self._goes_on[written.open]


class _Beginning(NamedTuple):
    """The tokens of a beginning, what they spell, its word so far, and whether an apostrophe stands behind that; its
    bytes may be ``broken`` off inside a character."""

    tokens: tuple[int, ...]
    spelled: bytes
    word: str | None
    open: bool
    broken: bool


def likeliest_words(spelled: SpelledTokens, read: Reader, n: int, *, start: Start, width: int, most_tokens: int,
                    most_reads: int) -> list[FoundWord]:
    """The ``n`` likeliest words, best first (fewer where the vocabulary has fewer, or the search ends).

    ``start`` says whether a blank must stand before a word of letters. ``width`` beginnings are read together; a word
    has at most ``most_tokens`` tokens. After ``most_reads`` the search ends with what it has found.
    """
    first = _Beginning((), b"", None, False, False)
    found: dict[str, float] = {}
    if spelled.are_words:
        _add_tokens_that_are_words(spelled, read([()])[0].exp(), n, found)
        return _best(found, n)
    order = itertools.count()
    open_beginnings = [(-1.0, next(order), first)]
    for _ in range(most_reads):
        least = sorted(found.values(), reverse=True)[n - 1] if len(found) >= n else 0.0
        chosen: list[tuple[float, _Beginning]] = []
        while open_beginnings and len(chosen) < width and -open_beginnings[0][0] > least:
            negative, _, beginning = heapq.heappop(open_beginnings)
            chosen.append((-negative, beginning))
        if not chosen:
            break
        rows_RV = read([beginning.tokens for _, beginning in chosen]).exp()
        for (probability, beginning), row_V in zip(chosen, rows_RV, strict=True):
            if beginning.word is not None and not beginning.broken:
                ended = probability * float(row_V[spelled.ends(beginning)].sum())
                found[beginning.word] = found.get(beginning.word, 0.0) + ended
            if len(beginning.tokens) >= most_tokens:
                continue
            shares_V = row_V * spelled.followers(beginning, start)
            best = shares_V.topk(min(max(_BRANCHES, 2 * n), len(shares_V)))
            for share, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                if share * probability <= least or spelled.bytes[token] is None:
                    continue
                after = _continued(beginning, token, spelled, start)
                if isinstance(after, _Beginning):
                    heapq.heappush(open_beginnings, (-share * probability, next(order), after))
                elif after:
                    found[after] = found.get(after, 0.0) + share * probability
    return _best(found, n)


def _best(found: dict[str, float], n: int) -> list[FoundWord]:
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [FoundWord(word, probability) for word, probability in ranked[:n] if probability > 0]


def _add_tokens_that_are_words(spelled: SpelledTokens, row_V: Tensor, n: int, found: dict[str, float]) -> None:
    """A word with a blank before it and without one are two tokens: both count."""
    shares_V = row_V * spelled.is_word
    best = shares_V.topk(min(2 * n + _BRANCHES, len(shares_V)))
    for share, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        if share > 0:
            found[spelled.words[token]] = found.get(spelled.words[token], 0.0) + share


def _continued(beginning: _Beginning, token: int, spelled: SpelledTokens, start: Start) -> _Beginning | str:
    """What stands there with one more token: a longer beginning, a word that is complete, or "" for what is none."""
    piece = spelled.bytes[token]
    assert piece is not None
    tokens, written = (*beginning.tokens, token), beginning.spelled + piece
    text = _decoded(written)
    if text is None:
        # A character may be broken off at the end; what is no character at all has more than three such bytes.
        whole = written.decode("utf-8", "ignore")
        if len(written) - len(whole.encode()) > 3:
            return ""
        match = _WRITTEN.match(whole)
        assert match is not None
        return "" if match["rest"] else _Beginning(tokens, written, match["word"], bool(match["open"]), True)
    match = _WRITTEN.match(text)
    assert match is not None
    if match["han"]:
        return match["han"]
    if match["word"] is None:
        return "" if match["rest"] else _Beginning(tokens, written, None, False, False)
    if start == "blank" and not match["gap"]:
        return ""
    if match["rest"]:
        return match["word"]
    return _Beginning(tokens, written, match["word"], bool(match["open"]), False)


def _decoded(piece: bytes) -> str | None:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _spelled(tokenizer: Tokenizer, token_id: int) -> bytes | None:
    """``Tokenizer.spelled_bytes`` of what stands for text; ``None`` for marks and for ``<unk>``."""
    silent = token_id in (tokenizer.unk_id, tokenizer.eos_id, tokenizer.bos_id) or tokenizer.is_special(token_id)
    return None if silent or tokenizer.backend.id_to_token(token_id) is None else tokenizer.spelled_bytes(token_id)
