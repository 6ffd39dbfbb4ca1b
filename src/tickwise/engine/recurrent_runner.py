"""How the engine runs a recurrent model: a row's state is one block, however long its text is."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tickwise.core.stages import Stage
from tickwise.engine.runner import RowInput, SourceFormat
from tickwise.engine.work import RowWork, TickWork
from tickwise.models.recurrent import Recurrent
from tickwise.profiling.instructions import Program, instruction_json, stage_costs
from tickwise.profiling.ledger import CostTable, TickCosts
from tickwise.profiling.program import list_program

_STAGES = frozenset({Stage.EMBED, Stage.RECURRENT, Stage.HEAD})


class RecurrentRunner:
    """Runs a recurrent model: rows with equally many new tokens go through it side by side.

    What a block holds is the state after all of the row's tokens. It cannot go back, so guesses cannot be checked.
    """

    sources: SourceFormat | None = None

    def __init__(self, module: Recurrent, n_blocks: int) -> None:
        self.context_length = self.block_size = module.config.context_length
        self.vocab_size, self.n_blocks = module.config.vocab_size, n_blocks
        self._module, self._device = module, next(module.parameters()).device
        self._state = module.layers.zero_state(n_blocks)

    @property
    def state_bytes(self) -> int:
        return sum(part.nbytes for part in self._state)

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        for source, target in copies:
            for part in self._state:
                part[target] = part[source]

    def clear_blocks(self, blocks: Sequence[int]) -> None:
        for part in self._state:
            part[list(blocks)] = 0

    @torch.inference_mode()
    def run(self, rows: Sequence[RowInput]) -> Tensor | None:
        hidden: list[Tensor | None] = [None] * len(rows)
        lengths = dict.fromkeys(len(row.ids) for row in rows)
        for length in lengths:
            members = [index for index, row in enumerate(rows) if len(row.ids) == length]
            outputs_BTC = self._advance([rows[index] for index in members])
            for index, outputs_TC in zip(members, outputs_BTC, strict=True):
                if rows[index].n_logits:
                    hidden[index] = outputs_TC[-rows[index].n_logits :]
        asked = [part for part in hidden if part is not None]
        return self._module.logits(torch.cat(asked)) if asked else None

    def _advance(self, rows: Sequence[RowInput]) -> Tensor:
        """Read the new tokens of rows that have equally many: hidden states (B, T, C)."""
        blocks = torch.tensor([row.blocks[0] for row in rows], device=self._device)
        ids_BT = torch.tensor([list(row.ids) for row in rows], device=self._device)
        state = [part[blocks] for part in self._state]
        for index, row in enumerate(rows):
            if row.n_cached == 0:  # whatever the block's last owner left
                for part in state:
                    part[index] = 0
        hidden_BTC, after = self._module.read(ids_BT, tuple(state))
        for stored, part in zip(self._state, after, strict=True):
            stored[blocks] = part
        return hidden_BTC


class RecurrentCosts:
    """The ``CostModel`` of an engine that runs a recurrent model, from the listing of such a tick.

    What a tick costs depends on the rows' new tokens only, not on what they read before.
    """

    def __init__(self, module: Recurrent) -> None:
        self._module = module
        self._tables: dict[tuple[tuple[int, int, bool], ...], CostTable] = {}
        self._typical: TickWork | None = None

    def __call__(self, work: TickWork) -> TickCosts | None:
        if not work.rows:
            return None
        kind = tuple((row.n_new, row.n_logits, row.n_cached > 0) for row in work.rows)
        if kind not in self._tables:
            self._tables[kind] = CostTable.fixed(stage_costs(self.listing(work)), _STAGES)
        if self._typical is None or work.phase == "decode":
            self._typical = work
        return TickCosts(self._tables[kind], ())

    def typical_listing(self) -> list[dict[str, Any]] | None:
        """The instructions of the last decode tick (of the first tick if there was none), as JSON values."""
        if self._typical is None:
            return None
        return [instruction_json(instruction) for instruction in self.listing(self._typical).instructions]

    def listing(self, work: TickWork) -> Program:
        """The program of one tick."""
        def run(module: Recurrent, rows: Sequence[RowWork]) -> Tensor | None:
            inputs = [RowInput([0] * row.n_new, row.n_cached, [block], row.n_logits) for block, row in enumerate(rows)]
            return RecurrentRunner(module, len(rows)).run(inputs)

        return list_program(self._module, work.rows, call=run)
