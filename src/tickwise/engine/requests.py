"""What can be asked of the engine, what comes back, and the state in between.

A request is one prompt with its settings. It is written in one row per sample; a row is a text that grows by a token
per tick, with the blocks that hold its state.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tickwise.core.console import note
from tickwise.core.errors import ConfigError, DataError, UserError
from tickwise.engine.sampling import Choice, EndReason, TokenChooser
from tickwise.engine.settings import GenerationSettings, KnownFields
from tickwise.engine.stop_strings import StopStringFilter

if TYPE_CHECKING:
    from tickwise.engine.beam import BeamSearch
    from tickwise.engine.speculative import Speculation
    from tickwise.tokenizers.tokenizer import Tokenizer

FinishReason = Literal["eos", "stop", "length", "deadline", "cancelled"]
"""``stop``: at a stop string, at a stop token, or where the structure that was asked for is complete."""
PastContext = Literal["stop", "slide"]


class QueueFullError(UserError):
    """More requests wait than the engine may keep."""


@dataclass(frozen=True, kw_only=True)
class Request(KnownFields):
    """One prompt to continue, or, for an encoder–decoder, one source."""

    prompt: str | Sequence[int] = None  # type: ignore[assignment]  # refused below
    """Text, or token ids. It has to be given."""
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    past_context: PastContext = "stop"
    """When the text fills the model's context: stop there (and refuse a longer prompt), or slide, that is read the
    last half of the context again and go on from there, as often as it takes. Of a longer prompt, ``tokens_kept``."""
    tenant: str = ""
    """On whose behalf. Tenants take turns, and never share stored prefixes."""
    deadline_s: float | None = None
    """Seconds from submission after which the request ends with what it has."""
    id: str | None = None
    """Name of the request; left out, the engine gives one."""

    def __post_init__(self) -> None:
        if self.prompt is None:
            raise ConfigError("prompt: give text, or token ids as whole numbers")
        if not isinstance(self.settings, GenerationSettings):
            raise ConfigError(f"settings: give GenerationSettings, not {self.settings!r:.60}")
        if self.past_context not in ("stop", "slide"):
            raise ConfigError(f"past_context: {self.past_context!r:.60} is not one of stop, slide")
        for name, value in (("tenant", self.tenant), ("id", self.id)):
            if not isinstance(value, str) and (name, value) != ("id", None):
                raise ConfigError(f"{name}: {value!r:.60} is not text")
        if self.deadline_s is not None and not (isinstance(self.deadline_s, int | float) and self.deadline_s > 0):
            raise ConfigError(f"deadline_s: must be above 0 seconds, got {self.deadline_s!r:.60}")


@dataclass(frozen=True)
class Timings:
    """Wall times of one sample, in seconds."""

    prefill_s: float | None
    """Reading the prompt and choosing the first token; ``None`` when the request ended before."""
    decode_s: float
    """From the first token to the last one."""
    decode_tokens_per_s: float | None
    """Tokens after the first one, per second of ``decode_s``; ``None`` when there is only one."""
    time_to_first_token_s: float | None
    """From the submission, tokenizing and waiting included, to the first token; ``None`` when there was none."""


@dataclass(frozen=True)
class SpeculationFigures:
    """What became of the guesses for one sample."""

    guessed_tokens: int
    accepted_tokens: int
    ticks: int
    """Ticks that checked a guess."""
    turned_off: bool
    """Whether guessing was given up after these ticks, because checking cost more time than it saved."""


@dataclass(frozen=True)
class Generation:
    """One finished sample."""

    text: str
    """What was written, without the prompt, the stop string and the end-of-text token."""
    token_ids: tuple[int, ...]
    """The tokens of ``text``, and of the stop string if there was one."""
    finish_reason: FinishReason
    timings: Timings
    prompt_tokens: int
    prompt_tokens_kept: int
    """The last so many of them went into the model; fewer than all when the prompt is longer than its context."""
    seed: int
    sample: int = 0
    """Which of the ``n`` samples this is."""
    choices: tuple[Choice, ...] = ()
    """Log-probabilities of ``token_ids``, where they were asked for."""
    cached_tokens: int = 0
    """Tokens of the prompt whose state another request had left in the cache."""
    speculation: SpeculationFigures | None = None
    """Where guessing was asked for."""
    request_id: str = ""

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Natural logarithm of each token's probability in the model's own distribution; empty where the settings did
        not ask for ``logprobs``. The likeliest other tokens are in ``choices``."""
        return tuple(choice.logprob for choice in self.choices if choice.logprob is not None)


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text that sample number ``sample`` goes on with."""

    sample: int
    text: str
    choices: tuple[Choice, ...] = ()
    """The tokens behind it, where log-probabilities were asked for."""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that ended because of an error."""

    error: UserError
    request_id: str


Event = TextPiece | Generation | Failure


def encode_prompt(tokenizer: "Tokenizer", prompt: str) -> list[int]:
    """Ids of the prompt. An empty one becomes the beginning-of-text token, else the end-of-text token
    (which separates documents in training), else a newline; ``ConfigError`` if there is none of them."""
    ids = encode_text(tokenizer, prompt)
    if ids:
        return ids
    if tokenizer.bos_id is not None:
        return [tokenizer.bos_id]
    if tokenizer.eos_id is not None:
        note("the prompt is empty: starting from the end-of-text token")
        return [tokenizer.eos_id]
    ids = tokenizer.encode("\n")
    if not ids:
        raise ConfigError("the prompt is empty and this tokenizer has no token to start from; give a prompt")
    note("the prompt is empty: starting from a newline")
    return ids


def encode_text(tokenizer: "Tokenizer", text: str) -> list[int]:
    """Ids of the text, as they are. ``ConfigError`` and ``DataError`` for what is no text."""
    _check_text(text)
    return tokenizer.encode(text)


def _check_text(text: str) -> None:
    if not isinstance(text, str):
        raise ConfigError(f"prompt: give text, not {text!r:.60}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError("the prompt holds half a character (a lone surrogate), which is not text; leave it out")


def encode_source(tokenizer: "Tokenizer", text: str) -> list[int]:
    """Ids of an encoder–decoder's source, without an end (``Tokenizer.encode_sources``). ``ConfigError`` and
    ``DataError`` as ``encode_text``."""
    _check_text(text)
    return tokenizer.encode_sources([text])[0]


def tokens_kept(n_prompt: int, context_length: int, max_tokens: int) -> int:
    """How many of a prompt's last tokens the model reads: of a prompt that is longer than the context, what leaves room
    for ``max_tokens`` more (the last of which is not read), but at least half of the context.

    >>> tokens_kept(100, 128, 60), tokens_kept(16000, 128, 60), tokens_kept(16000, 128, 200)
    (100, 69, 64)
    """
    if n_prompt <= context_length:
        return n_prompt
    return max(1, context_length // 2, context_length + 1 - max_tokens)


class WrittenText:
    """The text of one row while it grows: detokenising, stop strings, the end."""

    def __init__(self, tokenizer: "Tokenizer", settings: GenerationSettings, prompt_ids: Sequence[int] = ()) -> None:
        """``prompt_ids`` is what the text goes on from."""
        self._settings = settings
        self._stop = StopStringFilter(settings.stop)
        self._decoder = tokenizer.stream_decoder(prompt_ids)
        self.token_ids: list[int] = []
        self.pieces: list[str] = []
        self.finish_reason: FinishReason | None = None

    def push(self, token_id: int, end: EndReason | None = None) -> str:
        """Take the next token; returns the text that may be shown. ``end``: why the text ends with it, if it does.

        ``DataError`` when the tokenizer fails.
        """
        if end in ("eos", "stop_token"):
            return self.finish("eos" if end == "eos" else "stop")
        self.token_ids.append(token_id)
        may_stop = len(self.token_ids) >= self._settings.min_tokens
        shown = self._stop.push(self._decoded(token_id), may_stop=may_stop)
        self.pieces.append(shown)
        if self._stop.stopped:
            self.finish_reason = "stop"
        elif end == "grammar":
            shown += self.finish("stop")
        elif len(self.token_ids) >= self._settings.max_tokens:
            shown += self.finish("length")
        return shown

    def finish(self, reason: FinishReason) -> str:
        """End the text; returns what had been held back."""
        shown = self._stop.push(self._decoded(None))
        self.finish_reason = "stop" if self._stop.stopped else reason
        shown += self._stop.flush()
        self.pieces.append(shown)
        return shown

    def _decoded(self, token_id: int | None) -> str:
        """The text that one more token makes certain; ``None``: no more come."""
        try:
            return self._decoder.flush() if token_id is None else self._decoder.push(token_id)
        except Exception as problem:  # tokenizers that others made may raise anything; it concerns this text alone
            raise DataError(f"the tokenizer cannot write token {self.token_ids[-1:]}: {problem}") from problem


class Row:
    """One sample while it is written.

    ``tokens`` is the whole text, the prompt included. The model sees the window from ``window_start`` on, at positions
    0, 1, 2 …; the state of its first ``n_cached`` tokens is stored in ``blocks``. ``digests[i]`` names the content of
    the window up to the end of ``blocks[i]``, for every block that is full.
    """

    def __init__(self, request: "RequestState", index: int, chooser: TokenChooser | None, text: WrittenText) -> None:
        self.request, self.index = request, index
        self.chooser, self.text = chooser, text
        self.tokens = list(request.prompt_ids)
        self.window_start = 0
        self.n_cached = 0
        self.n_sound = 0
        """Tokens of the window whose state gave finite logits; behind them it may not be finite."""
        self.blocks: list[int] = []
        self.digests: list[bytes] = []
        self.choices: list[Choice] = []
        self.proposer: Speculation | None = None
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None

    @property
    def pending(self) -> int:
        """Tokens of the text that the model has not read."""
        return len(self.tokens) - self.window_start - self.n_cached

    @property
    def decoding(self) -> bool:
        """Whether the next tick reads just the token that the last one wrote."""
        return self.pending == 1 and len(self.tokens) > len(self.request.prompt_ids)

    def forget_state(self) -> list[int]:
        """Everything must be read again; returns the blocks that were held."""
        blocks, self.blocks = self.blocks, []
        self.digests, self.n_cached, self.n_sound = [], 0, 0
        return blocks

    def room_for_guess(self, n_tokens: int) -> int:
        """How many of ``n_tokens`` more tokens could be of use behind the one that is read next."""
        left = self.request.settings.max_tokens - len(self.text.token_ids) - 1
        return min(n_tokens, left, self.request.context_length - (len(self.tokens) - self.window_start))

    def continued(self, index: int, token_id: int, now: float) -> "Row":
        """Row number ``index`` of a beam, which goes on from this text with ``token_id``; it holds nothing yet."""
        row = Row(self.request, index, None, self.text)
        row.tokens = [*self.tokens, token_id]
        row.first_token_at = now if self.first_token_at is None else self.first_token_at
        row.last_token_at = now
        return row


class RequestState:
    """A request between submission and its last sample."""

    def __init__(
        self, request: Request, settings: GenerationSettings, request_id: str, prompt_ids: list[int],
        context_length: int, submitted_at: float, n_source: int = 0,
    ) -> None:
        """``settings`` are those of the request, with a seed. The first ``n_source`` of ``prompt_ids`` are the source
        of an encoder–decoder; ``context_length`` counts them."""
        self.request, self.settings, self.id = request, settings, request_id
        self.prompt_ids, self.context_length, self.n_source = prompt_ids, context_length, n_source
        self.submitted_at = submitted_at
        self.deadline = None if request.deadline_s is None else submitted_at + request.deadline_s
        self.started_at: float | None = None
        self.rows: list[Row] = []
        """Samples that are still written."""
        self.forked = False
        """Whether every sample has its own row; before, only the first one is read."""
        self.beam: BeamSearch | None = None
        self.first_digest = b""
        self.prompt_digests: list[bytes] = []
        """Of the prompt's full blocks; empty without a prefix cache."""
        self.cached_tokens = 0
        self.ended = False

    @property
    def continued_ids(self) -> list[int]:
        """The tokens that the text goes on from: a target begins anew."""
        return [] if self.n_source else self.prompt_ids

    @property
    def read_rows(self) -> list[Row]:
        """Rows that the model reads: the prompt is read once, however many samples follow."""
        return self.rows if self.forked else self.rows[:1]

    def finished(self, row: Row) -> Generation:
        """The finished sample."""
        text = row.text
        assert text.finish_reason is not None
        first, last = row.first_token_at, row.last_token_at
        decode_s = 0.0 if first is None or last is None else last - first
        n_later = len(row.tokens) - len(self.prompt_ids) - 1
        return Generation(
            text="".join(text.pieces),
            token_ids=tuple(text.token_ids),
            finish_reason=text.finish_reason,
            timings=Timings(
                prefill_s=None if first is None or self.started_at is None else first - self.started_at,
                decode_s=decode_s,
                decode_tokens_per_s=n_later / decode_s if n_later > 0 and decode_s > 0 else None,
                time_to_first_token_s=None if first is None else first - self.submitted_at,
            ),
            prompt_tokens=len(self.prompt_ids),
            prompt_tokens_kept=tokens_kept(len(self.prompt_ids), self.context_length, self.settings.max_tokens),
            seed=self.settings.seed or 0,
            sample=row.index,
            choices=tuple(row.choices),
            cached_tokens=self.cached_tokens,
            speculation=None if row.proposer is None else row.proposer.figures,
            request_id=self.id,
        )
