"""Recording what a language model does, tick by tick."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tickwise.engine.language_model import LanguageModel
from tickwise.engine.serving import ListedCosts, costs_for
from tickwise.profiling.energy import DEFAULT_COEFFICIENTS, EnergyCoefficients
from tickwise.profiling.recording import record_trace


def writing_costs(model: LanguageModel, use_cache: bool) -> ListedCosts:
    """What it costs ``model`` to write."""
    return costs_for(model.module, use_cache=use_cache)


@contextlib.contextmanager
def traced(
    model: LanguageModel, path: Path | None, costs: ListedCosts, *, overwrite: bool | None = None,
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
        listing=costs.typical_listing, overwrite=overwrite, coefficients=coefficients,
    ) as ledger:
        model.ledger = ledger
        try:
            yield
        finally:
            model.ledger = None
