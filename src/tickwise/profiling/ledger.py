"""Measured rows: every nanosecond of every tick belongs to exactly one stage.

While a tick runs, a ``Ledger`` only writes down the time of each stage mark. Rows are made later, for many ticks at
once: durations, then the counted work of each stage (the caller passes it in), and from both what bounds the stage,
its share of the roofline and its energy. A tick's rows add up to its wall time by construction: what belongs to no
other stage is the row ``host``.

On an accelerator, which works behind the program's back, every mark waits for it to finish.

Shapes: N ticks with the same marks, M marks of a tick, R rows of a tick, K stages with counted work.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy
from numpy.typing import NDArray

from tickwise.core.stages import Notes, Stage
from tickwise.profiling.energy import MEASURE_EVERY_NS, EnergyMeter, EnergyModel
from tickwise.profiling.roofline import PYTHON_STAGES, Roofline, place
from tickwise.profiling.usage import Usage, usage_columns

if TYPE_CHECKING:
    import torch

    from tickwise.profiling.instructions import Cost

Phase = Literal["prefill", "decode", "train"]
StageKey = tuple[Stage, int | None]
"""A stage and its layer; ``None``: the stage is not part of a layer."""

STAGES = tuple(Stage)
"""Codes of stages in ``Rows.stage``."""
NO_LAYER = -1

_HOST = Stage.HOST  # looking it up in the class costs as much as reading the clock
_CODE = {stage: code for code, stage in enumerate(STAGES)}
_PYTHON_CODES = numpy.array(sorted(_CODE[stage] for stage in PYTHON_STAGES))
_GAP_NS = 1_000_000
"""Between two ticks: what happened in a longer one is not held against the tick that follows."""
_BETWEEN_READINGS_NS, _READINGS = 200_000, 3
"""Asking the system takes some ten microseconds: what took longer than that was interrupted. Tried so often."""
_END = (0, None, None)
"""Room for a tick's last nanosecond."""
_LONG_AGO_NS = -(1 << 62)
# Marks kept in memory before rows are made of them between two ticks: about 60 bytes each.
_MOST_MARKS = 200_000


class RequestRow(Protocol):
    """One request's part of a tick."""

    @property
    def request_id(self) -> str: ...


class Work(Protocol):
    """What a tick computes."""

    @property
    def phase(self) -> Phase: ...
    @property
    def batch(self) -> int: ...
    @property
    def kv_tokens(self) -> int: ...
    @property
    def rows(self) -> Sequence[RequestRow]: ...


@dataclass(frozen=True)
class TrainingWork:
    """One update of ``batch`` sequences."""

    batch: int
    phase: Phase = "train"
    kv_tokens: int = 0
    rows: tuple[RequestRow, ...] = ()
    shape: Any = None
    """What tells its cost from that of other updates, where they differ."""


class Token(Protocol):
    """A token that a tick has made."""

    @property
    def request_id(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def token_id(self) -> int: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class CostTable:
    """Counted work of the stages of a kind of tick, linear in V lengths (how much is cached).

    Shapes: ``base`` (K, 3) and ``steps`` (V, K, 3), whose columns are FLOPs, bytes read and bytes written.
    """

    keys: tuple[StageKey, ...]
    base: NDArray[numpy.int64]
    steps: NDArray[numpy.int64]
    """What one more of each length adds."""
    covers: frozenset[Stage]
    """Stages whose work is counted: one of them that is not among ``keys`` did none."""

    @classmethod
    def fixed(cls, costs: "Mapping[StageKey, Cost]", covers: frozenset[Stage]) -> "CostTable":
        """Of a kind of tick whose work depends on no length; what ``covers`` does not have is left out."""
        counted = {key: (c.flops, c.bytes_read, c.bytes_written) for key, c in costs.items() if key[0] in covers}
        base_K3 = numpy.array(list(counted.values()), dtype=numpy.int64).reshape(len(counted), 3)
        return cls(tuple(counted), base_K3, numpy.zeros((0, *base_K3.shape), dtype=numpy.int64), covers)

    def at(self, lengths: Sequence[int]) -> dict[StageKey, tuple[int, int, int]]:
        """The figures of one tick."""
        values_K3 = self.base + numpy.tensordot(numpy.array(lengths, dtype=numpy.int64), self.steps, 1)
        return {key: (int(f), int(r), int(w)) for key, (f, r, w) in zip(self.keys, values_K3, strict=True)}


class TickCosts(NamedTuple):
    """The work of one tick. Ticks of the same kind share one table, which makes their rows cheap to fill in."""

    table: CostTable
    lengths: tuple[int, ...]


CostModel = Callable[[Any], TickCosts | None]
"""From the work that the ledger was told; ``None``: what this tick costs is not known."""


@dataclass(frozen=True)
class Rows:
    """Ledger rows of consecutive ticks, by column. Unknown numbers are NaN, unknown bounds ``None``."""

    tick: NDArray[numpy.int64]
    layer: NDArray[numpy.int64]
    stage: NDArray[numpy.int64]
    start_ns: NDArray[numpy.int64]
    """Since the ledger was made: when the stage's first stretch in this tick began."""
    duration_ns: NDArray[numpy.int64]
    flops: NDArray[numpy.float64]
    bytes_read: NDArray[numpy.float64]
    bytes_written: NDArray[numpy.float64]
    bound: NDArray[numpy.object_]
    roofline_share: NDArray[numpy.float64]
    energy_j: NDArray[numpy.float64]
    energy_measured: bool
    works: Sequence[Work]
    """Of the ticks, in order; ``first_tick`` is the number of the first."""
    first_tick: int
    used: Mapping[str, NDArray[numpy.float64]]
    """Of each tick, by the names of ``USAGE``: what the system says about it."""
    tick_start_ns: NDArray[numpy.int64]
    tick_wall_ns: NDArray[numpy.int64]
    """Of each tick, between the clock's readings at its two ends."""


class RowSink(Protocol):
    """Where finished rows go."""

    def add(self, rows: Rows, tokens: Sequence[tuple[int, Sequence[Token]]]) -> None:
        """``tokens``: of each tick by its number."""


class Ledger:
    """Listens to an engine's ticks, or a training loop's steps, and turns them into rows.

    >>> ledger = Ledger(sink, roofline=roof, costs=costs)            # doctest: +SKIP
    >>> ledger.begin_tick(); ledger.tick_work(work)                  # doctest: +SKIP
    >>> mark(Stage.EMBED)                                            # doctest: +SKIP
    >>> ledger.end_tick(tokens); ledger.flush()                      # doctest: +SKIP

    A tick that is never ended, or that had no work, leaves nothing behind; marks between ticks count for nothing.
    """

    def __init__(
        self, sink: RowSink, *, roofline: Roofline, costs: CostModel | None = None,
        energy: EnergyMeter | EnergyModel | None = None, synchronize: Callable[[], None] | None = None,
        usage: Callable[[], Usage] | None = None,
    ) -> None:
        self._sink, self._roofline, self._costs, self._energy = sink, roofline, costs, energy
        # One flat list of (nanoseconds, stage, layer): appending numbers makes nothing that the garbage collector
        # would have to visit. A tick ends with its last nanosecond and two fillers.
        self._marks: list[int | Stage | None] = []
        self._finished = 0
        """Length of ``_marks`` at the end of the last finished tick."""
        self._ticks: list[tuple[int, Work, Sequence[Token], Usage | None, Usage | None]] = []
        """Finished ticks that are not flushed: that length, work, tokens, and what was used before and after it."""
        self._usage = usage
        self._used: Usage | None = None
        """When the running tick began, which is when the one before ended unless there was a gap."""
        self._ended_ns = _LONG_AGO_NS
        self._work: Work | None = None
        self._n_flushed = 0
        self._layouts: dict[tuple[int | Stage | None, ...], _Layout] = {}
        self.pauses = 0
        """How often rows had to be made while the program ran, between two ticks."""
        self.pause_ns = 0
        """How long that took in all; it belongs to no tick."""
        self._now = _clock(synchronize)
        self.origin_ns = self._now()
        self._energy_times_ns: list[int] = []
        self._energy_j: list[float] = []
        self._measure_energy(self.origin_ns)
        self.notes = Notes(self._marks.extend, self._now)

    def mark(self, stage: Stage, layer: int | None = None) -> None:
        """From here on time belongs to ``stage``."""
        self._marks.extend((self._now(), stage, layer))

    @property
    def ticks(self) -> int:
        """Finished ticks."""
        return self._n_flushed + len(self._ticks)

    def begin_tick(self) -> None:
        """The tick's wall time starts; until the first mark it belongs to ``host``."""
        now_ns = self._now()
        marks = self._marks
        if len(marks) != self._finished:
            self._drop_unfinished()
        if now_ns > self._look_at_ns:
            now_ns = self._look_after(now_ns)
        if now_ns - self._ended_ns > _GAP_NS and self._usage is not None:
            self._used, now_ns = self._used_by(self._usage)
        marks.extend((now_ns, _HOST, None))

    def _used_by(self, usage: Callable[[], Usage]) -> tuple[Usage, int]:
        """What was used until now, and the time before asking. The two readings are no single one: where another
        program ran between them, they are repeated, lest its time is one tick's and what it did another's."""
        for _ in range(_READINGS):
            since_ns = self._now()
            used = usage()
            if self._now() - since_ns < _BETWEEN_READINGS_NS:
                break
        return used, since_ns

    def _drop_unfinished(self) -> None:
        """Forget marks between ticks, and a tick that was broken off, be it in the middle of its end."""
        self._work = None
        self._ended_ns = _LONG_AGO_NS
        while self._ticks and self._ticks[-1][0] > self._finished:
            self._ticks.pop()
        del self._marks[self._finished :]

    def _look_after(self, now_ns: int) -> int:
        """What is to be done now and then, before a tick: making rows, reading a meter, for which it must not pay.
        Returns when the tick begins: at once, where there was nothing to do."""
        if self._finished > 3 * _MOST_MARKS:
            self.flush()
            self.pauses += 1
            self.pause_ns += time.perf_counter_ns() - now_ns
            self._measure_energy(time.perf_counter_ns())
        elif self._has_meter:
            self._measure_energy(now_ns)
        else:
            self._look_at_ns = now_ns + MEASURE_EVERY_NS
            return now_ns
        return self._now()

    @property
    def _has_meter(self) -> bool:
        return self._energy is not None and not isinstance(self._energy, EnergyModel)

    def tick_work(self, work: Work) -> None:
        """What this tick computes, known after scheduling."""
        self._work = work

    def end_tick(self, tokens: Sequence[Token]) -> None:
        """The tick's wall time ends."""
        work = self._work
        if work is None:
            return
        self._work = None
        marks = self._marks
        length = len(marks) + 3
        before = self._used
        if self._usage is not None:
            self._used, _ = self._used_by(self._usage)
        self._ticks.append((length, work, tokens, before, self._used))
        marks.extend(_END)
        # The clock is read last, and nothing is made after it: the garbage collector's turn, and the growth of the
        # list, belong to the tick.
        self._ended_ns = marks[-3] = self._now()
        self._finished = length

    def _measure_energy(self, now_ns: int) -> None:
        self._look_at_ns = now_ns + MEASURE_EVERY_NS
        self._energy_times_ns.append(now_ns)
        self._energy_j.append(0.0 if self._energy is None or isinstance(self._energy, EnergyModel)
                              else self._energy.joules())

    def flush(self) -> None:
        """Make rows of the finished ticks, hand them to the sink and forget them."""
        if len(self._marks) != self._finished:
            self._drop_unfinished()
        if not self._ticks:
            return
        self._measure_energy(time.perf_counter_ns())
        rows = self._rows()
        first = self._n_flushed
        self._sink.add(rows, [(first + i, tokens) for i, (_, _, tokens, _, _) in enumerate(self._ticks) if tokens])
        self._n_flushed += len(self._ticks)
        self._ticks = []
        self._ended_ns = _LONG_AGO_NS
        del self._marks[: self._finished]
        self._finished = 0
        del self._energy_times_ns[:-1], self._energy_j[:-1]

    def _rows(self) -> Rows:
        marks = self._marks[: self._finished]
        times = numpy.array(marks[0::3], dtype=numpy.int64) - self.origin_ns
        stages, layers = marks[1::3], marks[2::3]
        ends = [tick[0] // 3 for tick in self._ticks]
        works = [tick[1] for tick in self._ticks]
        by_layout: dict[_Layout, list[int]] = {}
        start = 0
        for index, end in enumerate(ends):
            marked = (*stages[start : end - 1], *layers[start : end - 1])
            layout = self._layouts.get(marked)
            if layout is None:
                layout = self._layouts[marked] = _Layout(stages[start : end - 1], layers[start : end - 1])
            by_layout.setdefault(layout, []).append(index)
            start = end
        starts, last_marks = numpy.array([0, *ends[:-1]]), numpy.array(ends) - 1
        columns = [self._columns(layout, numpy.array(ticks), times, starts, works)
                   for layout, ticks in by_layout.items()]
        tick = numpy.concatenate([c[0] for c in columns])
        order = numpy.argsort(tick, kind="stable")
        tick, layer, stage, start_ns, duration_ns, figures = (
            numpy.concatenate([c[i] for c in columns])[order] for i in range(6)
        )
        flops, bytes_read, bytes_written = figures.T
        share, bound = place(duration_ns.astype(numpy.float64), flops, bytes_read + bytes_written, self._roofline)
        python = numpy.isin(stage, _PYTHON_CODES)
        bound[python] = "overhead"
        return Rows(
            tick=tick + self._n_flushed, layer=layer, stage=stage, start_ns=start_ns, duration_ns=duration_ns,
            flops=flops, bytes_read=bytes_read, bytes_written=bytes_written, bound=bound, roofline_share=share,
            energy_j=self._row_energy(tick, times[starts], times[last_marks], duration_ns, flops,
                                      bytes_read + bytes_written, python),
            energy_measured=self._has_meter,
            works=works, first_tick=self._n_flushed, used=usage_columns((tick[3], tick[4]) for tick in self._ticks),
            tick_start_ns=times[starts], tick_wall_ns=times[last_marks] - times[starts],
        )

    def _columns(
        self, layout: "_Layout", ticks: NDArray[numpy.int64], times: NDArray[numpy.int64],
        starts: NDArray[numpy.int64], works: Sequence[Work],
    ) -> tuple[NDArray[numpy.generic], ...]:
        """Columns of the ticks with this layout, tick by tick: tick, layer, stage, start, duration, figures (·, 3)."""
        times_NM = times[starts[ticks][:, None] + numpy.arange(layout.n_marks + 1)]
        start_NR, duration_NR = layout.rows(times_NM)
        figures_NR3 = self._figures(layout, [works[tick] for tick in ticks])
        n, r = start_NR.shape
        return (numpy.repeat(ticks, r), numpy.tile(layout.layer_R, n), numpy.tile(layout.stage_R, n),
                start_NR.ravel(), duration_NR.ravel(), figures_NR3.reshape(-1, 3))

    def _figures(self, layout: "_Layout", works: Sequence[Work]) -> NDArray[numpy.float64]:
        """(N, R, 3): FLOPs, bytes read and bytes written; NaN where not counted."""
        figures = numpy.full((len(works), len(layout.keys), 3), numpy.nan)
        if self._costs is None:
            return figures
        found: dict[int, tuple[CostTable, list[int], list[tuple[int, ...]]]] = {}
        for position, work in enumerate(works):
            costs = self._costs(work)
            if costs is not None:
                _, positions, lengths = found.setdefault(id(costs.table), (costs.table, [], []))
                positions.append(position)
                lengths.append(costs.lengths)
        for table, positions, lengths in found.values():
            lengths_NV = numpy.array(lengths, dtype=numpy.int64).reshape(len(positions), -1)
            index_R, idle_R = layout.places_in(table)
            values_NK3 = (table.base + numpy.tensordot(lengths_NV, table.steps, 1)).astype(numpy.float64)
            values_NR3 = values_NK3[:, numpy.maximum(index_R, 0)]
            values_NR3[:, index_R < 0] = numpy.nan
            values_NR3[:, idle_R] = 0.0
            figures[positions] = values_NR3
        return figures

    def _row_energy(
        self, tick: NDArray[numpy.int64], begin_ns: NDArray[numpy.int64], end_ns: NDArray[numpy.int64],
        duration_ns: NDArray[numpy.int64], flops: NDArray[numpy.float64], n_bytes: NDArray[numpy.float64],
        python: NDArray[numpy.bool_],
    ) -> NDArray[numpy.float64]:
        if self._energy is None:
            return numpy.full(len(tick), numpy.nan)
        if isinstance(self._energy, EnergyModel):
            return self._energy.joules(duration_ns.astype(numpy.float64), numpy.where(python, 0.0, flops),
                                       numpy.where(python, 0.0, n_bytes))
        measured_at = numpy.array(self._energy_times_ns) - self.origin_ns
        spent = numpy.interp(end_ns, measured_at, self._energy_j) - numpy.interp(begin_ns, measured_at, self._energy_j)
        per_ns = spent / numpy.maximum(end_ns - begin_ns, 1)
        joules: NDArray[numpy.float64] = per_ns[tick] * duration_ns
        return joules


class _Layout:
    """The order of marks that many ticks share, and how their stretches add up to rows."""

    def __init__(self, stages: Sequence[int | Stage | None], layers: Sequence[int | Stage | None]) -> None:
        row_of: dict[StageKey, int] = {}
        first_mark: list[int] = []
        owner = []
        for position, key in enumerate(zip(stages, layers, strict=True)):
            stage, layer = key
            assert isinstance(stage, Stage)
            assert layer is None or isinstance(layer, int)
            if (stage, layer) not in row_of:
                row_of[stage, layer] = len(first_mark)
                first_mark.append(position)
            owner.append(row_of[stage, layer])
        self.n_marks = len(owner)
        self.keys = tuple(row_of)
        self.stage_R = numpy.array([_CODE[stage] for stage, _ in self.keys])
        self.layer_R = numpy.array([NO_LAYER if layer is None else layer for _, layer in self.keys])
        self._first_mark_R = numpy.array(first_mark)
        self._by_row_M = numpy.argsort(owner, kind="stable")
        self._row_ends_R = numpy.concatenate([[0], numpy.cumsum(numpy.bincount(owner))[:-1]])
        self._places: dict[
            tuple[tuple[StageKey, ...], frozenset[Stage]], tuple[NDArray[numpy.int64], NDArray[numpy.bool_]]
        ] = {}

    def rows(self, times_NM: NDArray[numpy.int64]) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
        """Start and duration (N, R) from the times (N, M + 1) of the marks and of the tick's end."""
        stretches_NM = numpy.diff(times_NM, axis=1)
        durations_NR = numpy.add.reduceat(stretches_NM[:, self._by_row_M], self._row_ends_R, axis=1)
        return times_NM[:, self._first_mark_R], durations_NR

    def places_in(self, table: CostTable) -> tuple[NDArray[numpy.int64], NDArray[numpy.bool_]]:
        """(R,) where each row is in the table (-1: nowhere), and whether it is then known to have done nothing."""
        columns = table.keys, table.covers
        if columns not in self._places:
            place_of = {key: index for index, key in enumerate(table.keys)}
            index_R = numpy.array([place_of.get(key, -1) for key in self.keys])
            covered_R = numpy.array([stage in table.covers for stage, _ in self.keys])
            self._places[columns] = index_R, (index_R < 0) & covered_R
        return self._places[columns]


def _clock(synchronize: Callable[[], None] | None) -> Callable[[], int]:
    if synchronize is None:
        return time.perf_counter_ns

    def now() -> int:
        synchronize()
        return time.perf_counter_ns()

    return now


def synchronizer(device: "torch.device") -> Callable[[], None] | None:
    """How to wait for ``device``; ``None`` for the CPU, which is never behind."""
    import torch

    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return None
