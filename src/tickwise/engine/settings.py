"""What a user can ask of a generation; checked once, when it is made."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from tickwise.core.config import closest
from tickwise.core.errors import ConfigError

StructureKind = Literal["json_schema", "regex", "choice", "grammar"]
BAN = -100.0
"""A logit bias of this much rules the token out."""
_MOST_SAMPLES = 1024
_MOST_TOKENS = 10**9
"""More than a year of writing 30 tokens a second: nobody means a larger number."""
_NOT_IN_BEAMS = {
    "min_tokens": 0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "logit_bias": (),
    "stop_token_ids": (), "logprobs": None,
}
"""What a beam search, which follows the model's own distribution, does not do, and the values that ask for nothing."""


class KnownFields:
    """Base of settings: a field that they do not have is a ``ConfigError``, as every other mistake in them is."""

    def __new__(cls, *positional: object, **values: object) -> Self:
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        if positional:
            raise ConfigError(f"{cls.__name__}: give every field by its name, such as {known[0]}=…")
        for name in values:
            if name not in known:
                raise ConfigError(f"{cls.__name__}: no setting '{name}'{closest(name, known)}")
        return super().__new__(cls)


@dataclass(frozen=True, kw_only=True)
class GenerationSettings(KnownFields):
    """Settings of one generation. Every wrong value raises ``ConfigError`` in one line.

    The distribution is shaped in this order: repetition penalty, presence and frequency penalties, logit bias,
    minimum length and grammar (what they rule out cannot be chosen), temperature, top-k, top-p, min-p, typical.
    """

    max_tokens: int = 200
    """Most tokens to write; beyond the model's context, the text slides through it. Of a prompt that is longer than the
    context, the end is read: as much as leaves room for these, and at least half of the context."""
    min_tokens: int = 0
    """Write at least so many tokens: before them, nothing ends the text."""
    temperature: float = 1.0
    """Divides the logits. 0 always takes the most likely token."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most likely tokens with at least this probability (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Keep tokens at least this share as likely as the most likely one (Nguyen et al. 2024)."""
    typical_p: float = 1.0
    """Keep the smallest set with at least this probability whose surprise is most typical (Meister et al. 2022)."""
    repetition_penalty: float = 1.0
    """Above 1, makes tokens of the prompt and of the text so far less likely (Keskar et al. 2019)."""
    presence_penalty: float = 0.0
    """Taken from the logit of every token that was written before (OpenAI's definition; -2 to 2)."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit for each time it was written before (OpenAI's definition; -2 to 2)."""
    logit_bias: Mapping[int | str, float] | tuple[tuple[int | str, float], ...] = ()
    """Added to the logits of tokens, given by id or by their text; -100 rules a token out."""
    stop: tuple[str, ...] = ()
    """Strings that end the text; they are not part of it."""
    stop_token_ids: tuple[int, ...] = ()
    """Ids of tokens that end the text; they are not part of it."""
    ignore_eos: bool = False
    """Go on after the end-of-text token, up to the most tokens."""
    seed: int | None = None
    """Same seed, same text (but for --speculate draft above temperature 0, which guesses as time allows). Left out, a
    new seed is drawn and reported."""
    n: int = 1
    """Samples. Each depends on the seed and its own number only, not on how many there are."""
    logprobs: int | None = None
    """Report each token's log-probability, and so many likeliest tokens, before any of the settings above."""
    json_schema: str | Mapping[str, Any] | Path | None = None
    """The text is JSON of this schema: a dictionary, its JSON text, or a file."""
    regex: str | None = None
    """The text matches this regular expression, from its first to its last character."""
    choice: tuple[str, ...] = ()
    """The text is one of these."""
    grammar: str | Path | None = None
    """The text follows this grammar in Lark's notation: its text, or a file."""
    beam_width: int = 1
    """Above 1, search for the most likely text among this many; the ``n`` best are the samples."""
    length_penalty: float = 1.0
    """Exponent of the length by which a beam's log-probabilities are divided; above 0 favours longer texts."""
    speculate: Literal["off", "lookup", "draft"] = "off"
    """Guess tokens and check them together: guesses from the text itself, or from a draft model."""
    use_cache: bool = True
    """Keep keys and values of earlier tokens. Without it, every token computes the whole text again."""

    def __post_init__(self) -> None:
        for name, value in (
            ("stop", _strings("stop", self.stop)),
            ("choice", _strings("choice", self.choice)),
            ("stop_token_ids", _token_ids(self.stop_token_ids)),
            ("logit_bias", _bias(self.logit_bias)),
            ("json_schema", _schema_text(self.json_schema)),
            ("grammar", _grammar_text(self.grammar)),
        ):
            object.__setattr__(self, name, value)
        _whole("max_tokens", self.max_tokens, 1)
        if self.max_tokens > _MOST_TOKENS:
            raise ConfigError(f"max_tokens: at most {_MOST_TOKENS:,}; a text for which the model writes an end mark "
                              "ends there, however many tokens it may have")
        _whole("min_tokens", self.min_tokens, 0)
        _whole("top_k", self.top_k, 0)
        _whole("n", self.n, 1, _MOST_SAMPLES)
        _whole("beam_width", self.beam_width, 1, _MOST_SAMPLES)
        _number("length_penalty", self.length_penalty, "from -10 to 10", lambda x: -10 <= x <= 10)
        if self.seed is not None:
            _whole("seed", self.seed, 0)
        if self.logprobs is not None:
            _whole("logprobs", self.logprobs, 0)
        _number("temperature", self.temperature, "finite and at least 0 (0 is greedy)", lambda x: x >= 0)
        _number("top_p", self.top_p, "above 0 and at most 1", lambda x: 0 < x <= 1)
        _number("min_p", self.min_p, "from 0 to 1", lambda x: 0 <= x <= 1)
        _number("typical_p", self.typical_p, "above 0 and at most 1", lambda x: 0 < x <= 1)
        _number("repetition_penalty", self.repetition_penalty, "from 1e-9 to 1e9", lambda x: 1e-9 <= x <= 1e9)
        _number("presence_penalty", self.presence_penalty, "from -2 to 2", lambda x: -2 <= x <= 2)
        _number("frequency_penalty", self.frequency_penalty, "from -2 to 2", lambda x: -2 <= x <= 2)
        if self.regex is not None and (not isinstance(self.regex, str) or not self.regex):
            raise ConfigError("regex: give a regular expression that is not empty")
        self._refuse_contradictions()
        if self.structure is not None:
            from tickwise.engine.structured import checked_grammar

            checked_grammar(*self.structure)

    @property
    def structure(self) -> tuple[StructureKind, str] | None:
        """What the text must look like: its kind, and the schema, expression, grammar or JSON list of choices."""
        if isinstance(self.json_schema, str):
            return "json_schema", self.json_schema
        if self.regex is not None:
            return "regex", self.regex
        if self.choice:
            return "choice", json.dumps(self.choice, ensure_ascii=False)
        if isinstance(self.grammar, str):
            return "grammar", self.grammar
        return None

    def _refuse_contradictions(self) -> None:
        if self.min_tokens > self.max_tokens:
            raise ConfigError(f"min_tokens: {self.min_tokens} is more than max_tokens, {self.max_tokens}")
        kinds = ("json_schema", "regex", "choice", "grammar")
        given = [name for name in kinds if getattr(self, name) not in (None, ())]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)}: give only one of them; each says what the whole text looks like")
        if given and self.ignore_eos:
            raise ConfigError(f"ignore_eos and {given[0]}: leave one out; such a text ends where it is complete")
        if self.speculate not in ("off", "lookup", "draft"):
            raise ConfigError(f"speculate: {self.speculate!r} is not one of off, lookup, draft")
        if self.beam_width > 1:
            if given:
                raise ConfigError(f"beam_width and {given[0]}: beam search cannot follow a structure; leave one out")
            if self.n > self.beam_width:
                raise ConfigError(f"n: {self.n} samples from a beam of beam_width {self.beam_width}; widen the beam")
            if self.speculate != "off":
                raise ConfigError("beam_width and speculate: a beam is not guessed; leave one out")
            for name, neutral in _NOT_IN_BEAMS.items():
                if getattr(self, name) != neutral:
                    raise ConfigError(f"beam_width and {name}: beam search has no {name}; leave one out")
        if given and self.min_tokens:
            raise ConfigError(f"min_tokens and {given[0]}: leave one out; such a text ends where it is complete")


def _strings(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, Iterable):
        raise ConfigError(f"{name}: {value!r} is not a list of strings")
    strings = tuple(value)
    if not all(isinstance(text, str) and text for text in strings):
        raise ConfigError(f"{name}: every string must be text that is not empty")
    return strings


def _token_ids(value: object) -> tuple[int, ...]:
    ids = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    for token_id in ids:
        _whole("stop_token_ids", token_id, 0)
    return ids


def _bias(value: object) -> tuple[tuple[int | str, float], ...]:
    pairs = tuple(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, Iterable) or isinstance(pairs, str):
        raise ConfigError(f"logit_bias: {value!r} is not a mapping from tokens to numbers")
    checked = []
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ConfigError(f"logit_bias: {pair!r} is not a token and a number")
        token, bias = pair
        if isinstance(token, bool) or not isinstance(token, int | str) or token == "":
            raise ConfigError(f"logit_bias: {token!r} is neither a token id nor the text of a token")
        _number(f"logit_bias of {token!r}", bias, "from -100 to 100", lambda x: -100 <= x <= 100)
        checked.append((token, float(bias)))
    return tuple(checked)


def _schema_text(value: object) -> str | None:
    """The schema as JSON text. Its keys keep their order: they are written in it."""
    if value is None:
        return None
    where = "json_schema"
    if isinstance(value, Path):
        where, value = str(value), _read(value, "the JSON schema")
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
        if not isinstance(parsed, Mapping | bool):
            raise ConfigError(f"{where}: a JSON schema is an object such as {{\"type\": \"object\"}}")
        return json.dumps(parsed, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ConfigError(f"{where}: the schema is nested too deeply") from None
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise ConfigError(f"{where}: not JSON at {place}: {problem.msg}") from None
    except ConfigError:
        raise
    except (TypeError, ValueError) as problem:
        raise ConfigError(f"{where}: cannot be written as JSON ({problem})") from None


def _grammar_text(value: object) -> str | None:
    if isinstance(value, Path):
        value = _read(value, "the grammar")
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ConfigError("grammar: give a grammar that is not empty")
    return value


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as problem:
        raise ConfigError(f"{path}: cannot read {what}: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{path}: {what} is not UTF-8 at byte {problem.start}") from None


def _whole(name: str, value: object, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}: {value!r:.60} is not a whole number of at least {least}")
    if most is not None and value > most:
        raise ConfigError(f"{name}: at most {most} in one request")


def _number(name: str, value: object, rule: str, holds: Callable[[float], bool]) -> None:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number) or not holds(number):
        raise ConfigError(f"{name}: {value!r:.60} must be {rule}")
