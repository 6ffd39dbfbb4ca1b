"""What the stages of a tick cost, counted from program listings.

A tick's work is a sum: of what all of its rows share (reading the weights), of what each row adds, and of the logits
that are asked. What a row, or a batch of rows that attention reads together, adds is a polynomial in the tokens that
it reads and finds stored, one for each of the few sorts (``_Sort``), so a handful of short listings gives the work of
every tick, exactly, because FLOPs and bytes are whole numbers. Neither the time nor the memory that this takes grows
with the number of ticks or of lengths.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.stages import Stage, mark
from tickwise.engine.runner import DecoderRunner, RowInput, TextRunner
from tickwise.engine.work import RowWork, TickWork
from tickwise.layers.attention import causal_attention, keeps_scores
from tickwise.models.decoder import Decoder
from tickwise.profiling.ledger import CostTable, StageKey, TickCosts
from tickwise.profiling.program import Program, instruction_json, list_program, stage_costs

MODEL_STAGES = frozenset({
    Stage.EMBED, Stage.NORM, Stage.QKV, Stage.ROPE, Stage.ATTENTION, Stage.OUT, Stage.FFN, Stage.HEAD,
})
"""What a listing of a decoder's forward pass covers."""

_MOST_TABLES = 1024

_Figures = dict[StageKey, tuple[int, int, int]]
_Work = NDArray[numpy.int64]
"""(K, 3): FLOPs, bytes read and bytes written of K stages."""


_Read = Literal["in place", "gathered", "batch", "padded batch"]


class _Unit(NamedTuple):
    """What attention reads at once: a row, in place or gathered from scattered blocks; or a batch of ``n_new`` rows
    with a token each, the longest of which finds ``n_cached`` stored. Without padding all are equally long."""

    n_new: int
    n_cached: int
    read: _Read = "in place"


_Sort = _Unit
"""Units that run through the same operations, named by the shortest of them: one token; several after stored ones; a
fresh beginning, whose attention keeps whole score matrices; a longer one, whose attention does not; batches."""


class _Part(NamedTuple):
    """What units of one sort add to a tick. With x and y, the tokens that a unit reads and finds stored more than the
    shortest one, and z, its blocks more if it is gathered, it adds ``per_unit @ (1, x, x(x-1)/2, y, xy, z)``."""

    shared: _Work
    """Of the tick, however many units it has."""
    per_unit: NDArray[numpy.int64]
    """(6, K, 3)."""


class DecoderCosts:
    """The ``CostModel`` of an engine that runs a decoder.

    >>> costs = DecoderCosts(module, block_size=16)                                      # doctest: +SKIP
    >>> table, lengths = costs(TickWork((RowWork("a", 1, 99, "decode"),)))                # doctest: +SKIP
    >>> table.at(lengths)[Stage.ATTENTION, 0]                                            # doctest: +SKIP

    Rows count as they were read: in place, gathered from scattered blocks, or padded in one batch with others. Masks,
    which are made before the first stage, are not counted.
    """

    def __init__(self, module: Decoder, block_size: int) -> None:
        self._module, self._block_size = module, block_size
        config, device = module.config, next(module.parameters()).device
        # The shortest fresh beginning whose attention does not keep its scores.
        heads = config.n_heads, config.n_kv_heads
        self._long = 2
        while self._long <= config.context_length and keeps_scores(device, self._long, *heads):
            self._long += 1
        self._keys: tuple[StageKey, ...] = ()
        self._parts: dict[tuple[_Sort, bool], _Part] = {}
        self._heads: dict[Hashable, _Figures] = {}
        self._tables: dict[tuple[Any, ...], CostTable] = {}
        self._typical: dict[str, TickWork] = {}

    def __call__(self, work: TickWork) -> TickCosts | None:
        units = self._units(work.rows)
        if not units:
            return None
        sums: dict[_Sort, list[int]] = {}
        for unit in units:
            sort = self._sort(unit)
            x, y = unit.n_new - sort.n_new, unit.n_cached - sort.n_cached
            z = self._blocks_of(unit) - self._blocks_of(sort) if unit.read == "gathered" else 0
            of_sort = sums.setdefault(sort, [0, 0, 0, 0, 0, 0])
            for index, value in enumerate((1, x, x * (x - 1) // 2, y, x * y, z)):
                of_sort[index] += value
        sorts = tuple(sorted(sums))
        kind = (sorts, self._alone(units), self._asked(work.rows))
        table = self._tables.get(kind)
        if table is None:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            table = self._tables[kind] = self._table(*kind)
        if work.phase == "decode" or work.phase not in self._typical:
            self._typical[work.phase] = work
        return TickCosts(table, tuple(value for sort in sorts for value in sums[sort]))

    def typical_listing(self) -> list[dict[str, Any]] | None:
        """The instructions of the last decode tick and of the first tick with a prompt, as JSON values with the phase;
        ``None`` when there was no tick."""
        found = [{"phase": phase, **instruction_json(instruction)} for phase, work in sorted(self._typical.items())
                 for instruction in self.listing(work).instructions]
        return found or None

    def listing(self, work: TickWork) -> Program:
        """The program of one tick."""
        lane = 1 + max(-(-(row.n_cached + row.n_new) // self._block_size) for row in work.rows)
        inputs = self._inputs(work.rows, lane)
        n_blocks = lane * (max(row.blocks[0] for row in inputs) // lane + 1)

        def run(module: Decoder, rows: Sequence[RowInput]) -> Tensor | None:
            return DecoderRunner(module, n_blocks, self._block_size, lane).run(rows)

        return list_program(self._module, inputs, call=run)

    def _units(self, rows: Sequence[RowWork]) -> list[_Unit]:
        return [_unit(members) for members in _read_together(rows)]

    def _alone(self, units: Sequence[_Unit]) -> bool:
        """Whether no unit shares anything with another one."""
        return len(units) == 1

    def _asked(self, rows: Sequence[RowWork]) -> Hashable:
        """What the cost of the logits depends on; false where none are asked."""
        n_logits = sum(row.n_logits for row in rows)
        return (n_logits, _picks(rows)) if n_logits else ()

    def _inputs(self, rows: Sequence[RowWork], lane: int) -> list[RowInput]:
        """Rows in lanes of ``lane`` blocks, such that the runner reads those together that were read together."""
        inputs: list[RowInput] = []
        at = 0
        for members in _read_together(rows):
            at += len(members) > 1  # behind an empty lane, a batch has no neighbours
            for row in members:
                first = at * lane + (len(members) == 1)  # inside a lane, a row has none
                table = range(first, first - (-(row.n_cached + row.n_new) // self._block_size))
                inputs.append(RowInput([0] * row.n_new, row.n_cached, table[::-1] if row.gathered else table,
                                       row.n_logits))
                at += 1
        return inputs

    def _blocks_of(self, unit: _Unit) -> int:
        return -(-(unit.n_new + unit.n_cached) // self._block_size)

    def _sort(self, unit: _Unit) -> _Sort:
        if unit.read == "batch":
            return _Sort(2, 0, "batch")
        if unit.read == "padded batch":
            return _Sort(2, 1, "padded batch")
        # What is gathered has more than one block.
        least = self._block_size if unit.read == "gathered" else 0
        if unit.n_new == 1:
            return _Sort(1, least, unit.read)
        if unit.n_cached:
            return _Sort(2, max(1, least), unit.read)
        return _Sort(max(least + 1, self._long if unit.n_new >= self._long else 2), 0, unit.read)

    def _table(self, sorts: tuple[_Sort, ...], alone: bool, asked: Hashable) -> CostTable:
        parts = [self._part(sort, alone) for sort in sorts]
        keys, base = self._keys, parts[0].shared
        steps = numpy.concatenate([part.per_unit for part in parts])
        if asked:
            head = self._logits(asked)
            new = tuple(key for key in head if key not in keys)
            base = numpy.concatenate([base, numpy.zeros((len(new), 3), dtype=numpy.int64)])
            steps = numpy.concatenate([steps, numpy.zeros((len(steps), len(new), 3), dtype=numpy.int64)], 1)
            keys = (*keys, *new)
            base = base + numpy.array([head.get(key, (0, 0, 0)) for key in keys], dtype=numpy.int64)
        return CostTable(keys, base, steps, MODEL_STAGES)

    def _logits(self, asked: Any) -> _Figures:
        """What looking for these logits costs."""
        if asked not in self._heads:
            self._heads[asked] = self._head(asked)
        return self._heads[asked]

    def _part(self, sort: _Sort, alone: bool) -> _Part:
        """Of units of this sort, of which one is all the tick (``alone``) or which stand beside others."""
        if (sort, alone) not in self._parts:
            self._parts[sort, alone] = self._make_part(sort, alone)
        return self._parts[sort, alone]

    def _make_part(self, sort: _Sort, alone: bool) -> _Part:
        others = [] if alone else [sort]
        context = self._module.config.context_length
        batch = sort.read.endswith("batch")

        def at(x: int, y: int) -> _Work | None:
            """``None`` past the model's context, where no row can come either."""
            longer = _Sort(sort.n_new + x, sort.n_cached + y, sort.read)
            if longer.n_cached + (1 if batch else longer.n_new) > context:
                return None
            return self._body([longer, *others]) - (self._blocks_of(longer) - self._blocks_of(sort)) * gathering

        shortest = self._body([sort, *others])
        nothing = numpy.zeros_like(shortest)
        gathering = self._gathering() if sort.read == "gathered" else nothing
        read = stored = curve = both = nothing
        if sort.n_new > 1:
            one, two = at(1, 0), at(2, 0)
            read = nothing if one is None else one - shortest
            curve = nothing if two is None else two - shortest - 2 * read
        if sort.n_new == 1 or sort.n_cached or batch:
            more = at(0, 1)
            stored = nothing if more is None else more - shortest
            if sort.n_new > 1:
                more = at(1, 1)
                both = nothing if more is None else more - shortest - read - stored
        row = shortest if alone else self._body([sort, sort, sort]) - shortest
        shared = nothing if alone else shortest - 2 * row
        return _Part(shared, numpy.stack([row, read, curve, stored, both, gathering]))

    def _gathering(self) -> _Work:
        """What one more scattered block adds besides its tokens."""
        size = self._block_size
        start, one, all_of_it = (_Unit(1, size + more, "gathered") for more in (0, 1, size))
        shortest = self._body([start])
        if size == 1 or sum(all_of_it[:2]) > self._module.config.context_length:
            return numpy.zeros_like(shortest)  # of a single token it is part of that; without room there is none
        return self._body([all_of_it]) - shortest - size * (self._body([one]) - shortest)

    def _body(self, units: Iterable[_Unit]) -> _Work:
        """What a tick of these units does before it looks for logits."""
        work = TickWork(tuple(row for unit in units for row in _rows_of(unit)))
        for n in {row.n_new for row in work.rows if not row.n_cached}:
            self._make_mask(n)
        return self._in_order(_figures(self.listing(work)))

    def _make_mask(self, length: int) -> None:
        """The first reading of a length makes its causal mask; later ones, like those of an engine, find it."""
        weight = next(self._module.parameters())
        x_11T1 = torch.zeros(1, 1, length, 1, dtype=weight.dtype, device=weight.device)
        causal_attention(x_11T1, x_11T1, x_11T1)

    def _in_order(self, figures: _Figures) -> _Work:
        if not self._keys:
            self._keys = tuple(figures)
        assert set(figures) == set(self._keys), "all ticks have the same stages"
        return numpy.array([figures[key] for key in self._keys], dtype=numpy.int64)

    def _head(self, asked: Any) -> _Figures:
        """From the residual stream to so many rows of logits, of tokens that stand side by side or do not."""
        n_logits, picks = asked

        def logits(module: Decoder, hidden_1TC: Tensor) -> Tensor:
            mark(Stage.NORM)
            places = [0, *range(2, n_logits + 1)] if picks else slice(n_logits)
            return module.logits(hidden_1TC[:, places])

        return _figures(list_program(self._module, self._hidden(n_logits + 1), call=logits))

    def _hidden(self, length: int) -> Tensor:
        """(1, T, C): a residual stream."""
        weight = next(self._module.parameters())
        return torch.zeros(1, length, self._module.config.width, dtype=weight.dtype, device=weight.device)


class WholeTextCosts(DecoderCosts):
    """The ``CostModel`` of an engine that runs a decoder without a cache: a tick reads every text from its beginning,
    one after the other. Masks, of which every new length makes one, are not counted."""

    def listing(self, work: TickWork) -> Program:
        inputs = self._inputs(work.rows, 1 + max(-(-_length(row) // self._block_size) for row in work.rows))
        n_blocks = 1 + max(max(row.blocks) for row in inputs)

        def run(module: Decoder, rows: Sequence[RowInput]) -> Tensor | None:
            return TextRunner(module, n_blocks, self._block_size).run(rows)

        return list_program(self._module, inputs, call=run)

    def _units(self, rows: Sequence[RowWork]) -> list[_Unit]:
        return [_Unit(_length(row), 0) for row in rows if row.n_logits]  # the others are only remembered

    def _alone(self, units: Sequence[_Unit]) -> bool:
        return True

    def _asked(self, rows: Sequence[RowWork]) -> Hashable:
        return tuple(sorted(row.n_logits for row in rows if row.n_logits))

    def _body(self, units: Iterable[_Unit]) -> _Work:
        (unit,) = units
        length = unit.n_new + unit.n_cached
        self._make_mask(length)
        ids_1T = torch.zeros(1, length, dtype=torch.long, device=next(self._module.parameters()).device)
        return self._in_order(_figures(list_program(
            self._module, ids_1T, call=lambda module, ids_1T: module.hidden_states(ids_1T))))

    def _logits(self, asked: Any) -> _Figures:
        """Each row looks for its own."""
        total: _Figures = {}
        for n_logits in asked:
            for key, cost in super()._logits(n_logits).items():
                before = total.get(key, (0, 0, 0))
                total[key] = before[0] + cost[0], before[1] + cost[1], before[2] + cost[2]
        return total

    def _head(self, asked: Any) -> _Figures:

        def logits(module: Decoder, hidden_1TC: Tensor) -> Tensor:
            mark(Stage.NORM)
            return torch.cat([module.logits(hidden_1TC[:, -asked:])[0]])

        return _figures(list_program(self._module, self._hidden(asked), call=logits))


def _length(row: RowWork) -> int:
    return row.n_cached + row.n_new


def _read_together(rows: Sequence[RowWork]) -> Iterator[Sequence[RowWork]]:
    """Rows in order, those of a batch together."""
    at = 0
    while at < len(rows):
        yield rows[at : at + rows[at].together]
        at += rows[at].together


def _unit(members: Sequence[RowWork]) -> _Unit:
    """Of a row, or of all rows of a batch."""
    if len(members) == 1:
        return _Unit(members[0].n_new, members[0].n_cached, "gathered" if members[0].gathered else "in place")
    lengths = [row.n_cached for row in members]
    return _Unit(len(members), max(lengths), "padded batch" if min(lengths) < max(lengths) else "batch")


def _rows_of(unit: _Unit) -> Iterator[RowWork]:
    """Rows that are read like this; of a padded batch, the last one is shorter by a token."""
    if not unit.read.endswith("batch"):
        yield RowWork("", unit.n_new, unit.n_cached, "prefill", 0, gathered=unit.read == "gathered")
        return
    for index in range(unit.n_new):
        shorter = unit.read == "padded batch" and index == unit.n_new - 1
        yield RowWork("", 1, unit.n_cached - shorter, "prefill", 0, together=unit.n_new)


def _picks(rows: Sequence[RowWork]) -> bool:
    """Whether logits are asked of tokens that do not stand side by side, so that their rows have to be copied."""
    end = asked_end = 0
    for row in rows:
        end += row.n_new
        if row.n_logits:
            if asked_end and end - row.n_logits != asked_end:
                return True
            asked_end = end
    return False


def _figures(program: Program) -> _Figures:
    return {key: (cost.flops, cost.bytes_read, cost.bytes_written) for key, cost in stage_costs(program).items()
            if key[0] in MODEL_STAGES}
