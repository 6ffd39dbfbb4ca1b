"""The stages of a tick, and the marks by which running code says which stage it is in.

The code that executes a stage carries its name once: ``mark(Stage.QKV, layer)``. From there on everything belongs to
that stage, until the next mark. Whoever wants to know (a timer, a listing, a ledger) passes itself to ``marking``;
without a listener a mark costs one comparison.
"""

import enum
from collections.abc import Callable
from typing import NamedTuple, Protocol


class Stage(enum.StrEnum):
    """Stages of a tick and of a training step, in the order in which they run."""

    DATA = "data"
    SCHEDULE = "schedule"
    """Choosing what the next tick computes, and its bookkeeping."""
    DRAFT = "draft"
    """Guessing the next tokens: a draft model, or a look-up in the text."""
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
    RECURRENT = "recurrent"
    """A recurrent layer: what its steps take from the input, then the steps."""
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


Mark = tuple[int, Stage, int | None]
"""Nanoseconds on the listener's clock, stage and layer."""


class Notes(NamedTuple):
    """Where marks are written down with their time. A marker that has them as its ``notes`` is not called: a call for
    every mark would cost more than reading the clock."""

    write: Callable[[Mark], object]
    clock: Callable[[], int]


def _no_clock() -> int:
    return 0


_NOBODY: tuple[Callable[[Mark], object] | None, Callable[[], int]] = (None, _no_clock)
_write, _clock = _NOBODY


def mark(stage: Stage, layer: int | None = None) -> None:
    """From here on the work belongs to ``stage`` (of ``layer``, where the stage is part of one)."""
    if _write is not None:
        _write((_clock(), stage, layer))


def is_heard() -> bool:
    """Whether anybody hears marks here."""
    return _write is not None


class marking:  # noqa: N801  used like a function; a generator would cost a microsecond in every tick
    """``with marking(marker):`` the marker hears every mark inside the block, instead of whoever heard them before."""

    __slots__ = ("_before", "_inside")

    def __init__(self, marker: Marker | None) -> None:
        notes: Notes | None = getattr(marker, "notes", None)
        if notes is not None:
            self._inside: tuple[Callable[[Mark], object] | None, Callable[[], int]] = notes
        elif marker is not None:
            hear = marker.mark
            self._inside = (lambda of: hear(of[1], of[2])), _no_clock
        else:
            self._inside = _NOBODY

    def __enter__(self) -> None:
        global _write, _clock
        self._before = _write, _clock
        _write, _clock = self._inside

    def __exit__(self, *_: object) -> None:
        global _write, _clock
        _write, _clock = self._before
