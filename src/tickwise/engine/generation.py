"""One prompt through an engine of its own: the way from a prompt to text that ``LanguageModel`` takes."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tickwise.engine.engine import Engine, EngineOptions
from tickwise.engine.requests import Failure, Generation, PastContext, Request, TextPiece, Timings, encode_prompt
from tickwise.engine.settings import GenerationSettings
from tickwise.models.decoder import Decoder

if TYPE_CHECKING:
    from tickwise.engine.work import TickListener
    from tickwise.tokenizers.tokenizer import Tokenizer

__all__ = ["Generation", "TextPiece", "Timings", "encode_prompt", "generate_events"]


def generate_events(
    module: Decoder, tokenizer: "Tokenizer", prompt: str, settings: GenerationSettings, *,
    ledger: "TickListener | None" = None, draft: Decoder | None = None,
) -> Iterator[TextPiece | Generation]:
    """Pieces of text as they are written, and each sample's ``Generation`` when it is done.

    The text slides through the model's context (that of a beam search ends there). ``draft`` guesses where the settings
    say so. Of a greedy generation's equal samples only the first is written.
    """
    started = time.perf_counter()
    prompt_ids = encode_prompt(tokenizer, prompt)
    options = options_for(module, len(prompt_ids), settings)
    engine = Engine(module, tokenizer, options=options, ledger=ledger, draft=draft)
    past_context: PastContext = "slide" if settings.beam_width == 1 else "stop"
    engine.submit(Request(prompt=prompt_ids, settings=settings, past_context=past_context), since=started)
    while not engine.idle:
        for event in engine.step():
            if isinstance(event, Failure):
                raise event.error
            yield event


def options_for(module: Decoder, n_prompt: int, settings: GenerationSettings) -> EngineOptions:
    """An engine that is just large enough for one request, and reads its prompt in one tick."""
    block_size = 16
    longest = min(module.config.context_length, n_prompt + settings.max_tokens)
    n_rows = settings.beam_width if settings.beam_width > 1 else 1 if settings.temperature == 0 else settings.n
    return EngineOptions(
        max_rows=n_rows, tick_tokens=max(n_rows, module.config.context_length), block_size=block_size,
        n_blocks=n_rows * -(-longest // block_size), prefix_cache=False, use_cache=settings.use_cache,
        speculate=settings.speculate,
    )
