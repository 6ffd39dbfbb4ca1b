"""What becomes of a request before its first tick: tokens, checks, choosers of tokens, and what names its prefix."""

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tickwise.core.console import SayOnce
from tickwise.core.errors import ConfigError
from tickwise.engine.beam import BeamSearch
from tickwise.engine.blocks import first_digest, next_digest
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import Request, RequestState, Row, WrittenText, encode_prompt, tokens_kept
from tickwise.engine.runner import Runner
from tickwise.engine.sampling import TokenChooser, fresh_seed
from tickwise.engine.speculative import DraftModel, PromptLookup, Proposer, Speculation, TickTimes
from tickwise.engine.structured import compile_constraint
from tickwise.models.decoder import Decoder

if TYPE_CHECKING:
    from tickwise.tokenizers.tokenizer import Tokenizer


class Admission:
    """Makes states of requests. Many threads may ask for them at once."""

    def __init__(
        self, tokenizer: "Tokenizer", options: EngineOptions, runner: Runner, *, prefix_cache: bool,
        draft: Decoder | None, times: TickTimes, model_id: str, say_once: SayOnce,
    ) -> None:
        self._tokenizer, self._options, self._runner = tokenizer, options, runner
        self._prefix_cache, self._model_id = prefix_cache, model_id
        self._draft, self._times = draft, times
        self._say_once = say_once

    def state(self, request: Request, request_id: str, submitted_at: float) -> RequestState:
        """The request with a row per sample. ``ConfigError`` when it could not be served even alone."""
        prompt_ids = self._prompt_ids(request.prompt)
        settings = request.settings
        if settings.seed is None:
            settings = replace(settings, seed=fresh_seed())
        # Samples of a greedy generation are all equal: one row writes them.
        n_rows = 1 if settings.temperature == 0 else settings.n
        if settings.beam_width > 1:
            n_rows = settings.beam_width
        self._check_fits(request, len(prompt_ids), n_rows)
        constraint = compile_constraint(settings, self._tokenizer)
        state = RequestState(request, settings, request_id, prompt_ids, self._runner.context_length, submitted_at)
        first = TokenChooser(settings, prompt_ids, self._tokenizer, 0, constraint)
        for index in range(n_rows):
            chooser = first.fork(index) if index else first
            row = Row(state, index, chooser, WrittenText(self._tokenizer, settings, prompt_ids))
            if self._options.speculate != "off" and settings.beam_width == 1:
                row.proposer = Speculation(self._proposer(), self._options.draft_tokens, self._times, request_id)
            state.rows.append(row)
        state.forked = n_rows == 1
        if settings.beam_width > 1:
            eos_id = None if settings.ignore_eos else self._tokenizer.eos_id
            state.beam = BeamSearch(settings.beam_width, settings.length_penalty, eos_id, settings.max_tokens)
        if self._prefix_cache:
            state.first_digest = first_digest(self._model_id, request.tenant)
        kept = tokens_kept(len(prompt_ids), self._runner.context_length, settings.max_tokens)
        if kept < len(prompt_ids):
            self._say_once(
                f"the prompt has {len(prompt_ids)} tokens and the model's context {self._runner.context_length}: "
                f"reading its last {kept} tokens", "prompt",
            )
            for row in state.rows:
                row.window_start = len(prompt_ids) - kept
        elif self._prefix_cache:
            size, digest = self._runner.block_size, state.first_digest
            for end in range(size, len(prompt_ids) + 1, size):
                digest = next_digest(digest, prompt_ids[end - size : end])
                state.prompt_digests.append(digest)
        return state

    def _prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        if isinstance(prompt, str):
            return encode_prompt(self._tokenizer, prompt)
        try:
            ids = [operator.index(token_id) for token_id in prompt]
        except TypeError:
            raise ConfigError("prompt: give text, or token ids as whole numbers") from None
        if not ids:
            raise ConfigError("the prompt has no token; give at least one")
        self._tokenizer.check_ids(ids)
        return ids

    def _proposer(self) -> Proposer:
        return PromptLookup() if self._draft is None else DraftModel(self._draft, self._say_once)

    def _check_fits(self, request: Request, n_prompt: int, n_rows: int) -> None:
        """``ConfigError`` when the request could not be served even alone."""
        context, size = self._runner.context_length, self._runner.block_size
        if n_prompt > context and request.past_context == "stop":
            raise ConfigError(
                f"the prompt has {n_prompt} tokens and the model's context {context}; shorten the prompt"
            )
        if n_rows > self._options.max_rows:
            raise ConfigError(f"{n_rows} samples need {n_rows} rows and the engine has {self._options.max_rows}")
        longest = min(context, n_prompt + request.settings.max_tokens)
        alone = request.past_context == "slide" or request.settings.beam_width > 1
        shared = 0 if alone else n_prompt // size
        needed = shared + n_rows * (-(-longest // size) - shared)
        if needed > self._runner.n_blocks:
            raise ConfigError(
                f"{n_rows} × {longest} tokens need {needed} blocks of {size} tokens and the engine "
                f"has {self._runner.n_blocks}; ask for fewer tokens"
            )
        if request.settings.beam_width > 1 and request.past_context == "slide":
            raise ConfigError("beam search cannot slide past the context; ask for fewer tokens")
