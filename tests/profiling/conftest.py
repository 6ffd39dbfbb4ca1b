"""A clock that the test moves, and traces made on it."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ledger_examples import ROOF, STRETCHES, Clock, FakeToken, FakeWork, linear_costs, run_tick

from tickwise.core.stages import Stage
from tickwise.profiling import ledger as ledger_module
from tickwise.profiling.energy import EnergyModel
from tickwise.profiling.ledger import Ledger
from tickwise.profiling.trace_store import TraceWriter
from tickwise.profiling.usage import Usage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(ledger_module, "time", types.SimpleNamespace(perf_counter_ns=made))
    return made


@pytest.fixture
def make_trace(tmp_path: Path, clock: Clock) -> Callable[..., Path]:
    """Writes a trace of ``n_ticks`` ticks, one token each. In tick ``slow`` layer 1 takes ten times as long, in
    ``slow_tick`` everything twice; ``extra`` is a stage and the tick that has it, for 50 µs; in the ticks of
    ``late`` another program held the core for so many nanoseconds of these stages. Beams ``said`` nothing.
    """

    def make(name: str = "trace", n_ticks: int = 20, slow: int | None = None, ffn_factor: float = 1.0,
             slow_tick: int | None = None, extra: tuple[Stage, int] | None = None, phase: str | None = None,
             late: dict[int, list[tuple[Stage, int]]] | None = None, usage: bool = True, said: bool = True,
             **header: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        writer = TraceWriter(folder, "run1")
        costs = linear_costs({(Stage.FFN, 0): (8_000, 2_000, 500), (Stage.FFN, 1): (8_000, 2_000, 500),
                              (Stage.HEAD, None): (20_000, 1_000, 100)}, {(Stage.HEAD, None): (0, 10, 0)})
        energy = EnergyModel(joules_per_flop=1e-12, joules_per_byte=1e-10, idle_watts=1.0)

        def usage_now() -> Usage:
            return Usage(clock() - waited_ns, interruptions, 0, waited_ns, 1)

        ledger = Ledger(writer, roofline=ROOF, costs=costs, energy=energy, usage=usage_now if usage else None)
        interruptions = waited_ns = 0
        for tick in range(n_ticks):
            waits = dict((late or {}).get(tick, []))
            if waits:
                interruptions, waited_ns = interruptions + 1, waited_ns + sum(waits.values())
            factor = 10.0 if tick == slow else 1.0
            stretches = [(stage, layer, round(ns * ffn_factor * (factor if layer == 1 else 1)) if stage is Stage.FFN
                          else ns) for stage, layer, ns in STRETCHES]
            if tick == slow_tick:
                stretches = [(stage, layer, 2 * ns) for stage, layer, ns in stretches]
            if extra is not None and tick == extra[1]:
                stretches.append((extra[0], None, 50_000))
            stretches = [(stage, layer, ns + waits.pop(stage, 0)) for stage, layer, ns in stretches]
            work = FakeWork(phase=phase or ("prefill" if tick == 0 else "decode"), kv_tokens=10 + tick)
            token = FakeToken("a", 10 + tick, tick, chr(97 + tick % 26))
            run_tick(ledger, clock, stretches, work, (token,) if said else ())
            clock.passes(1_000)
        ledger.flush()
        writer.close({"model": "a model", "dtype": "fp32", "device": "cpu", "command": "tickwise trace",
                      "roofline": {"number_format": "fp32", "flops_per_s": 100e9, "bytes_per_s": 10e9},
                      "energy": {"source": "modelled"}, **header})
        return folder

    return make
