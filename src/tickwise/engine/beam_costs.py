"""What the ticks of a beam search cost: counted from listings of the same operations.

Shapes: B sources side by side, W beams, S tokens of the longest source, C columns of stored tokens.
"""

from typing import Any, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.stages import Stage
from tickwise.engine.beam_state import FirstTokens, StoredSources, TreeCache
from tickwise.layers.attention import keeps_scores
from tickwise.layers.source_memory import Memory
from tickwise.models.encoder_decoder import EncoderDecoder
from tickwise.profiling.ledger import CostTable, Phase, RequestRow, TickCosts
from tickwise.profiling.program import Program, instruction_json, list_program, stage_costs

_COVERED = frozenset({
    Stage.EMBED, Stage.NORM, Stage.QKV, Stage.ROPE, Stage.ATTENTION, Stage.OUT, Stage.CROSS_ATTENTION, Stage.FFN,
    Stage.HEAD,
})
_MOST_TABLES = 1024
_FEWEST = 2
"""Columns, and source tokens, of the shortest listing."""


class SourceWork(NamedTuple):
    """A tick that reads sources, and the start of each target."""

    lengths: tuple[int, ...]
    """Tokens of each source, its end counted."""
    phase: Phase = "prefill"
    rows: tuple[RequestRow, ...] = ()

    @property
    def batch(self) -> int:
        return len(self.lengths)

    @property
    def kv_tokens(self) -> int:
        """Tokens that attention looks at, padding included."""
        return self.batch * max(self.lengths)


class BeamWork(NamedTuple):
    """A tick that reads one more token of every beam."""

    batch: int
    """Sources side by side, B; places whose source is done are computed as well."""
    width: int
    longest: int
    """Tokens of the longest source, S."""
    is_even: bool
    """All sources are equally long: nothing hides padding."""
    n_columns: int
    """Stored tokens of each beam, the new one included, C."""
    phase: Phase = "decode"
    rows: tuple[RequestRow, ...] = ()

    @property
    def kv_tokens(self) -> int:
        """Tokens that attention looks at: of the sources, and of all beams."""
        return self.batch * (self.longest + self.width * self.n_columns)


class BeamCosts:
    """The ``CostModel`` of ``beam_search``. Making masks and choosing tokens are not counted."""

    def __init__(self, module: EncoderDecoder) -> None:
        self._module = module
        self._tables: dict[tuple[Any, ...], CostTable] = {}
        self._typical: dict[Phase, SourceWork | BeamWork] = {}

    def __call__(self, work: SourceWork | BeamWork) -> TickCosts:
        if work.phase == "decode" or work.phase not in self._typical:
            self._typical[work.phase] = work
        if isinstance(work, SourceWork):
            return TickCosts(self._table(tuple(sorted(work.lengths)), work), ())
        config = self._module.config
        keeps = keeps_scores(self._weight.device, max(2, work.width, work.longest), config.n_heads, config.n_kv_heads)
        shortest = work._replace(longest=_FEWEST if keeps else work.longest, n_columns=_FEWEST)
        table = self._table(tuple(shortest), shortest)
        return TickCosts(table, (work.longest - shortest.longest, work.n_columns - shortest.n_columns))

    def typical_listing(self) -> list[dict[str, Any]] | None:
        """The instructions of the last tick of beams and of the first one with sources, as JSON values; ``None`` when
        there was no tick."""
        found = [{"phase": phase, **instruction_json(instruction)} for phase, work in sorted(self._typical.items())
                 for instruction in self.listing(work).instructions]
        return found or None

    def listing(self, work: SourceWork | BeamWork) -> Program:
        """The program of one tick."""
        if isinstance(work, SourceWork):
            ids_BS = torch.zeros(work.batch, max(work.lengths), dtype=torch.long, device=self._weight.device)
            return list_program(self._module, ids_BS, torch.tensor(work.lengths, device=ids_BS.device), call=_read)
        sources, cache = self._state(work)
        ids_BW = torch.zeros(work.batch, work.width, dtype=torch.long, device=self._weight.device)
        return list_program(self._module, ids_BW, sources, cache, call=_go_on)

    @property
    def _weight(self) -> Tensor:
        return self._module.embed_tokens.weight

    def _state(self, work: BeamWork) -> tuple[StoredSources, TreeCache]:
        """What is stored when a tick of these sizes begins."""
        config, like = self._module.config, self._weight.detach()

        def planes(n: int) -> tuple[Tensor, ...]:
            shape = (work.batch, config.n_kv_heads, n, config.head_dim)
            return tuple(like.new_zeros(shape) for _ in range(config.n_decoder_layers))

        lengths_B = torch.full((work.batch,), work.longest, device=like.device)
        if not work.is_even:
            lengths_B[-1] -= 1
        first = FirstTokens()
        first.keys, first.values = list(planes(1)), list(planes(1))
        cache = TreeCache(first, work.width, config.positions == "rope")
        for _ in range(work.n_columns - cache.n_columns):
            cache.follow(torch.zeros(work.batch, work.width, dtype=torch.long, device=like.device),
                         torch.ones(work.batch, dtype=torch.bool, device=like.device))
        tokens_BS = torch.zeros(work.batch, work.longest, dtype=torch.long, device=like.device)
        memory = Memory(planes(work.longest), planes(work.longest), lengths_B, None, 0.0, tokens_BS)
        return StoredSources(memory), cache

    def _table(self, key: tuple[Any, ...], work: SourceWork | BeamWork) -> CostTable:
        table = self._tables.get(key)
        if table is None:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            table = CostTable.fixed(stage_costs(self.listing(work)), _COVERED)
            if isinstance(work, BeamWork):
                longer = (work._replace(longest=work.longest + 1), work._replace(n_columns=work.n_columns + 1))
                steps = [self._figures(one, table) - table.base for one in longer]
                table = CostTable(table.keys, table.base, numpy.stack(steps), _COVERED)
            self._tables[key] = table
        return table

    def _figures(self, work: BeamWork, like: CostTable) -> NDArray[numpy.int64]:
        found = CostTable.fixed(stage_costs(self.listing(work)), _COVERED)
        assert found.keys == like.keys, "length alone makes no other stages"
        return found.base


@torch.inference_mode()
def _read(module: EncoderDecoder, ids_BS: Tensor, lengths_B: Tensor) -> Tensor:
    memory = module.encode(ids_BS, lengths_B)
    start_B1 = torch.zeros(len(ids_BS), 1, dtype=torch.long, device=ids_BS.device)
    return module.logits(module.hidden_states(start_B1, memory, cache=FirstTokens()), memory)


@torch.inference_mode()
def _go_on(module: EncoderDecoder, ids_BW: Tensor, sources: StoredSources, cache: TreeCache) -> Tensor:
    return module.logits(module.hidden_states(ids_BW, sources, cache=cache), sources)
