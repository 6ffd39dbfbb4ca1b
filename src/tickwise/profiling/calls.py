"""A ledger of a module's calls: one tick from a call to the next one, for models that answer in a single pass."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tickwise.core.stages import Stage, mark, marking
from tickwise.profiling.instructions import instruction_json
from tickwise.profiling.ledger import CostTable, Phase, RequestRow, TickCosts
from tickwise.profiling.program import Program, list_program, stage_costs
from tickwise.profiling.recording import record_trace

_COVERED = frozenset({
    Stage.EMBED, Stage.NORM, Stage.QKV, Stage.ROPE, Stage.ATTENTION, Stage.OUT, Stage.CROSS_ATTENTION, Stage.FFN,
    Stage.RECURRENT, Stage.HEAD,
})
_MOST_TABLES = 1024

Inputs = tuple[tuple[Any, ...], Mapping[str, Any]]
Signature = tuple[Any, ...]


@dataclass(frozen=True)
class CallWork:
    """One call of the module on ``batch`` texts."""

    inputs: Inputs
    """Positional and keyword arguments, tensors without data."""
    batch: int
    phase: Phase = "prefill"
    kv_tokens: int = 0
    rows: tuple[RequestRow, ...] = ()


class CallCosts:
    """The ``CostModel`` of a module's calls: calls whose inputs have the same shapes are listed once."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._tables: dict[Signature, CostTable] = {}
        self._first: Inputs | None = None

    def __call__(self, work: CallWork) -> TickCosts:
        self._first = self._first or work.inputs
        key = _signature(work.inputs)
        if key not in self._tables:
            if len(self._tables) == _MOST_TABLES:
                self._tables.pop(next(iter(self._tables)))
            self._tables[key] = CostTable.fixed(stage_costs(self.listing(work.inputs)), _COVERED)
        return TickCosts(self._tables[key], ())

    def listing(self, inputs: Inputs) -> Program:
        """The program of one call."""
        arguments, named = inputs
        return list_program(self._module, *arguments, **named)

    def typical_listing(self) -> list[dict[str, Any]] | None:
        """The instructions of the first call."""
        return None if self._first is None else [instruction_json(i) for i in self.listing(self._first).instructions]


@contextlib.contextmanager
def traced_calls(module: nn.Module, path: Path | None, *, model: str, overwrite: bool = False) -> Iterator[None]:
    """Every call of ``module`` inside the block is a tick of the trace at ``path``, if one is given. A tick lasts until
    the next call begins; what follows the model's last operation belongs to its row ``host``.

    ``model`` names it in the trace. Raises ``OutputError`` when ``path`` cannot be written or holds something already.
    """
    if path is None:
        yield
        return
    costs = CallCosts(module)
    parameter = next(module.parameters())
    with record_trace(path, model=model, dtype=parameter.dtype, device=parameter.device, costs=costs,
                      listing=costs.typical_listing, overwrite=overwrite) as ledger:
        running = False

        def before(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            nonlocal running
            if running:
                ledger.end_tick(())
            running = True
            ledger.begin_tick()
            ledger.tick_work(CallWork(_counted_inputs(module, arguments, named), _batch(module, arguments)))

        def after(*_: Any) -> None:
            mark(Stage.HOST)

        handles = (module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after))
        try:
            with marking(ledger):
                yield
                if running:
                    ledger.end_tick(())
        finally:
            for handle in handles:
                handle.remove()


def _batch(module: nn.Module, arguments: tuple[Any, ...]) -> int:
    """Texts in a call: the module says which of its inputs has one entry for each, else it is the first."""
    index = getattr(module, "batch_input", 0)
    return int(arguments[index].shape[0])


def _counted_inputs(module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Inputs:
    """The inputs without data. Those that only mask what is computed anyway (``module.mask_inputs``) are left out:
    a listing cannot know their values."""
    masks = getattr(module, "mask_inputs", ())
    counted = (None if index in masks else _without_data(value) for index, value in enumerate(arguments))
    return tuple(counted), {name: _without_data(value) for name, value in named.items()}


def _without_data(value: Any) -> Any:
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


def _signature(inputs: Inputs) -> Signature:
    def of(value: Any) -> Any:
        return (value.shape, value.dtype) if isinstance(value, Tensor) else value

    arguments, named = inputs
    return (*map(of, arguments), *((name, of(value)) for name, value in sorted(named.items())))
