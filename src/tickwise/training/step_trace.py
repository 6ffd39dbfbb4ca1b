"""Traces of trainings with loops of their own: each step is a tick, its stages are measured, nothing is counted."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from tickwise.core.stages import marking
from tickwise.profiling.ledger import Ledger, TrainingWork
from tickwise.profiling.recording import record_trace


@contextlib.contextmanager
def recorded_steps(trace: Path | None, name: str, device: torch.device) -> Iterator[Ledger | None]:
    """The ledger of a trace at ``trace``, if that is given, which hears the marks inside the block. Raises
    ``OutputError`` as ``record_trace``."""
    if trace is None:
        yield None
        return
    with record_trace(trace, model=name, dtype=torch.float32, device=device) as ledger, marking(ledger):
        yield ledger


@contextlib.contextmanager
def recorded_step(ledger: Ledger | None, batch: int) -> Iterator[None]:
    """One step on ``batch`` examples; a step that an exception ends is none."""
    if ledger is None:
        yield
        return
    ledger.begin_tick()
    ledger.tick_work(TrainingWork(batch))
    yield
    ledger.end_tick(())
