"""Recording what a language model does, tick by tick."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tickwise.engine.language_model import LanguageModel
from tickwise.engine.serving import ListedCosts, costs_for
from tickwise.models.decoder import Decoder
from tickwise.profiling.energy import DEFAULT_COEFFICIENTS, EnergyCoefficients
from tickwise.profiling.recording import record_trace


def writing_costs(model: LanguageModel, use_cache: bool) -> ListedCosts | None:
    """What it costs ``model`` to write; a decoder without a cache is not counted."""
    if isinstance(model.module, Decoder) and not use_cache:
        return None
    return costs_for(model.module)


@contextlib.contextmanager
def traced(
    model: LanguageModel, path: Path | None, costs: ListedCosts | None, *, overwrite: bool | None = None,
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
