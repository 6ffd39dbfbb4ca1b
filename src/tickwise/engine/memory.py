"""How much memory serving a decoder needs, by term, before anything is loaded.

The estimate runs ticks of the real code without data and counts the bytes of their tensors (``profiling/dry_run.py``).
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import torch

from tickwise.core.device import torch_dtype
from tickwise.engine.options import EngineOptions
from tickwise.engine.runner import DecoderRunner, RowInput
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.dry_run import DryRun

_COUNTED_ROWS = 64
_COUNTED_LAYERS = 24
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

    What a tick holds grows by the same bytes for every text and for every layer, so many are not counted one by one.
    """
    if model.n_layers > _COUNTED_LAYERS:
        few = _COUNTED_LAYERS // 2
        shallow, deep = (_of_texts(replace(model, n_layers=n), batch, context, dtype, on_cpu)
                         for n in (few, _COUNTED_LAYERS))
        counted = _grown(shallow, deep, model.n_layers - _COUNTED_LAYERS, _COUNTED_LAYERS - few)
    else:
        counted = _of_texts(model, batch, context, dtype, on_cpu)
    return ServingMemory(weights=counted.weights, kv_cache=counted.kv_cache,
                         activations=max(counted.reading, counted.writing), fragmentation=counted.holes)


class _Counted(NamedTuple):
    """Bytes, each of which grows evenly with the texts: ``reading`` and ``writing`` are the most that ticks of either
    kind hold besides weights and cache."""

    weights: int
    kv_cache: int
    reading: int
    writing: int
    holes: int


def _of_texts(model: DecoderConfig, batch: int, context: int, dtype: str, on_cpu: bool) -> _Counted:
    counted = _counted(model, min(batch, _COUNTED_ROWS), context, dtype, on_cpu)
    if batch <= _COUNTED_ROWS:
        return counted
    few = _COUNTED_ROWS // 2
    return _grown(_counted(model, few, context, dtype, on_cpu), counted, batch - _COUNTED_ROWS, _COUNTED_ROWS - few)


def _grown(fewer: _Counted, more: _Counted, further: int, apart: int) -> _Counted:
    """``further`` steps beyond ``more``, which is ``apart`` of them from ``fewer``."""
    return _Counted(*(max(0, much + further * (much - less) // apart) for less, much in zip(fewer, more, strict=True)))


@functools.lru_cache(maxsize=128)
def _counted(model: DecoderConfig, batch: int, context: int, dtype: str, on_cpu: bool) -> _Counted:
    size = EngineOptions.block_size
    lane = -(-context // size)
    with DryRun(simulate_heap=on_cpu) as dry:
        dry.among_small = False
        with default_dtype(torch_dtype(dtype)):
            module = Decoder(model).requires_grad_(False).eval()
        weights = dry.now
        runner = DecoderRunner(module, batch * lane, size, lane)
        blocks = [range(index * lane, (index + 1) * lane) for index in range(batch)]
        dry.reset_peak()

        def run(n_writing: int, pieces: Sequence[tuple[int, int, int]]) -> None:
            runner.run([RowInput([0], context - 1, own, 1) for own in blocks[:n_writing]] + [
                RowInput([0] * (end - start), start, blocks[row], int(end == context)) for row, start, end in pieces])

        ticks = _reading(batch, context)
        for index in sorted({number * (len(ticks) - 1) // (_READING_TICKS - 1) for number in range(_READING_TICKS)}):
            run(*ticks[index])
        reading, resident = dry.peak, dry.resident_peak
        dry.reset_peak()
        for _ in range(_WRITING_TICKS):
            run(batch, ())
        kv_cache = runner.state_bytes
    return _Counted(weights=weights, kv_cache=kv_cache, reading=reading - weights - kv_cache,
                    writing=dry.peak - weights - kv_cache,
                    holes=max(resident, dry.resident_peak) - max(reading, dry.peak))


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
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors inside the ``with`` block have this number format where they ask for none."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
