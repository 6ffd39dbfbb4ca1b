"""What becomes of a request before its first tick: tokens, checks, choosers of tokens, and what names its prefix."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tickwise.core.console import SayOnce
from tickwise.core.errors import ConfigError
from tickwise.engine.beam import BeamSearch
from tickwise.engine.blocks import first_digest, next_digest
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import Request, RequestState, Row, WrittenText, encode_prompt, encode_source, tokens_kept
from tickwise.engine.runner import Runner
from tickwise.engine.sampling import TokenChooser, fresh_seed
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.speculative import DraftModel, PromptLookup, Proposer, Speculation, TickTimes
from tickwise.engine.structured import compile_constraint
from tickwise.models.decoder import Decoder
from tickwise.models.writing_rules import NO_RULES, WritingRules

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
        settings, rules = request.settings, NO_RULES
        prompt_ids, n_source = self._prompt_ids(request.prompt)
        context = self._runner.context_length
        if self._runner.sources is not None:
            rules = self._runner.sources.rules
            context += n_source - self._runner.sources.longest
            if request.past_context == "slide":
                raise ConfigError("past_context: a target cannot slide past what the model writes at most; give 'stop'")
        if settings.speculate not in ("off", self._options.speculate):
            raise ConfigError(
                f"speculate: the request asks for {settings.speculate!r} and the engine was made for "
                f"{self._options.speculate!r}, which holds for all of its requests; make it with "
                f"EngineOptions(speculate={settings.speculate!r})"
            )
        if settings.seed is None:
            settings = replace(settings, seed=fresh_seed())
        # Samples of a greedy generation are all equal: one row writes them.
        n_rows = 1 if settings.temperature == 0 else settings.n
        if settings.beam_width > 1:
            n_rows = settings.beam_width
        self._check_fits(request, len(prompt_ids), context, n_rows)
        settings = _within_rules(settings, rules, context - n_source)
        if rules.first_id is not None and settings.beam_width == 1:  # a beam search begins with it by itself
            prompt_ids = [*prompt_ids, rules.first_id]
        constraint = compile_constraint(settings, self._tokenizer)
        state = RequestState(request, settings, request_id, prompt_ids, context, submitted_at, n_source)
        first = TokenChooser(settings, state.continued_ids, self._tokenizer, 0, constraint, rules.suppressed_ids)
        for index in range(n_rows):
            chooser = first.fork(index) if index else first
            row = Row(state, index, chooser, WrittenText(self._tokenizer, settings, state.continued_ids))
            if self._options.speculate != "off" and settings.beam_width == 1:
                row.proposer = Speculation(self._proposer(), self._options.draft_tokens, self._times, request_id)
            state.rows.append(row)
        state.forked = n_rows == 1
        if settings.beam_width > 1:
            end_ids = frozenset() if settings.ignore_eos else self._tokenizer.endings
            state.beam = BeamSearch(settings.beam_width, settings.length_penalty, end_ids, settings.max_tokens,
                                    rules=rules)
        if self._prefix_cache:
            # What is stored of a source's token depends on the whole source.
            source = next_digest(b"", prompt_ids[:n_source]).hex() if n_source else ""
            state.first_digest = first_digest(self._model_id, request.tenant, source)
        kept = tokens_kept(len(prompt_ids), context, settings.max_tokens)
        if kept < len(prompt_ids):
            self._say_once(
                f"the prompt has {len(prompt_ids)} tokens and the model's context {context}: "
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

    def _prompt_ids(self, prompt: str | Sequence[int]) -> tuple[list[int], int]:
        """All that is read before the text, and how many of these tokens are an encoder–decoder's source."""
        sources = self._runner.sources
        if sources is None:
            return self._checked_ids(prompt, encode_prompt), 0
        ids = self._checked_ids(prompt, encode_source)
        if ids[-1] != sources.end_id:
            ids = [*ids, sources.end_id]
        if len(ids) > sources.longest:
            raise ConfigError(f"the source has {len(ids)} tokens with its end mark and the model reads at most "
                              f"{sources.longest}; shorten or split it")
        return [*ids, sources.start_id], len(ids)

    def _checked_ids(
        self, prompt: str | Sequence[int], encode: Callable[["Tokenizer", str], list[int]]
    ) -> list[int]:
        if isinstance(prompt, str):
            ids = encode(self._tokenizer, prompt)
        else:
            try:
                ids = [operator.index(token_id) for token_id in prompt]
            except TypeError:
                raise ConfigError("prompt: give text, or token ids as whole numbers") from None
            self._tokenizer.check_ids(ids)
        if not ids:
            raise ConfigError("the prompt has no token; give at least one" if self._runner.sources is None else
                              "the source is empty; give a text")
        return ids

    def _proposer(self) -> Proposer:
        return PromptLookup() if self._draft is None else DraftModel(self._draft, self._say_once)

    def _check_fits(self, request: Request, n_prompt: int, context: int, n_rows: int) -> None:
        """``ConfigError`` when the request could not be served even alone."""
        size = self._runner.block_size
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


def _within_rules(settings: GenerationSettings, rules: WritingRules, longest: int) -> GenerationSettings:
    """The settings with room for the marks that ``rules`` put at both ends of a text, which count as tokens of it; the
    model writes at most ``longest``. At least one token is between them."""
    if rules.first_id is None and not rules.forces_end:
        return settings
    most = min(settings.max_tokens, longest)
    if settings.beam_width == 1:  # a beam search writes them itself
        most = max(1, most - rules.forces_end - (rules.first_id is not None))
    return replace(settings, max_tokens=most, min_tokens=min(settings.min_tokens, most))
