"""Recording what a language model does, tick by tick."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from tickwise.engine.costs import DecoderCosts
from tickwise.engine.engine import EngineOptions
from tickwise.engine.language_model import LanguageModel
from tickwise.engine.recurrent_runner import RecurrentCosts
from tickwise.engine.table_runner import TableCosts
from tickwise.models.factorised import Factorised
from tickwise.models.ngram import Ngram
from tickwise.models.recurrent import Recurrent
from tickwise.profiling.energy import DEFAULT_COEFFICIENTS, EnergyCoefficients
from tickwise.profiling.ledger import TickCosts
from tickwise.profiling.recording import record_trace


class ListedCosts(Protocol):
    """A ``CostModel`` that can show the listing behind it."""

    def __call__(self, work: Any) -> TickCosts | None: ...

    def typical_listing(self) -> list[dict[str, Any]] | None: ...


def writing_costs(model: LanguageModel, use_cache: bool) -> ListedCosts | None:
    """What it costs ``model`` to write; without a cache that is not counted."""
    if isinstance(model.module, Ngram | Factorised):
        return TableCosts(model.module)
    if isinstance(model.module, Recurrent):
        return RecurrentCosts(model.module)
    return DecoderCosts(model.module, EngineOptions().block_size) if use_cache else None


@contextlib.contextmanager
def traced(
    model: LanguageModel, path: Path | None, costs: ListedCosts | None, *, overwrite: bool = False,
    coefficients: EnergyCoefficients = DEFAULT_COEFFICIENTS,
) -> Iterator[None]:
    """What ``model`` does inside the block is recorded as a trace at ``path``, if one is given.

    Raises ``OutputError`` when ``path`` cannot be written or holds something already.
    """
    if path is None:
        yield
        return
    with record_trace(
        path, model=str(model.path or type(model.module).__name__), dtype=model.dtype, device=model.device, costs=costs,
        listing=costs.typical_listing if costs is not None else lambda: None, overwrite=overwrite,
        coefficients=coefficients,
    ) as ledger:
        model.ledger = ledger
        try:
            yield
        finally:
            model.ledger = None
