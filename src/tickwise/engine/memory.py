"""How much memory serving a decoder needs, by term, before anything is loaded.

The estimate runs ticks of the real code without data and counts the bytes of their tensors (``profiling/dry_run.py``).
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch

from tickwise.core.device import torch_dtype
from tickwise.engine.options import EngineOptions
from tickwise.engine.runner import DecoderRunner, RowInput
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.dry_run import DryRun

_COUNTED_ROWS = 64
_READING_TICKS, _WRITING_TICKS = 6, 3


@dataclass(frozen=True)
class ServingMemory:
    """Modelled bytes by term at the worst moment; they add up to ``total``."""

    weights: int
    kv_cache: int
    """Keys and values of ``batch`` texts of ``context`` tokens, in whole blocks."""
    activations: int
    """Everything else that exists at that moment: outputs of the stages, gathered keys and values, logits."""
    fragmentation: int
    """What the C library keeps of freed memory, in holes between tensors that live on: simulated (CPU only)."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def estimate_serving_memory(model: DecoderConfig, *, batch: int, context: int, dtype: str,
                            on_cpu: bool = True) -> ServingMemory:
    """Counted on a dry run: every text is read, piece by piece, and then all go on by some tokens; the process itself
    comes on top.

    What a tick holds grows by the same bytes for every text, so many are not counted one by one.
    """
    if batch > _COUNTED_ROWS:
        fewer, more = (estimate_serving_memory(model, batch=n, context=context, dtype=dtype, on_cpu=on_cpu)
                       for n in (_COUNTED_ROWS // 2, _COUNTED_ROWS))

        def extrapolated(name: str) -> int:
            at_most = int(getattr(more, name))
            return at_most + (batch - _COUNTED_ROWS) * (at_most - getattr(fewer, name)) // (_COUNTED_ROWS // 2)

        return ServingMemory(weights=more.weights, kv_cache=extrapolated("kv_cache"),
                             activations=extrapolated("activations"),
                             fragmentation=max(0, extrapolated("fragmentation")))
    size = EngineOptions.block_size
    blocks_per_row = -(-context // size)
    with DryRun() as dry:
        with _default_dtype(torch_dtype(dtype)):
            module = Decoder(model).requires_grad_(False).eval()
        weights = dry.now
        runner = DecoderRunner(module, batch * blocks_per_row, size)
        blocks = [range(index * blocks_per_row, (index + 1) * blocks_per_row) for index in range(batch)]
        dry.reset_peak()

        def run(n_writing: int, pieces: Sequence[tuple[int, int, int]]) -> None:
            runner.run([RowInput([0], context - 1, own, 1) for own in blocks[:n_writing]] + [
                RowInput([0] * (end - start), start, blocks[row], int(end == context)) for row, start, end in pieces])

        ticks = _reading(batch, context)
        for index in sorted({number * (len(ticks) - 1) // (_READING_TICKS - 1) for number in range(_READING_TICKS)}):
            run(*ticks[index])
        for _ in range(_WRITING_TICKS):
            run(batch, ())
        kv_cache = runner.state_bytes
    holes = dry.resident_peak - dry.peak if on_cpu else 0
    return ServingMemory(weights=weights, kv_cache=kv_cache, activations=dry.peak - weights, fragmentation=holes)


def _reading(batch: int, context: int) -> list[tuple[int, list[tuple[int, int, int]]]]:
    """The ticks that read the prompts: how many texts are written on meanwhile, and the pieces (text, start, end)."""
    ticks: list[tuple[int, list[tuple[int, int, int]]]] = [(0, [])]
    room = EngineOptions.tick_tokens
    for row in range(batch):
        start = 0
        while start < context:
            if room == 0:
                ticks.append((row, []))
                room = EngineOptions.tick_tokens - row
            end = min(context, start + room)
            ticks[-1][1].append((row, start, end))
            room -= end - start
            start = end
    return ticks


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
