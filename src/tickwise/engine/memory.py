"""How much memory serving a decoder needs, by term, before anything is loaded.

The estimate runs ticks of the real code without data and counts the bytes of their tensors (``profiling/dry_run.py``).
"""

from dataclasses import asdict, dataclass

from tickwise.core.device import torch_dtype
from tickwise.engine.engine import EngineOptions
from tickwise.engine.runner import DecoderRunner, RowInput
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.dry_run import HOLES, DryRun, convert

_COUNTED_ROWS = 64


@dataclass(frozen=True)
class ServingMemory:
    """Modelled bytes by term at the worst moment; they add up to ``total``."""

    weights: int
    kv_cache: int
    """Keys and values of ``batch`` texts of ``context`` tokens, in whole blocks."""
    activations: int
    """Everything else that exists at that moment: outputs of the stages, gathered keys and values, logits."""
    fragmentation: int
    """What the C library keeps of freed memory, in holes between tensors that live on (CPU only)."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def estimate_serving_memory(model: DecoderConfig, *, batch: int, context: int, dtype: str,
                            on_cpu: bool = True) -> ServingMemory:
    """Counted on two ticks: the last piece of a prompt that fills the context, and one more token for all texts."""
    size = EngineOptions.block_size
    blocks_per_row = -(-context // size)
    piece = min(EngineOptions.tick_tokens, context)
    # What a tick holds grows by the same bytes for every text: many need not be counted one by one.
    counted = min(batch, _COUNTED_ROWS)
    with DryRun() as dry:
        module = Decoder(model).requires_grad_(False).eval()
        convert(module, torch_dtype(dtype))
        weights = dry.now
        runner = DecoderRunner(module, counted * blocks_per_row, size)
        blocks = [range(index * blocks_per_row, (index + 1) * blocks_per_row) for index in range(counted)]
        dry.reset_peak()
        before = dry.now
        runner.run([RowInput([0] * piece, context - piece, blocks[0], 1)])
        reading = dry.peak - before

        def decoding(rows: int) -> int:
            dry.reset_peak()
            before = dry.now
            runner.run([RowInput([0], context - 1, own, 1) for own in blocks[:rows]])
            return dry.peak - before

        writing = decoding(counted)
        if batch > counted:
            writing += (batch - counted) * (writing - decoding(counted // 2)) // (counted - counted // 2)
        kv_cache = runner.state_bytes // counted * batch
    activations = max(reading, writing)
    return ServingMemory(weights=weights, kv_cache=kv_cache, activations=activations,
                         fragmentation=round(HOLES * activations) if on_cpu else 0)
