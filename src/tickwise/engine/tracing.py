"""Recording what a language model does."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tickwise.engine.costs import DecoderCosts
from tickwise.engine.engine import EngineOptions
from tickwise.engine.language_model import LanguageModel
from tickwise.profiling.energy import DEFAULT_COEFFICIENTS, EnergyCoefficients
from tickwise.profiling.recording import record_trace


@contextlib.contextmanager
def traced(
    model: LanguageModel, path: Path | None, *, use_cache: bool = True, overwrite: bool = False,
    coefficients: EnergyCoefficients = DEFAULT_COEFFICIENTS,
) -> Iterator[None]:
    """What ``model`` writes inside the block is recorded as a trace at ``path``, if one is given.

    Without a cache (``use_cache``), times are measured but the work is not counted. Raises ``OutputError`` when
    ``path`` cannot be written or holds something already.
    """
    if path is None:
        yield
        return
    costs = DecoderCosts(model.module, EngineOptions().block_size)
    with record_trace(
        path, model=str(model.path or type(model.module).__name__), dtype=model.dtype, device=model.device,
        costs=costs if use_cache else None, listing=costs.typical_listing, overwrite=overwrite,
        coefficients=coefficients,
    ) as ledger:
        model.ledger = ledger
        try:
            yield
        finally:
            model.ledger = None
