"""Parts of ledgers whose every figure is known: works, tokens, costs, and a clock that the test moves."""

from dataclasses import dataclass
from typing import Any

import numpy

from tickwise.core.stages import Stage
from tickwise.profiling.ledger import CostTable, Ledger, TickCosts
from tickwise.profiling.roofline import Roofline

ROOF = Roofline(number_format="fp32", flops_per_s=100e9, bytes_per_s=10e9)


@dataclass(frozen=True)
class FakeRow:
    request_id: str


@dataclass(frozen=True)
class FakeWork:
    rows: tuple[FakeRow, ...] = (FakeRow("a"),)
    phase: str = "decode"
    kv_tokens: int = 10

    @property
    def batch(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class FakeToken:
    request_id: str
    position: int
    token_id: int
    text: str


class Clock:
    """Nanoseconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now_ns = 1_000

    def __call__(self) -> int:
        return self.now_ns

    def passes(self, nanoseconds: int) -> None:
        self.now_ns += nanoseconds


def linear_costs(base: dict[Any, tuple[int, int, int]], step: dict[Any, tuple[int, int, int]] | None = None) -> Any:
    """Costs that grow with ``kv_tokens`` by ``step``."""
    keys = tuple(base)
    steps = numpy.array([[(step or {}).get(key, (0, 0, 0)) for key in keys]])
    table = CostTable(keys, numpy.array([base[key] for key in keys]), steps,
                      frozenset({Stage.EMBED, Stage.NORM, Stage.ATTENTION, Stage.FFN, Stage.HEAD}))
    return lambda work: TickCosts(table, (work.kv_tokens,))


def run_tick(ledger: Ledger, clock: Clock, stretches: list[tuple[Stage, int | None, int]], work: FakeWork | None = None,
             tokens: tuple[FakeToken, ...] = (), host_ns: int = 5) -> None:
    """A tick that spends ``host_ns`` before its first mark and then the given time in each stretch."""
    ledger.begin_tick()
    clock.passes(host_ns)
    ledger.tick_work(work or FakeWork())
    for stage, layer, nanoseconds in stretches:
        ledger.mark(stage, layer)
        clock.passes(nanoseconds)
    ledger.end_tick(tokens)


STRETCHES = [(Stage.EMBED, None, 100), (Stage.NORM, 0, 20), (Stage.FFN, 0, 400), (Stage.NORM, 1, 20),
             (Stage.FFN, 1, 500), (Stage.HEAD, None, 300), (Stage.SAMPLE, None, 50), (Stage.HOST, None, 10)]
