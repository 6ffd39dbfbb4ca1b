"""Text that must follow a JSON schema, a regular expression, a list of choices or a grammar.

The library llguidance turns what is asked into a parser that, after every token, says which tokens may follow.
A ``Constraint`` is one compiled grammar for one tokenizer; each row of the batch has a ``GrammarState`` of it.

JSON is written as Python's ``json.dumps`` writes it (one space after ``,`` and ``:``, no line breaks), so that a model
cannot fill its tokens with white space; a schema's own ``x-guidance`` key says otherwise. Where the grammar leaves
nothing more to write, the text ends. A text that runs out of ``max_tokens`` first is cut off there: its reason to
finish is ``length``, and it need not be valid.

Shapes: V vocabulary.
"""

import functools
import json
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from tickwise.core.errors import ConfigError
from tickwise.engine.settings import GenerationSettings, StructureKind

if TYPE_CHECKING:
    import tokenizers
    from tickwise.tokenizers.tokenizer import Tokenizer

_MOST_CHARACTERS: dict[StructureKind, int] = {"json_schema": 1_000_000, "regex": 200_000, "choice": 200_000,
                                              "grammar": 200_000}
_CHECK_SECONDS = 20
# Ways to go on that the parser keeps apart after each token. An ambiguous grammar multiplies them: at 500 a token takes
# some 20 ms, at the library's 2000 more than a second. A schema has as many as an anyOf has alternatives.
_MOST_ITEMS: dict[StructureKind, int] = {"json_schema": 2000, "regex": 500, "choice": 500, "grammar": 500}
# The library's trie of tokens has no room for longer ones; they are never allowed.
_LONGEST_TOKEN_BYTES = 1000
# As json.dumps writes; a schema's own "x-guidance" key wins.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_REGEX_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$#&\-~/]")
_FORCED_TOKENS_FOLLOWED = 1000
_library_tokenizers: "weakref.WeakKeyDictionary[Tokenizer, Any]" = weakref.WeakKeyDictionary()


class Constraint:
    """A grammar compiled for one tokenizer. Rows start from it; it never changes."""

    def __init__(self, matcher: Any, kind: StructureKind, n_vocab: int) -> None:
        self._matcher, self._kind, self._n_vocab = matcher, kind, n_vocab

    def start(self) -> "GrammarState":
        """A row's own state, before its first token."""
        return GrammarState(self._matcher.deep_copy(), self._kind, self._n_vocab)


class GrammarState:
    """Where one row is in its grammar."""

    def __init__(self, matcher: Any, kind: StructureKind, n_vocab: int) -> None:
        self._matcher, self._kind, self._n_vocab = matcher, kind, n_vocab
        self.complete = False
        """Nothing more may be written."""

    def mask(self) -> npt.NDArray[np.bool_]:
        """Which tokens may follow, (V,). Raises ``ConfigError`` where the vocabulary has none, and where the
        grammar turns out to be too complex to follow."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        # After an error the library allows the end of the text, although the text is not complete.
        if self._matcher.is_error():
            raise self._dead_end()
        allowed = np.unpackbits(bits, count=self._n_vocab, bitorder="little").view(np.bool_)
        if not allowed.any():
            raise self._dead_end()
        return allowed

    def advance(self, token_id: int) -> None:
        """Take the token that was chosen, one that ``mask`` allows. Never raises, since other rows choose at the same
        time: when the grammar turns out to be too complex here, the next ``mask`` says so."""
        self.complete = self._matcher.consume_token(token_id) and self._matcher.is_stopped()

    def fork(self) -> "GrammarState":
        """An independent copy."""
        copy = GrammarState(self._matcher.deep_copy(), self._kind, self._n_vocab)
        copy.complete = self.complete
        return copy

    def _dead_end(self) -> ConfigError:
        if self._matcher.is_error() and "NoExtension" not in self._matcher.get_error():
            return self._too_complex()
        return ConfigError(f"{self._kind}: no token of this vocabulary can come next; the tokenizer needs more "
                           "characters (byte-level bpe has all)")

    def _too_complex(self) -> ConfigError:
        reason = _complaint(self._matcher.get_error())
        return ConfigError(f"{self._kind}: too complex to follow ({reason}); ask for something simpler")


def compile_constraint(settings: GenerationSettings, tokenizer: "Tokenizer") -> Constraint | None:
    """What ``settings`` ask the text to look like, compiled for ``tokenizer``; ``None`` when they ask nothing.

    Takes some tens of milliseconds, and more for the first one of a tokenizer. Raises ``ConfigError`` in one line
    for what is wrong, for what cannot be compiled within the limits on size, time and memory, and for what the
    vocabulary cannot write. A text is never generated without the constraint that was asked for.
    """
    if settings.structure is None:
        return None
    kind, text = settings.structure
    grammar = checked_grammar(kind, text)
    from llguidance import LLMatcher, LLParserLimits

    library_tokenizer = _library_tokenizer(tokenizer)
    limits = LLParserLimits(verbose_errors=False, max_items_in_row=_MOST_ITEMS[kind])
    matcher = LLMatcher(library_tokenizer, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        raise ConfigError(f"{kind}: {_complaint(matcher.get_error())}")
    constraint = Constraint(matcher, kind, tokenizer.vocab_size)
    _follow_forced_tokens(constraint.start())
    return constraint


_IN_LARK = "; this looks like GBNF: write it in Lark's notation, as in start: \"yes\" | \"no\""


def checked_grammar(kind: StructureKind, text: str) -> str:
    """The library's own form of what is asked. Raises ``ConfigError`` in one line for what can be seen to be wrong
    without a tokenizer, so that settings are refused where they are made."""
    try:
        import llguidance  # noqa: F401
    except ImportError:
        raise ConfigError(f"{kind}: needs llguidance; install it with pip install 'tickwise[structured]'") from None
    if len(text) > _MOST_CHARACTERS[kind]:
        raise ConfigError(f"{kind}: {len(text)} characters are too many (at most {_MOST_CHARACTERS[kind]})")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"{kind}: it holds half a character (a lone surrogate), which is not text")
    grammar = _grammar(kind, text)
    problem = _problem(grammar)
    if problem:
        gbnf = kind == "grammar" and "::=" in text
        raise ConfigError(f"{kind}: {problem}{_IN_LARK if gbnf else ''}")
    return grammar


def _grammar(kind: StructureKind, text: str) -> str:
    """The library's own form, which is not yet known to be valid."""
    from llguidance import LLMatcher

    if kind == "json_schema":
        # Options can only be told to an object; these two stand for ``true`` and ``false``.
        schema = {"true": "{}", "false": '{"not": {}}'}.get(text, text)
        try:
            return str(LLMatcher.grammar_from_json_schema(schema, defaults=cast(Any, _JSON_STYLE)))
        except ValueError as problem:
            raise ConfigError(f"{kind}: {_complaint(str(problem))}") from None
    if kind == "grammar":
        return str(LLMatcher.grammar_from_lark(text))
    if kind == "choice":
        text = "|".join(_REGEX_SPECIAL.sub(r"\\\g<0>", choice) for choice in json.loads(text))
    return str(LLMatcher.grammar_from_regex(text))


@functools.lru_cache(maxsize=256)
def _problem(grammar: str) -> str:
    """What keeps the grammar from being compiled, in one line; empty when nothing does.

    Compiling runs in a process of its own first (``grammar_check.py``): the library has limits, but not on
    everything, and a stack overflow or an endless loop here would take every other request with it.
    """
    command = [sys.executable, "-P", str(Path(__file__).with_name("grammar_check.py"))]
    try:
        done = subprocess.run(command, input=grammar.encode(), capture_output=True, timeout=_CHECK_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"too complex: it takes more than {_CHECK_SECONDS} s to compile"
    except OSError as problem:
        return f"cannot start the process that checks it ({problem.strerror})"
    if done.returncode < 0:
        return "too complex: compiling it takes too much time, memory or stack"
    if done.returncode > 0:
        return f"the process that checks it failed: {done.stderr.decode('utf-8', 'replace')[-200:].split(chr(10))[-2]}"
    return _complaint(done.stdout.decode("utf-8", "replace"))


def _follow_forced_tokens(state: GrammarState) -> None:
    """Find early that the vocabulary cannot write the text: go on as long as only one token may follow."""
    for _ in range(_FORCED_TOKENS_FOLLOWED):
        allowed = np.flatnonzero(state.mask())
        if len(allowed) > 1:
            return
        state.advance(int(allowed[0]))
        if state.complete:
            return


def _complaint(message: str) -> str:
    """The library's complaint, which quotes its input over several lines, as one short line."""
    expression = re.search(r"regex parse error:.*^error: ([^\n]+)", message, re.DOTALL | re.MULTILINE)
    if expression:
        return f"not a valid regular expression: {expression[1]}"
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    if "NoExtension" in line:
        return "no text fits it"
    return line if len(line) <= 200 else line[:197] + "..."


def _library_tokenizer(tokenizer: "Tokenizer") -> Any:
    """llguidance's index of the vocabulary, made once per tokenizer (up to a second for a large vocabulary)."""
    from llguidance import LLTokenizer

    if tokenizer not in _library_tokenizers:
        _library_tokenizers[tokenizer] = LLTokenizer(cast(Any, _Vocabulary(tokenizer)))
    return _library_tokenizers[tokenizer]


class _Vocabulary:
    """A tokenizer in the form that llguidance reads: the bytes of every token, and a way to encode text.

    The library takes any forced text apart with ``__call__``, which must cover all of it. For that, a vocabulary
    without all single bytes gets the missing ones as further tokens; no mask shows them, so they are never chosen.
    It keeps no reference to the ``Tokenizer``, which may be forgotten before it.
    """

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self.eos_token_id, self.bos_token_id = tokenizer.eos_id, tokenizer.bos_id
        marks = {tokenizer.eos_id, tokenizer.bos_id, tokenizer.unk_id}
        self.special_token_ids = [i for i in range(tokenizer.vocab_size) if i in marks or tokenizer.is_special(i)]
        self.tokens = token_bytes(tokenizer)
        self._backend, self._n_vocab = tokenizer.backend, tokenizer.vocab_size
        self._special = frozenset(self.special_token_ids)
        self._id_of = {token: i for i, token in enumerate(self.tokens) if token and i not in self._special}
        for byte in map(bytes, zip(range(256))):
            if byte not in self._id_of:
                self._id_of[byte] = len(self.tokens)
                self.tokens.append(byte)
        self._longest = max(map(len, self._id_of))

    def __call__(self, text: str) -> list[int]:
        """Tokens that join to ``text``: those of the tokenizer itself if they do."""
        data = text.encode()
        try:
            ids = list(self._backend.encode(text, add_special_tokens=False).ids)
        except Exception:  # the library raises bare Exception, for a character without a token
            ids = []
        exact = self._special.isdisjoint(ids) and b"".join(self.tokens[i] for i in ids) == data
        return ids if exact else self._fewest_tokens(data)

    def _fewest_tokens(self, data: bytes) -> list[int]:
        """As few missing bytes as can be, then as few tokens."""
        # Of data[:end]: missing bytes, tokens, and the last token.
        best = [(0, 0, -1)]
        for end in range(1, len(data) + 1):
            options = []
            for start in range(max(0, end - self._longest), end):
                token_id = self._id_of.get(data[start:end])
                if token_id is not None:
                    missing, tokens, _ = best[start]
                    options.append((missing + (token_id >= self._n_vocab), tokens + 1, token_id))
            best.append(min(options))
        ids, end = [], len(data)
        while end:
            ids.append(best[end][2])
            end -= len(self.tokens[best[end][2]])
        return ids[::-1]


def token_bytes(tokenizer: "Tokenizer") -> list[bytes]:
    """The UTF-8 bytes that each token adds to the text, by id; empty for ids that no token has.

    Raises ``ConfigError`` for a tokenizer whose text is not its tokens joined (BERT's WordPiece, or words that are
    separated by spaces that no token holds).
    """
    decoder = tokenizer.backend.decoder
    steps = _decoder_steps(json.loads(decoder.__getstate__())) if decoder is not None else []
    names = [step["type"] for step in steps]
    if "ByteLevel" in names:
        pieces = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    elif names == ["Fuse"]:
        pieces = [(tokenizer.backend.id_to_token(i) or "").encode() for i in range(tokenizer.vocab_size)]
    elif (space := _space_symbol(steps)) is not None:
        fallback = "ByteFallback" in names
        pieces = [_piece(tokenizer.backend, i, space, fallback) for i in range(tokenizer.vocab_size)]
    else:
        raise ConfigError("json_schema, regex, choice and grammar need a tokenizer whose tokens join to the text "
                          "(char, word, byte-level bpe); this one puts spaces between them")
    return [piece if len(piece) <= _LONGEST_TOKEN_BYTES else b"" for piece in pieces]


def _decoder_steps(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [inner for step in state["decoders"] for inner in _decoder_steps(step)] if "decoders" in state else [state]


def _space_symbol(steps: list[dict[str, Any]]) -> str | None:
    """What stands for a space in a SentencePiece vocabulary."""
    for step in steps:
        if step["type"] == "Metaspace":
            return str(step["replacement"])
        if step["type"] == "Replace" and step["content"] == " " and "String" in step["pattern"]:
            return str(step["pattern"]["String"])
    return None


def _piece(backend: "tokenizers.Tokenizer", token_id: int, space: str, byte_fallback: bool) -> bytes:
    name = backend.id_to_token(token_id) or ""
    if byte_fallback and re.fullmatch(r"<0x[0-9A-F]{2}>", name):
        return bytes([int(name[3:5], 16)])
    return name.replace(space, " ").encode()
