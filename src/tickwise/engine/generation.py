"""Prompts through an engine of their own, one or many: the way from a prompt to text that ``LanguageModel`` takes."""

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tickwise.core.console import SayOnce, say
from tickwise.core.errors import ConfigError, UserError
from tickwise.engine.engine import Engine
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import (
    Failure,
    Generation,
    PastContext,
    Request,
    TextPiece,
    Timings,
    encode_prompt,
    encode_source,
)
from tickwise.engine.sampling import fresh_seed
from tickwise.engine.serving import LanguageModule
from tickwise.engine.settings import GenerationSettings
from tickwise.models.decoder import Decoder
from tickwise.models.encoder_decoder import EncoderDecoder

if TYPE_CHECKING:
    from tickwise.engine.work import TickListener
    from tickwise.tokenizers.tokenizer import Tokenizer

__all__ = ["Answer", "Generation", "TextPiece", "Timings", "encode_prompt", "generate_batch", "generate_events"]
_ROWS = 8
"""Samples of a batch of prompts that are written at the same time."""


@dataclass(frozen=True)
class Answer:
    """What became of one prompt of a batch."""

    index: int
    """Which prompt, from 0."""
    samples: list[Generation]
    """In order; empty when it failed."""
    error: UserError | None = None

    @property
    def text(self) -> str:
        """What was written for a single sample. Raises ``error`` if there is one, and ``ConfigError`` when there are
        several samples."""
        if self.error is not None:
            raise self.error
        if len(self.samples) != 1:
            raise ConfigError(f"text: the prompt has {len(self.samples)} samples; take each one's text from samples")
        return self.samples[0].text


def generate_events(
    module: LanguageModule, tokenizer: "Tokenizer", prompt: str, settings: GenerationSettings, *,
    ledger: "TickListener | None" = None, draft: Decoder | None = None,
) -> Iterator[TextPiece | Generation]:
    """Pieces of text as they are written, and each sample's ``Generation`` when it is done.

    The text slides through the model's context (that of a beam search ends there); of a prompt that is longer than the
    context, ``tokens_kept`` are read. ``draft`` guesses where the settings say so. Of a greedy generation's equal
    samples only the first is written.
    """
    started = time.perf_counter()
    has_source = isinstance(module, EncoderDecoder)
    prompt_ids = encode_source(tokenizer, prompt) if has_source else encode_prompt(tokenizer, prompt)
    options = options_for(module, len(prompt_ids), settings)
    engine = Engine(module, tokenizer, options=options, ledger=ledger, draft=draft)
    past_context = past_context_of(module, settings)
    engine.submit(Request(prompt=prompt_ids, settings=settings, past_context=past_context), since=started)
    while not engine.idle:
        for event in engine.step():
            if isinstance(event, Failure):
                raise event.error
            if isinstance(event, Generation):
                _say_if_cut_off(event, settings, say)
            yield event


def _say_if_cut_off(generation: Generation, settings: GenerationSettings, tell: Callable[[str], None]) -> None:
    """A structure that ran out of tokens must not pass for a whole one."""
    if settings.structure is None or generation.finish_reason == "stop":
        return
    kind, _ = settings.structure
    ended = f"{kind}: the text ended after {len(generation.token_ids)} tokens"
    if kind != "json_schema":
        tell(f"{ended} before it was complete, and need not match; raise max_tokens")
        return
    try:
        json.loads(generation.text)
    except ValueError:
        tell(f"{ended} and is not complete JSON; raise max_tokens")


def options_for(module: LanguageModule, n_prompt: int, settings: GenerationSettings) -> EngineOptions:
    """An engine that is just large enough for one request, and reads its prompt in one tick."""
    block_size, context = 16, module.config.context_length
    if isinstance(module, EncoderDecoder):
        n_prompt += 2  # the marks at the end of the source and the beginning of the target
        context += n_prompt - 1
    longest = min(context, n_prompt + settings.max_tokens)
    n_rows = _rows_of(settings)
    return EngineOptions(
        max_rows=n_rows, tick_tokens=max(n_rows, context), block_size=block_size,
        n_blocks=n_rows * -(-longest // block_size), prefix_cache=False, use_cache=settings.use_cache,
        speculate=settings.speculate,
    )


def generate_batch(
    module: LanguageModule, tokenizer: "Tokenizer", prompts: Iterable[str], settings: GenerationSettings, *,
    ledger: "TickListener | None" = None, draft: Decoder | None = None,
) -> Iterator[Answer]:
    """Every prompt's answer, as soon as it is whole; many prompts are written together in one engine.

    A text is the one that its prompt gets alone with the same seed. Without a seed all prompts share one that is drawn
    here. Prompts are read and tokenised a few ahead, in a thread of their own. One that cannot be served does not
    disturb the others.
    """
    if settings.seed is None:
        settings = replace(settings, seed=fresh_seed())
    n_rows = max(_ROWS, _rows_of(settings))
    engine = Engine(module, tokenizer, ledger=ledger, draft=draft, options=EngineOptions(
        max_rows=n_rows, max_waiting=2 * n_rows, tick_tokens=max(EngineOptions.tick_tokens, n_rows),
        use_cache=settings.use_cache, speculate=settings.speculate,
    ))
    say_once = SayOnce()
    left, past_context = enumerate(prompts), past_context_of(module, settings)
    submitting: dict[int, Future[str]] = {}
    written: dict[int, list[Generation]] = {}
    with ThreadPoolExecutor(max_workers=1) as tokenising:
        while True:
            for index, prompt in itertools.islice(left, 2 * n_rows - len(submitting) - len(written)):
                request = Request(prompt=prompt, settings=settings, past_context=past_context, id=str(index))
                submitting[index] = tokenising.submit(engine.submit, request)
            if engine.idle:
                if not submitting:
                    return
                wait(submitting.values(), return_when=FIRST_COMPLETED)
            for index in [index for index, future in submitting.items() if future.done()]:
                problem = submitting.pop(index).exception()
                if problem is None:
                    written.setdefault(index, [])
                elif isinstance(problem, UserError):
                    yield Answer(index, [], problem)
                else:
                    raise problem
            for event in engine.step():
                index = int(event.request_id)
                if isinstance(event, Failure):
                    yield Answer(index, [], event.error)
                elif isinstance(event, Generation):
                    _say_if_cut_off(event, settings, lambda text: say_once(text, "cut off"))
                    written.setdefault(index, []).append(event)
            for index in [index for index in written if index not in submitting and str(index) not in engine]:
                samples = written.pop(index)
                if samples:
                    yield Answer(index, all_samples(samples, settings))


def all_samples(written: list[Generation], settings: GenerationSettings) -> list[Generation]:
    """Samples in order. Of a greedy generation one is written, and all ``n`` are equal."""
    if settings.temperature == 0 and settings.beam_width == 1:
        return [replace(written[0], sample=index) for index in range(settings.n)]
    return sorted(written, key=lambda generation: generation.sample)


def past_context_of(module: LanguageModule, settings: GenerationSettings) -> PastContext:
    """What ``generate`` does with a text that fills the context."""
    return "stop" if settings.beam_width > 1 or isinstance(module, EncoderDecoder) else "slide"


def _rows_of(settings: GenerationSettings) -> int:
    """Rows of the engine that one prompt takes."""
    if settings.beam_width > 1:
        return settings.beam_width
    return 1 if settings.temperature == 0 else settings.n
