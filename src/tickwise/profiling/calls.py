"""A ledger of a module's calls: one tick from a call to the next one, for models that answer in a single pass."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from tickwise.core.stages import Stage, is_heard, mark, marking
from tickwise.profiling.instructions import instruction_json, joined
from tickwise.profiling.ledger import CostTable, Ledger, Phase, RequestRow, TickCosts
from tickwise.profiling.program import Program, list_program, stage_costs
from tickwise.profiling.recording import record_trace

_COVERED = frozenset({
    Stage.EMBED, Stage.NORM, Stage.QKV, Stage.ROPE, Stage.ATTENTION, Stage.OUT, Stage.CROSS_ATTENTION, Stage.FFN,
    Stage.RECURRENT, Stage.HEAD,
})
_MOST_TABLES = 1024


@dataclass(frozen=True, kw_only=True)
class TracedMethod:
    """A method of a module whose calls are recorded."""

    name: str = "forward"
    begins_tick: bool = True
    """Else its calls belong to the tick that runs."""
    phase: Phase = "prefill"
    batch_input: int = 0
    """The input with one entry for each text."""
    mask_inputs: tuple[int, ...] = ()
    """Inputs that only mask what is computed anyway: a listing, which cannot know their values, goes without."""
    owner: nn.Module | None = None
    """Another module whose method it is."""


class Call(NamedTuple):
    """One call of a module's method."""

    owner: nn.Module
    method: str
    arguments: tuple[Any, ...]
    """Tensors without data."""
    named: Mapping[str, Any]

    @property
    def signature(self) -> tuple[Any, ...]:
        """Equal for calls that do the same work."""
        inputs = (self.arguments, sorted(self.named.items()))
        return (id(self.owner), self.method, str(tree_map_only(Tensor, lambda x: (tuple(x.shape), x.dtype), inputs)))


@dataclass
class CallWork:
    """The calls of one tick, on ``batch`` texts."""

    calls: list[Call]
    batch: int
    phase: Phase = "prefill"
    kv_tokens: int = 0
    rows: tuple[RequestRow, ...] = ()


class CallCosts:
    """The ``CostModel`` of a module's calls: ticks whose inputs have the same shapes are listed once."""

    def __init__(self) -> None:
        self._tables: dict[tuple[Any, ...], CostTable] = {}
        self._first: Sequence[Call] | None = None

    def __call__(self, work: CallWork) -> TickCosts:
        self._first = self._first or work.calls
        key = tuple(call.signature for call in work.calls)
        if key not in self._tables:
            if len(self._tables) == _MOST_TABLES:
                self._tables.pop(next(iter(self._tables)))
            self._tables[key] = CostTable.fixed(stage_costs(self.listing(work.calls)), _COVERED)
        return TickCosts(self._tables[key], ())

    def listing(self, calls: Sequence[Call]) -> Program:
        """The program of one tick."""
        return joined([
            list_program(call.owner, *call.arguments, **call.named,
                         call=None if call.method == "forward" else getattr(type(call.owner), call.method))
            for call in calls
        ])

    def typical_listing(self) -> list[dict[str, Any]] | None:
        """The instructions of the first tick."""
        return None if self._first is None else [instruction_json(i) for i in self.listing(self._first).instructions]


@contextlib.contextmanager
def traced_calls(module: nn.Module, path: Path | None, *, model: str, methods: Sequence[TracedMethod] = (),
                 overwrite: bool = False) -> Iterator[None]:
    """Every call of ``module`` (or of its ``methods`` that begin a tick) inside the block is a tick of the trace at
    ``path``, if one is given. A tick lasts until the next call begins; what follows the model's last operation belongs
    to its row ``host``.

    ``model`` names it in the trace. A module says with ``batch_input`` and ``mask_inputs`` what its inputs are, where
    that is not as ``TracedMethod`` has it. Raises ``OutputError`` when ``path`` cannot be written or holds something
    already.
    """
    if path is None:
        yield
        return
    own = TracedMethod(batch_input=getattr(module, "batch_input", 0), mask_inputs=getattr(module, "mask_inputs", ()))
    costs = CallCosts()
    parameter = next(module.parameters())
    with record_trace(path, model=model, dtype=parameter.dtype, device=parameter.device, costs=costs,
                      listing=costs.typical_listing, overwrite=overwrite) as ledger:
        listener = _Listener(ledger)
        chosen = methods or (own,)
        owners = [module if method.owner is None else method.owner for method in chosen]
        for owner, method in zip(owners, chosen, strict=True):
            setattr(owner, method.name, listener.heard(owner, method))
        try:
            with marking(ledger):
                yield
                listener.end()
        finally:
            for owner, method in zip(owners, chosen, strict=True):
                delattr(owner, method.name)


class _Listener:
    """Begins and ends ticks of a ledger as methods are called."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._work: CallWork | None = None
        self._inside = False
        """A method that another one calls is a part of it."""

    def heard(self, owner: nn.Module, method: TracedMethod) -> Callable[..., Any]:
        """The owner's method, whose calls are recorded where marks are heard."""
        original = getattr(owner, method.name)

        def call(*arguments: Any, **named: Any) -> Any:
            if self._inside or not is_heard():
                return original(*arguments, **named)
            self._inside = True
            try:
                self._begin(owner, method, arguments, named)
                result = original(*arguments, **named)
                mark(Stage.HOST)
                return result
            finally:
                self._inside = False

        return call

    def _begin(self, owner: nn.Module, method: TracedMethod, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        counted = tuple(None if index in method.mask_inputs else _without_data(value)
                        for index, value in enumerate(arguments))
        call = Call(owner, method.name, counted, _without_data(named))
        if method.begins_tick:
            self.end()
            self._ledger.begin_tick()
            self._work = CallWork([call], int(arguments[method.batch_input].shape[0]), method.phase)
            self._ledger.tick_work(self._work)
        elif self._work is not None:
            self._work.calls.append(call)

    def end(self) -> None:
        """End the tick that runs."""
        if self._work is not None:
            self._ledger.end_tick(())
        self._work = None


def _without_data(value: Any) -> Any:
    return tree_map_only(Tensor, lambda x: torch.empty_like(x, device="meta"), value)
