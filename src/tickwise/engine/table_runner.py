"""Runs models that look at the last few tokens only: n-grams, and factorised models. Their state is those tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tickwise.core.stages import Stage
from tickwise.engine.runner import RowInput, TokenIdRunner
from tickwise.engine.work import TickWork
from tickwise.models.factorised import Factorised
from tickwise.models.ngram import Ngram
from tickwise.profiling.ledger import CostTable, TickCosts
from tickwise.profiling.program import Program, instruction_json, list_program, stage_costs

_STAGES = frozenset({Stage.EMBED, Stage.FFN, Stage.HEAD})


class TableRunner(TokenIdRunner):
    """The ``Runner`` of an ``Ngram`` or a ``Factorised``."""

    def __init__(self, module: Ngram | Factorised, n_blocks: int, block_size: int) -> None:
        super().__init__(module, module.config.context_length, module.config.vocab_size, n_blocks, block_size)
        self._module, self._n_history = module, module.config.n_history

    @torch.inference_mode()
    def run(self, rows: Sequence[RowInput]) -> Tensor | None:
        asked = [self._read(row) for row in rows]
        recent = [windows_RH for windows_RH in asked if windows_RH is not None]
        if not recent:
            return None
        logits_RV: Tensor = self._module.logits(torch.cat(recent).to(self._device))
        return logits_RV

    def _read(self, row: RowInput) -> Tensor | None:
        """Store the row's new tokens; what each position that is asked looks back at, (R, H), -1 before the text."""
        first = row.n_cached + len(row.ids) - max(row.n_logits, 1) - self._n_history + 1
        start = max(0, min(first, row.n_cached))
        stored = self._stored(row, start)
        if not row.n_logits:
            return None
        seen = stored[max(0, first) - start :]
        padded = torch.cat([torch.full((max(0, -first),), -1), seen])
        return padded.unfold(0, self._n_history, 1)


class TableCosts:
    """The ``CostModel`` of an engine that runs an ``Ngram`` or a ``Factorised``.

    A tick costs what its look-ups and products for so many positions cost. How many n-grams follow a context depends
    on the text; the listing takes the mean of the table.
    """

    def __init__(self, module: Ngram | Factorised) -> None:
        self._module = module
        self._tables: dict[int, CostTable] = {}

    def __call__(self, work: TickWork) -> TickCosts | None:
        n_positions = sum(row.n_logits for row in work.rows)
        if not n_positions:
            return None
        if n_positions not in self._tables:
            self._tables[n_positions] = CostTable.fixed(stage_costs(self._listing(n_positions)), _STAGES)
        return TickCosts(self._tables[n_positions], ())

    def typical_listing(self) -> list[dict[str, Any]] | None:
        """The instructions of a tick with the fewest positions that were seen; ``None`` when there was no tick."""
        if not self._tables:
            return None
        instructions = self._listing(min(self._tables)).instructions
        return [{"phase": "decode", **instruction_json(instruction)} for instruction in instructions]

    def listing(self, work: TickWork) -> Program:
        """The program of one tick."""
        return self._listing(sum(row.n_logits for row in work.rows))

    def _listing(self, n_positions: int) -> Program:
        """The program of a tick that asks what follows ``n_positions`` positions."""
        device = next(self._module.parameters()).device
        recent_NH = torch.zeros(n_positions, self._module.config.n_history, dtype=torch.long, device=device)
        return list_program(self._module, recent_NH, call=lambda module, recent: module.logits(recent))
