"""What the stages of a tick cost, counted from the program listing of that very tick.

A tick's work depends on how many tokens each row reads, and linearly on what each row finds stored. So ticks of one
kind (the same numbers of new tokens) are listed once per such length plus once, and every further tick of the kind is
computed from that: exactly, because FLOPs and bytes are whole numbers that grow by the same step for every token.
"""

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.stages import Stage
from tickwise.engine.runner import DecoderRunner, RowInput
from tickwise.engine.work import RowWork, TickWork
from tickwise.models.decoder import Decoder
from tickwise.profiling.ledger import CostTable, StageKey, TickCosts
from tickwise.profiling.program import Instruction, Program, list_program, stage_costs

MODEL_STAGES = frozenset({
    Stage.EMBED, Stage.NORM, Stage.QKV, Stage.ROPE, Stage.ATTENTION, Stage.OUT, Stage.FFN, Stage.HEAD,
})
"""What a listing of a decoder's forward pass covers."""

_Figures = dict[StageKey, tuple[int, int, int]]
_Kind = tuple[Any, ...]


class DecoderCosts:
    """The ``CostModel`` of an engine that runs a decoder.

    >>> costs = DecoderCosts(module, block_size=16)                                      # doctest: +SKIP
    >>> table, lengths = costs(TickWork((RowWork("a", 1, 99, "decode"),)))                # doctest: +SKIP
    >>> table.at(lengths)[Stage.ATTENTION, 0]                                            # doctest: +SKIP

    Rows are taken to hold their state in blocks that lie side by side, as they do until blocks run short.
    """

    def __init__(self, module: Decoder, block_size: int) -> None:
        self._module, self._block_size = module, block_size
        self._tables: dict[_Kind, CostTable] = {}
        self._typical: TickWork | None = None

    def __call__(self, work: TickWork) -> TickCosts | None:
        if not work.rows:
            return None
        kind, lengths = self._kind(work.rows)
        table = self._tables.get(kind)
        if table is None:
            table = self._tables[kind] = self._table(work.rows)
        if self._typical is None or work.phase == "decode":
            self._typical = work
        return TickCosts(table, lengths)

    def typical_listing(self) -> list[dict[str, Any]] | None:
        """The instructions of the last decode tick (of the first tick if there was none), as JSON values."""
        if self._typical is None:
            return None
        return [instruction_json(i) for i in self.listing(self._typical).instructions]

    def listing(self, work: TickWork) -> Program:
        """The program of one tick."""
        inputs = self._inputs(work.rows)
        n_blocks = sum(len(row.blocks) for row in inputs)

        def run(module: Decoder, rows: Sequence[RowInput]) -> Tensor | None:
            return DecoderRunner(module, n_blocks, self._block_size).run(rows)

        return list_program(self._module, inputs, call=run)

    def _inputs(self, rows: Sequence[RowWork]) -> list[RowInput]:
        inputs: list[RowInput] = []
        used = 0
        for row in rows:
            needed = -(-(row.n_cached + row.n_new) // self._block_size)
            inputs.append(RowInput([0] * row.n_new, row.n_cached, range(used, used + needed), row.n_logits))
            used += needed
        return inputs

    def _kind(self, rows: Sequence[RowWork]) -> tuple[_Kind, tuple[int, ...]]:
        """What ticks must share to share a table, and the lengths in which they may differ."""
        kind = tuple((row.n_logits, row.n_new, row.n_cached > 0) for row in rows)
        return kind, tuple(row.n_cached for row in rows)

    def _table(self, rows: Sequence[RowWork]) -> CostTable:
        """From the shortest tick of the kind, and one more for every sort of row that can grow."""
        shortest = [min(1, row.n_cached) for row in rows]
        if 0 in shortest:
            self._figures(rows, shortest)  # the first reading of a length makes its causal mask; later ones find it
        base = self._figures(rows, shortest)
        keys = tuple(base)
        values = base_values = _array(base, keys)
        steps: dict[tuple[int, int], NDArray[numpy.int64]] = {}  # rows with as many new tokens grow alike
        for i, row in enumerate(rows):
            sort = (row.n_new, shortest[i])
            if sort not in steps:
                grows = shortest[i] == 1 and 2 + row.n_new <= self._module.config.context_length
                longer = [2 if j == i else n_cached for j, n_cached in enumerate(shortest)]
                longer_values = _array(self._figures(rows, longer), keys) if grows else base_values
                steps[sort] = longer_values - base_values
            values = values - shortest[i] * steps[sort]
        return CostTable(
            keys, values, numpy.stack([steps[row.n_new, shortest[i]] for i, row in enumerate(rows)]), MODEL_STAGES
        )

    def _figures(self, rows: Sequence[RowWork], n_cached: Sequence[int]) -> _Figures:
        changed = [row._replace(n_cached=n_cached[i]) for i, row in enumerate(rows)]
        return {key: (cost.flops, cost.bytes_read, cost.bytes_written)
                for key, cost in stage_costs(self.listing(TickWork(tuple(changed)))).items()
                if key[0] in MODEL_STAGES}


def _array(figures: _Figures, keys: tuple[StageKey, ...]) -> NDArray[numpy.int64]:
    assert set(figures) == set(keys), "ticks of one kind have the same stages"
    return numpy.array([figures[key] for key in keys], dtype=numpy.int64)


def instruction_json(instruction: Instruction) -> dict[str, Any]:
    """As ``disasm --json`` and the timeline page have it."""
    return {"stage": str(instruction.stage), "layer": instruction.layer, "op": instruction.op,
            "shapes": [list(shape) for shape in instruction.shapes],
            "outputs": [list(shape) for shape in instruction.outputs], "flops": instruction.flops,
            "bytes_read": instruction.bytes_read, "bytes_written": instruction.bytes_written}
