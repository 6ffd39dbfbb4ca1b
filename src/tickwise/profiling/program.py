"""The program listing: every operation of a forward or training pass, with its stage, shapes, FLOPs and bytes.

Any ``torch.nn.Module`` is listed by running it on tensors without data, so nothing is computed and a model need not
fit into memory. A module that looks at values (``.item()``) is run in earnest instead.

FLOPs: matrix products, convolutions and attention, two per multiply-add, by the formulas of
``torch.utils.flop_counter``; elementwise work counts 0 there and here. Attention on a CPU, which ``FlopCounterMode``
leaves out, counts its two products, and four in the backward pass; causal attention counts the full square.

Bytes: the sizes of the tensors that an operation reads and writes. Views cost nothing, an expanded dimension counts
once, a tensor that is used twice by one operation counts once, and a look-up reads the rows that it takes. What
depends on neither inputs nor weights (rotary tables, masks) is a constant of the program and not listed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from tickwise.core.errors import UserError
from tickwise.core.stages import Stage
from tickwise.profiling.instructions import (
    ATTENTION,
    Cost,
    Instruction,
    Program,
    instruction_json,
    joined,
    stage_costs,
)
from tickwise.profiling.recorder import Recorder, recording
from tickwise.profiling.stand_ins import NeedsValuesError, StandIn, meta_of

__all__ = [
    "ATTENTION", "Cost", "Instruction", "Program", "instruction_json", "joined", "list_call", "list_program",
    "list_training_program", "stage_costs",
]

Call = Callable[..., Any]


def list_program(
    module: torch.nn.Module, *args: Any, call: Call | None = None,
    prepare: Callable[[Call], Mapping[str, Any]] | None = None, **kwargs: Any,
) -> Program:
    """The forward pass ``module(*args, **kwargs)``; with ``call``, ``call(module, *args, **kwargs)`` instead.

    ``prepare`` runs first and is not listed: it gets the same call and returns more keyword arguments for it, e.g. a
    cache that a prefill has filled. The module is left as it was, and nothing is written into tensors that the
    arguments hold; but state that they carry in Python (a cache's length) moves on as in a real call: pass a fresh
    one. ``UserError`` when the module cannot be run with these arguments.

    >>> program = list_program(torch.nn.Linear(3, 4, bias=False), torch.zeros(2, 3))
    >>> [(i.op, i.flops) for i in program.instructions if i.flops]
    [('aten.mm', 48)]
    """

    def forward(run: Call, parameters: list[Tensor], recorder: Recorder) -> None:
        with torch.no_grad():
            more: Mapping[str, Any] = {}
            if prepare is not None:
                with recorder.paused():
                    more = prepare(run)
                recorder.places.restart()
            run(*args, **{**kwargs, **more})

    return _list(module, call, (args, kwargs), forward)


def list_training_program(
    module: torch.nn.Module, *args: Any, loss: Callable[[Any], Tensor] | None = None, call: Call | None = None,
    **kwargs: Any,
) -> Program:
    """Forward and backward pass over the parameters that require gradients.

    ``loss`` maps the output of the module (of ``call``, as in ``list_program``) to the tensor that is differentiated;
    without it that is the output itself if it is one number, else the sum of the floating-point outputs. A backward
    instruction has the stage of its forward one; where that is not known, ``Stage.BACKWARD``. The optimizer is not
    part of it: see ``list_call``.
    """

    if not any(p.requires_grad for p in module.parameters()):
        raise UserError(f"{type(module).__name__}: no parameter requires a gradient, so there is nothing to train")

    def forward_and_backward(run: Call, parameters: list[Tensor], recorder: Recorder) -> None:
        with torch.enable_grad():
            objective = run(*args, **kwargs)
            if loss is not None:
                recorder.places.mark(Stage.LOSS)
                objective = loss(objective)
            elif not (isinstance(objective, Tensor) and objective.numel() == 1):
                recorder.places.mark(Stage.LOSS)
                parts = [t for t in tree_leaves(objective) if isinstance(t, Tensor) and t.requires_grad]
                if not parts:
                    raise UserError(f"{type(module).__name__}: no output depends on a trainable parameter")
                objective = torch.stack([t.float().sum() for t in parts]).sum() if len(parts) > 1 else parts[0].sum()
            trained = [p for p in parameters if p.requires_grad]
            # Not .backward(): that would leave gradients on the caller's parameters.
            objective = objective if objective.numel() == 1 else objective.sum()
            torch.autograd.grad(objective, trained, allow_unused=True)

    return _list(module, call, (args, kwargs), forward_and_backward)


def list_call(
    function: Callable[[], object], *, stage: Stage = Stage.FORWARD, dry: bool = True, item: float | None = None
) -> Program:
    """Whatever ``function`` does, e.g. ``optimizer.step``; what comes before the first mark belongs to ``stage``.

    ``dry``: nothing is computed or written, whatever tensors the function works on. New tensors have no data, so do
    not keep what keeps them (a fresh optimizer, not the one in use). ``.item()`` answers ``item``; without one it is
    a ``UserError``. Not ``dry``: the function runs in earnest.
    """
    recorder = Recorder("dry" if dry else "real", stage, item)
    try:
        with recording(None, recorder):
            function()
    except NeedsValuesError as problem:
        raise UserError(f"this computation cannot be listed without its values: {problem}") from problem
    return recorder.program()


_Work = Callable[[Call, list[Tensor], Recorder], None]


def _list(module: torch.nn.Module, call: Call | None, arguments: Any, work: _Work) -> Program:
    try:
        return _without_data(module, call, work)
    except UserError:
        raise
    except Exception as problem:  # whatever a module raises when its values are missing
        given = [*module.parameters(), *module.buffers(), *tree_leaves(arguments)]
        if any(isinstance(t, Tensor) and t.is_meta for t in given):
            raise _cannot_run(module, problem) from problem
        try:
            return _in_earnest(module, call, work)
        except UserError:
            raise
        except Exception as second:
            raise _cannot_run(module, second) from second


def _cannot_run(module: torch.nn.Module, problem: Exception) -> UserError:
    first_line = (str(problem).splitlines() or [type(problem).__name__])[0]
    return UserError(f"{type(module).__name__} cannot be run with these inputs: {first_line}")


class _Caller(torch.nn.Module):
    """``call(module, …)`` as a module, so that ``functional_call`` can exchange the parameters of ``module``."""

    def __init__(self, module: torch.nn.Module, call: Call | None) -> None:
        super().__init__()
        self.module = module
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs) if self.call is None else self.call(self.module, *args, **kwargs)


def _without_data(module: torch.nn.Module, call: Call | None, work: _Work) -> Program:
    stand_ins: dict[int, StandIn] = {}

    def stand_in(tensor: Tensor) -> Tensor:
        # One stand-in per tensor, so that tied weights stay tied.
        if isinstance(tensor, StandIn):
            return tensor
        if id(tensor) not in stand_ins:
            device = torch.device("cpu") if tensor.is_meta else tensor.device
            stand_ins[id(tensor)] = StandIn(meta_of(tensor), device, tensor.requires_grad)
        return stand_ins[id(tensor)]

    recorder = Recorder("stand-ins")
    # Inference mode would keep autograd from recording anything.
    with torch.inference_mode(False):
        state = {
            f"module.{name}": stand_in(tensor)
            for named in (module.named_parameters, module.named_buffers)
            for name, tensor in named(remove_duplicate=False)
        }
        parameters: list[Tensor] = [stand_ins[id(p)] for p in module.parameters()]
        caller = _Caller(module, call)

        def run(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = tree_map_only(Tensor, stand_in, (args, kwargs))
            return torch.func.functional_call(caller, state, args, kwargs)

        with recording(module, recorder):
            work(run, parameters, recorder)
    return recorder.program()


def _in_earnest(module: torch.nn.Module, call: Call | None, work: _Work) -> Program:
    # Running statistics are the caller's: work on copies.
    buffers = {f"module.{name}": buffer.clone() for name, buffer in module.named_buffers()}
    recorder = Recorder("real")
    caller = _Caller(module, call)

    def run(*args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(caller, buffers, args, kwargs)

    with torch.inference_mode(False), recording(module, recorder):
        work(run, list(module.parameters()), recorder)
    return recorder.program()
