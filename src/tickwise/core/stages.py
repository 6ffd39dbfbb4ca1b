"""The stages of a tick, and the marks by which running code says which stage it is in.

The code that executes a stage carries its name once: ``mark(Stage.QKV, layer)``. From there on everything belongs to
that stage, until the next mark. Whoever wants to know (a timer, a listing, a ledger) passes itself to ``marking``;
without a listener a mark costs one comparison.
"""

import contextlib
import enum
from collections.abc import Iterator
from typing import Protocol


class Stage(enum.StrEnum):
    """Stages of a tick and of a training step, in the order in which they run."""

    DATA = "data"
    SCHEDULE = "schedule"
    """Choosing what the next tick computes, and its bookkeeping."""
    TOKENIZE = "tokenize"
    EMBED = "embed"
    NORM = "norm"
    QKV = "qkv"
    ROPE = "rope"
    """Positions: norms of queries and keys, and their rotation."""
    ATTENTION = "attention"
    """Keys and values into the cache, scores, weighted values."""
    OUT = "out"
    """The attention's output projection, and its addition to the residual stream."""
    CROSS_ATTENTION = "cross_attention"
    FFN = "ffn"
    """The feed-forward block, and its addition to the residual stream."""
    HEAD = "head"
    LOSS = "loss"
    SAMPLE = "sample"
    DETOKENIZE = "detokenize"
    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"
    CHECKPOINT = "checkpoint"
    VALIDATION = "validation"
    HOST = "host"
    """Everything outside the other stages: Python between them, waiting."""


class Marker(Protocol):
    """Somebody who wants to know which stage runs."""

    def mark(self, stage: Stage, layer: int | None = None) -> None: ...


_marker: Marker | None = None


def mark(stage: Stage, layer: int | None = None) -> None:
    """From here on the work belongs to ``stage`` (of ``layer``, where the stage is part of one)."""
    if _marker is not None:
        _marker.mark(stage, layer)


@contextlib.contextmanager
def marking(marker: Marker | None) -> Iterator[None]:
    """``marker`` hears every mark inside the ``with`` block, instead of whoever heard them before."""
    global _marker
    before, _marker = _marker, marker
    try:
        yield
    finally:
        _marker = before
