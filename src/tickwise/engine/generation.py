"""A token's way through the engine: prefill → decode one token → sample → text.

``Decoding`` works on ids and holds the state of one generation; ``generate_events`` joins it to a
tokenizer, stop strings and timings.

Past the context. Positions beyond the model's context length do not exist. When a text fills the
context, the window slides: the model reads the last half of the context again (one prefill) and goes on
from there, so ``max_tokens`` may be larger than the context. The same happens to a prompt that is longer
than the context. One line on stderr says so.

Shapes: B batch rows (samples of one prompt), T tokens, V vocabulary.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from tickwise.core.console import note, say
from tickwise.core.errors import ConfigError
from tickwise.engine.kv_cache import KVCache
from tickwise.engine.sampling import fresh_seed, penalise_repetition, row_generators, sample
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.stop_strings import StopStringFilter
from tickwise.models.decoder import Decoder

if TYPE_CHECKING:
    from tickwise.tokenizers.tokenizer import Tokenizer

FinishReason = Literal["eos", "stop", "length"]


def prefill(module: Decoder, ids_BT: Tensor, cache: KVCache | None) -> Tensor:
    """Read a text; returns logits_BV of the token after it. The head runs on the last position only."""
    hidden_BTC = module.hidden_states(ids_BT, cache=cache)
    return module.logits(hidden_BTC[:, -1:])[:, 0]


def decode_one_token(module: Decoder, ids_B: Tensor, cache: KVCache) -> Tensor:
    """Read one more token per row; returns logits_BV of the token after it."""
    return module(ids_B.unsqueeze(1), cache=cache)[:, 0]


class Decoding:
    """``n`` samples that continue one prompt, all at the same position; each ``step`` is one tick.

    The prompt is read once and its cache row copied for the other samples. Rows that are done are dropped
    with ``keep_rows`` and cost nothing afterwards.
    """

    def __init__(
        self, module: Decoder, prompt_ids: Sequence[int], settings: GenerationSettings, seed: int
    ) -> None:
        assert prompt_ids, "a generation starts from at least one token"
        self._module, self._settings = module, settings
        self._context_length = module.config.context_length
        self._device = next(module.parameters()).device
        # Samples of a greedy generation are all equal: one row computes them.
        n = 1 if settings.temperature == 0 else settings.n
        self._rows = [list(prompt_ids) for _ in range(n)]
        self._generators = row_generators(seed, n)
        self._window_start = 0
        self._cache: KVCache | None = None
        self._last_B: Tensor | None = None
        self._seen_BV: Tensor | None = None

    @property
    def cache_bytes(self) -> int:
        """Bytes reserved for keys and values; 0 before the first step and without a cache."""
        return self._cache.bytes if self._cache is not None else 0

    @torch.inference_mode()
    def step(self) -> list[int]:
        """Append one token to every row and return them."""
        if self._last_B is None:
            logits_BV = self._begin()
        elif self._slide() or self._cache is None:
            logits_BV = self._read_window(self._rows)
        else:
            logits_BV = decode_one_token(self._module, self._last_B, self._cache)
        if self._seen_BV is not None:
            logits_BV = penalise_repetition(logits_BV, self._seen_BV, self._settings.repetition_penalty)
        self._last_B = sample(logits_BV, self._settings, self._generators)
        if self._seen_BV is not None:
            self._seen_BV.scatter_(1, self._last_B.unsqueeze(1), True)
        ids = self._last_B.tolist()
        for row, token_id in zip(self._rows, ids, strict=True):
            row.append(token_id)
        return ids

    @torch.inference_mode()
    def keep_rows(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        if len(rows) == len(self._rows):
            return
        self._rows = [self._rows[row] for row in rows]
        self._generators = [self._generators[row] for row in rows]
        if not rows:
            return
        if self._last_B is not None:
            self._last_B = self._last_B[list(rows)]
        if self._seen_BV is not None:
            self._seen_BV = self._seen_BV[list(rows)]
        if self._cache is not None:
            self._cache.keep_rows(rows)

    def _begin(self) -> Tensor:
        """Read the prompt in one row, then give every sample its copy."""
        prompt, n = self._rows[0], len(self._rows)
        config = self._module.config
        if self._settings.use_cache:
            capacity = min(config.context_length, len(prompt) + self._settings.max_tokens)
            dtype = next(self._module.parameters()).dtype
            self._cache = KVCache(
                config.n_layers, 1, config.n_kv_heads, config.head_dim, capacity, dtype, self._device
            )
        self._slide()
        logits_1V = self._read_window([prompt])
        if self._cache is not None and n > 1:
            self._cache.expand(n)
        if self._settings.repetition_penalty != 1:
            self._seen_BV = torch.zeros(n, logits_1V.shape[-1], dtype=torch.bool, device=self._device)
            self._seen_BV[:, prompt] = True
        return logits_1V.expand(n, -1)

    def _slide(self) -> bool:
        """Move the window when the text has outgrown it; says whether it moved."""
        length = len(self._rows[0])
        if length - self._window_start <= self._context_length:
            return False
        kept = max(1, self._context_length // 2)
        if self._window_start == 0:
            say(
                f"the text is longer than the model's context of {self._context_length} tokens: "
                f"going on from its last {kept} tokens whenever the context is full"
            )
        self._window_start = length - kept
        if self._cache is not None:
            self._cache.reset()
        return True

    def _read_window(self, rows: list[list[int]]) -> Tensor:
        visible = [row[self._window_start :] for row in rows]
        return prefill(self._module, torch.tensor(visible, device=self._device), self._cache)


@dataclass(frozen=True)
class Timings:
    """Wall times of one sample, in seconds."""

    prefill_s: float
    """Reading the prompt and choosing the first token."""
    decode_s: float
    """From the first token to the last one."""
    decode_tokens_per_s: float | None
    """Tokens after the first one, per second of ``decode_s``; ``None`` when there is only one."""
    time_to_first_token_s: float
    """From the call, tokenizing included, to the first token."""


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
    seed: int
    sample: int = 0
    """Which of the ``n`` samples this is."""


@dataclass(frozen=True)
class TextPiece:
    """Text that sample number ``sample`` goes on with."""

    sample: int
    text: str


@dataclass
class _Sample:
    """Text of one row while it grows."""

    index: int
    tokenizer: "Tokenizer"
    stop: StopStringFilter
    token_ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self._decoder = self.tokenizer.stream_decoder()

    def push(self, token_id: int, settings: GenerationSettings) -> str:
        """Take the next token; returns the text that may be shown."""
        if token_id == self.tokenizer.eos_id and not settings.ignore_eos:
            return self._finish("eos")
        self.token_ids.append(token_id)
        shown = self.stop.push(self._decoder.push(token_id))
        self.pieces.append(shown)
        if self.stop.stopped:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= settings.max_tokens:
            shown += self._finish("length")
        return shown

    def _finish(self, reason: FinishReason) -> str:
        shown = self.stop.push(self._decoder.flush())
        self.finish_reason = "stop" if self.stop.stopped else reason
        shown += self.stop.flush()
        self.pieces.append(shown)
        return shown


def encode_prompt(tokenizer: "Tokenizer", prompt: str) -> list[int]:
    """Ids of the prompt. An empty one becomes the beginning-of-text token, else the end-of-text token
    (which separates documents in training), else a newline; ``ConfigError`` if there is none of them."""
    ids = tokenizer.encode(prompt)
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


def generate_events(
    module: Decoder, tokenizer: "Tokenizer", prompt: str, settings: GenerationSettings
) -> Iterator[TextPiece | Generation]:
    """Pieces of text as they are written, and each sample's ``Generation`` when it is done."""
    started = time.perf_counter()
    seed = fresh_seed() if settings.seed is None else settings.seed
    prompt_ids = encode_prompt(tokenizer, prompt)
    decoding = Decoding(module, prompt_ids, settings, seed)
    n_rows = 1 if settings.temperature == 0 else settings.n
    live = [_Sample(i, tokenizer, StopStringFilter(settings.stop)) for i in range(n_rows)]
    before_prefill = time.perf_counter()
    first_token: float | None = None
    ticks = 0
    while live:
        token_ids = decoding.step()
        now = time.perf_counter()
        if first_token is None:
            first_token = now
        for row, token_id in zip(live, token_ids, strict=True):
            text = row.push(token_id, settings)
            if text:
                yield TextPiece(row.index, text)
            if row.finish_reason is not None:
                decode_s = now - first_token
                yield Generation(
                    text="".join(row.pieces),
                    token_ids=tuple(row.token_ids),
                    finish_reason=row.finish_reason,
                    timings=Timings(
                        prefill_s=first_token - before_prefill,
                        decode_s=decode_s,
                        decode_tokens_per_s=ticks / decode_s if ticks else None,
                        time_to_first_token_s=first_token - started,
                    ),
                    prompt_tokens=len(prompt_ids),
                    seed=seed,
                    sample=row.index,
                )
        ticks += 1
        keep = [index for index, row in enumerate(live) if row.finish_reason is None]
        if len(keep) < len(live):
            decoding.keep_rows(keep)
            live = [live[index] for index in keep]
