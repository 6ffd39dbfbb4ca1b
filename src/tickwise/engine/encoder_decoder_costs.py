"""What the ticks of an engine that runs an encoder–decoder cost, counted from program listings.

A tick encodes the sources that are new, reads the rows' target tokens, and asks for logits; each of the three is listed
by itself. What reading costs is linear in how many keys each batch of attention looks at, so a few short listings tell
it for every length; encoding is listed once for every length of a source. A model that copies looks at its sources for
its logits too: they are listed together with the reading.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.stages import Stage, mark
from tickwise.engine.encoder_decoder_runner import (
    EncoderDecoderRunner,
    PartKind,
    n_target,
    part_keys,
    part_kind,
    read_together,
)
from tickwise.engine.runner import RowInput
from tickwise.engine.work import RowWork, TickWork
from tickwise.models.encoder_decoder import EncoderDecoder
from tickwise.profiling.ledger import CostTable, StageKey, TickCosts
from tickwise.profiling.program import Program, instruction_json, list_program, stage_costs

_COVERED = frozenset({
    Stage.EMBED, Stage.NORM, Stage.QKV, Stage.ROPE, Stage.ATTENTION, Stage.OUT, Stage.CROSS_ATTENTION, Stage.FFN,
    Stage.HEAD,
})
_MOST_TABLES = 1024
_SHORT_SOURCE = 2
"""Source tokens of the rows that are listed; their targets have one token before the new ones."""

_Do = Callable[[EncoderDecoderRunner, Sequence[RowInput]], object]
_Asked = tuple[int, ...]
"""For how many of its last tokens each row of a part is asked the next one."""
_Figures = dict[StageKey, NDArray[numpy.int64]]
"""FLOPs, bytes read and bytes written, (3,), by stage."""


class EncoderDecoderCosts:
    """The ``CostModel`` of an engine that runs an encoder–decoder.

    Masks and numbers of slots, which are made before the first stage, are not counted.
    """

    def __init__(self, module: EncoderDecoder, block_size: int) -> None:
        self._module, self._block_size = module, block_size
        self._tables: dict[tuple[Any, ...], CostTable] = {}
        self._encoded: dict[tuple[int, int], _Figures] = {}
        self._per_key: dict[tuple[PartKind, _Asked], tuple[_Figures, _Figures]] = {}
        self._heads: dict[tuple[int, bool], _Figures] = {}
        self._typical: dict[str, TickWork] = {}

    def __call__(self, work: TickWork) -> TickCosts | None:
        rows = [_input(row) for row in work.rows]
        if not rows:
            return None
        sources = tuple(sorted(Counter(row.n_source for row in rows if row.n_cached < row.n_source).items()))
        parts = list(read_together([row for row in rows if n_target(row)]))
        kinds = tuple(part_kind(part, part[0].gathered) for part in parts)
        lengths: list[int] = []
        for part, kind in zip(parts, kinds, strict=True):
            n_source_keys, n_target_keys = part_keys(part, kind.gathered)
            lengths += [n_source_keys - _SHORT_SOURCE, n_target_keys - kind.n_new - 1]
        asked = tuple(tuple(row.n_logits for row in part) for part in parts)
        table = self._tables.get((sources, kinds, asked))
        if table is None:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            table = self._tables[sources, kinds, asked] = self._table(sources, kinds, asked)
        if work.phase == "decode" or work.phase not in self._typical:
            self._typical[work.phase] = work
        return TickCosts(table, tuple(lengths))

    def typical_listing(self) -> list[dict[str, Any]] | None:
        """The instructions of the last decode tick and of the first tick with a source, as JSON values with the phase;
        ``None`` when there was no tick."""
        found = [{"phase": phase, **instruction_json(instruction)} for phase, work in sorted(self._typical.items())
                 for instruction in self.listing(work).instructions]
        return found or None

    def listing(self, work: TickWork) -> Program:
        """The program of one tick."""
        return self._listing([_input(row) for row in work.rows], EncoderDecoderRunner.run)

    def _listing(self, rows: Sequence[RowInput], do: _Do, block_size: int | None = None) -> Program:
        """What ``do(runner, rows)`` does with a runner that reads the rows as their notes say."""
        size = self._block_size if block_size is None else block_size
        lane = 1 + max(-(-(row.n_cached + len(row.ids)) // size) for row in rows)
        lanes = _with_blocks(rows, lane, size)

        @torch.inference_mode()
        def run(module: EncoderDecoder, rows: Sequence[RowInput]) -> None:
            do(EncoderDecoderRunner(module, lanes * lane, size, lane), rows)

        return list_program(self._module, rows, call=run)

    def _table(
        self, sources: tuple[tuple[int, int], ...], kinds: tuple[PartKind, ...], asked: tuple[_Asked, ...]
    ) -> CostTable:
        base = [self._source_figures(*lengths) for lengths in sources]
        if kinds:
            base.append(self._read_figures([_part(kind, 0, 0, n) for kind, n in zip(kinds, asked, strict=True)]))
        n_logits = sum(map(sum, asked))
        if n_logits and not self._module.config.copies:
            base.append(self._head_figures(n_logits, n_logits < sum(kind.n_rows * kind.n_new for kind in kinds)))
        steps = [figures for one in zip(kinds, asked, strict=True) for figures in self._figures_per_key(*one)]
        keys = tuple(dict.fromkeys(key for figures in (*base, *steps) for key in figures))
        nothing = numpy.zeros(3, dtype=numpy.int64)
        base_K3 = sum((numpy.array([f.get(key, nothing) for key in keys]) for f in base),
                      start=numpy.zeros((len(keys), 3), dtype=numpy.int64))
        steps_VK3 = numpy.array([[f.get(key, nothing) for key in keys] for f in steps], dtype=numpy.int64)
        return CostTable(keys, base_K3, steps_VK3.reshape(len(steps), len(keys), 3), _COVERED)

    def _source_figures(self, length: int, n_sources: int) -> _Figures:
        """Of encoding so many equally long sources."""
        if (length, n_sources) not in self._encoded:
            rows = [RowInput([0] * length, 0, (), 0, n_source=length) for _ in range(n_sources)]
            self._encoded[length, n_sources] = _figures(self._listing(rows, EncoderDecoderRunner.encode))
        return self._encoded[length, n_sources]

    def _read_figures(self, parts: Sequence[Sequence[RowInput]]) -> _Figures:
        """Of reading target tokens, and, where the model copies, of the logits behind them. In blocks of one token even
        the shortest rows can lie scattered."""
        rows = [row for part in parts for row in part]
        do: _Do = EncoderDecoderRunner.run if self._module.config.copies else EncoderDecoderRunner.read
        return _figures(self._listing(rows, do, block_size=1))

    def _figures_per_key(self, kind: PartKind, asked: _Asked) -> tuple[_Figures, _Figures]:
        """What one more key of a source, and of a target, adds to reading a part of this kind."""
        key = kind, asked if self._module.config.copies else ()
        if key not in self._per_key:
            short, longer_source, longer_target = (
                self._read_figures([_part(kind, *more, asked)]) for more in ((0, 0), (1, 0), (0, 1)))
            self._per_key[key] = _difference(longer_source, short), _difference(longer_target, short)
        return self._per_key[key]

    def _head_figures(self, n_logits: int, picks: bool) -> _Figures:
        """Of so many rows of logits; ``picks``: not of all tokens that were read."""
        if (n_logits, picks) not in self._heads:
            weight = next(self._module.parameters())
            hidden_1TC = torch.zeros(1, n_logits + picks, self._module.config.width, dtype=weight.dtype,
                                     device=weight.device)

            def logits(module: EncoderDecoder, hidden_1TC: Tensor) -> Tensor:
                mark(Stage.HEAD)
                return module.logits(hidden_1TC[:, list(range(n_logits))] if picks else hidden_1TC)

            self._heads[n_logits, picks] = _figures(list_program(self._module, hidden_1TC, call=logits))
        return self._heads[n_logits, picks]


def _input(row: RowWork) -> RowInput:
    """The row as the runner got it, but for its blocks."""
    return RowInput([0] * row.n_new, row.n_cached, (), row.n_logits, row.together, row.gathered, row.n_source)


def _part(kind: PartKind, more_source: int, more_target: int, asked: _Asked) -> list[RowInput]:
    """The shortest rows that are read as one part of this kind, with so many keys more."""
    n_source = _SHORT_SOURCE + more_source
    n_keys = kind.n_new + 1 + more_target
    rows = []
    for index in range(kind.n_rows):
        is_last = index == kind.n_rows - 1
        own_source = n_source - (kind.uneven and is_last)
        if kind.gathered or not kind.uneven:
            end = own_source + n_keys - (kind.hides and is_last and kind.n_new == 1 and kind.n_rows > 1)
        else:  # views of lanes begin where the shortest source ends
            end = n_source - 1 + n_keys
        rows.append(
            RowInput([0] * kind.n_new, end - kind.n_new, (), asked[index], kind.n_rows, kind.gathered, own_source))
    return rows


def _with_blocks(rows: Sequence[RowInput], lane: int, block_size: int) -> int:
    """Give rows blocks, such that the runner reads those together, and copies those together, that it did; how many
    lanes of ``lane`` blocks that takes."""
    at = 0
    for members in _parts_of_all(rows):
        at += 1  # behind an empty lane, a part has no neighbours
        for row in members:
            table = range(at * lane, at * lane - (-(row.n_cached + len(row.ids)) // block_size))
            row.blocks = table[::-1] if row.gathered else table
            at += 1 + row.gathered
    return at


def _parts_of_all(rows: Sequence[RowInput]) -> Iterable[Sequence[RowInput]]:
    """As ``read_together``, rows without target tokens each for itself."""
    yield from read_together([row for row in rows if n_target(row)])
    yield from ([row] for row in rows if not n_target(row))


def _difference(more: _Figures, less: _Figures) -> _Figures:
    assert set(more) == set(less), "length alone makes no other stages"
    return {key: more[key] - less[key] for key in more}


def _figures(program: Program) -> _Figures:
    return {key: numpy.array([cost.flops, cost.bytes_read, cost.bytes_written], dtype=numpy.int64)
            for key, cost in stage_costs(program).items() if key[0] in _COVERED}
