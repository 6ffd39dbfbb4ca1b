"""What it costs to score windows of text, counted from the program listing of the scoring itself."""

from typing import Any

import torch

from tickwise.core.stages import Stage
from tickwise.engine.costs import MODEL_STAGES
from tickwise.engine.work import TickWork
from tickwise.evaluation.windows import losses_of
from tickwise.models.decoder import Decoder
from tickwise.profiling.ledger import CostTable, TickCosts
from tickwise.profiling.program import Program, instruction_json, list_program, stage_costs

_STAGES = MODEL_STAGES | {Stage.LOSS}


class WindowCosts:
    """The ``CostModel`` of ``token_losses``: batches of one shape are listed once."""

    def __init__(self, module: Decoder) -> None:
        self._module = module
        self._tables: dict[tuple[int, int, int], CostTable] = {}
        self._first: tuple[int, int, int] | None = None

    def __call__(self, work: TickWork) -> TickCosts:
        shape = len(work.rows), work.rows[0].n_new, work.rows[0].n_logits
        self._first = self._first or shape
        if shape not in self._tables:
            self._tables[shape] = CostTable.fixed(stage_costs(self.listing(*shape)), _STAGES)
        return TickCosts(self._tables[shape], ())

    def listing(self, n_windows: int, n_tokens: int, n_scored: int) -> Program:
        """The program of one batch of windows."""
        device = next(self._module.parameters()).device
        ids_BT = torch.zeros(n_windows, n_tokens + 1, dtype=torch.long, device=device)
        return list_program(self._module, ids_BT, n_tokens - n_scored, call=losses_of)

    def typical_listing(self) -> list[dict[str, Any]] | None:
        """The instructions of the first batch."""
        return None if self._first is None else [instruction_json(i) for i in self.listing(*self._first).instructions]
