"""Training steps in the ledger: one tick per update, with the counted work of its stages."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.core import console
from tickwise.core.device import torch_dtype
from tickwise.core.seeds import restore_rng_state, rng_state
from tickwise.core.stages import Stage, mark, marking
from tickwise.profiling.ledger import CostTable, StageKey, TickCosts, TrainingWork
from tickwise.profiling.program import Instruction, Program, instruction_json, list_call, list_training_program
from tickwise.profiling.recording import record_trace
from tickwise.training.objective import Batch, BatchWork, CountedObjective

if TYPE_CHECKING:
    from tickwise.training.loop import Training

_COUNTED = frozenset({
    Stage.EMBED, Stage.NORM, Stage.QKV, Stage.ROPE, Stage.ATTENTION, Stage.OUT, Stage.CROSS_ATTENTION, Stage.FFN,
    Stage.HEAD, Stage.LOSS, Stage.FORWARD, Stage.BACKWARD, Stage.OPTIMIZER,
})
_REFINEMENTS = 6
_Counted = Iterator[tuple[StageKey, Instruction, int]]


class StepCosts:
    """The ``CostModel`` of a training loop: every step does the same work, which is listed once. Where batches differ
    in shape, some are listed for each kind that the objective tells apart, and what their sizes add follows from these;
    nothing is counted where it tells none.

    The backward pass is one row per layer, as the loop measures it; a compiled step is one row forward and one back,
    counted as it is before compilation. A gradient counts as short enough not to be clipped. Asked only after a step
    was taken, because an optimizer makes its state in the first one.
    """

    def __init__(self, training: "Training") -> None:
        self._training = training
        self._tables: dict[tuple[bool, ...], CostTable | None] = {}

    def __call__(self, work: TrainingWork) -> TickCosts | None:
        objective = self._training.objective
        shape = work.shape or BatchWork(work.batch, (), ())
        if not objective.fixed_shapes and not (isinstance(objective, CountedObjective) and shape.kind):
            return None
        if shape.kind not in self._tables:
            self._tables[shape.kind] = self._fixed() if objective.fixed_shapes else self._varied(shape.kind)
        table = self._tables[shape.kind]
        return None if table is None else TickCosts(table, shape.sizes)

    def _fixed(self) -> CostTable:
        figures = _sums(itertools.chain(self._of_batch(self._training.objective.example()), self._of_update()))
        base_K3 = numpy.array(list(figures.values()), dtype=numpy.int64)
        return CostTable(tuple(figures), base_K3, numpy.zeros((0, *base_K3.shape), dtype=numpy.int64), _COUNTED)

    def _varied(self, kind: tuple[bool, ...]) -> CostTable | None:
        """From listings of batches of one kind, more than their sizes are; ``None`` where these do not explain them."""
        objective = self._training.objective
        assert isinstance(objective, CountedObjective)
        batches = objective.samples(kind)
        states = rng_state()
        try:
            for batch in batches:  # what is made once for a shape, and kept, is no part of a step
                with torch.no_grad():
                    objective.loss(self._training.module, *(x.to(self._training.device) for x in batch.inputs))
            found = [_sums(self._of_batch(batch)) for batch in batches]
        finally:
            restore_rng_state(states)
        update = _sums(self._of_update())
        keys = tuple(dict.fromkeys(key for figures in (*found, update) for key in figures))
        nothing = [0, 0, 0]
        figures_NK3 = numpy.array([[figures.get(key, nothing) for key in keys] for figures in found], dtype=numpy.int64)
        sizes_NF = numpy.array([[1, *batch.work.sizes] for batch in batches if batch.work], dtype=numpy.int64)
        flat_NX = figures_NK3.reshape(len(found), -1)
        whole_FX = _whole_solution(sizes_NF, flat_NX)
        if whole_FX is None:
            odd = _unexplained(sizes_NF, flat_NX) // 3
            place = " ".join(str(part) for part in keys[odd] if part is not None)
            console.say(f"trace: the work of these batches does not follow from their sizes, in {place} least of all; "
                        "it is not counted")
            return None
        parts_FK3 = whole_FX.reshape(-1, len(keys), 3)
        base_K3 = parts_FK3[0] + numpy.array([update.get(key, nothing) for key in keys], dtype=numpy.int64)
        return CostTable(keys, base_K3, parts_FK3[1:], _COUNTED)

    def _of_batch(self, batch: Batch) -> _Counted:
        """Where the loop measures each instruction of a batch's passes, and how often it runs in a step."""
        n = self._training.config.accumulate
        return ((self._place(one), one, n) for one in self.listing(batch).instructions)

    def _of_update(self) -> _Counted:
        """The same of collecting the gradients and of the update."""
        times = self._training.config.accumulate
        yield from ((self._place(one), one, 1) for one in self._optimizer().instructions)
        for first, n in ((True, 1), (False, times - 1)):
            for layer, parameters in self._parameters_by_layer():
                program = self._collected(parameters, first)
                yield from (((Stage.BACKWARD, layer), one, n) for one in program.instructions if n)

    def typical_listing(self) -> list[dict[str, Any]] | None:
        """The instructions of a step (of one micro-batch, and the update), as JSON values; ``None`` before a step."""
        if not any(self._tables.values()):
            return None
        counted = itertools.chain(self._of_batch(self._training.objective.example()), self._of_update())
        return [instruction_json(one) | {"stage": str(stage), "layer": layer, "phase": "train"}
                for (stage, layer), one, _ in counted]

    def _parameters_by_layer(self) -> list[tuple[int | None, list[nn.Parameter]]]:
        """In float32 a gradient is added where autograd has it ready, in its layer; else after the backward pass."""
        training = self._training
        if training.counters.compiled or not training.weights.shared:
            return [(None, training.weights.parameters)]
        layers = [list(layer.parameters()) for layer in _layers(training.module)]
        inside = {id(parameter) for layer in layers for parameter in layer}
        rest = [parameter for parameter in training.weights.parameters if id(parameter) not in inside]
        return [(None, rest), *enumerate(layers)]

    def _collected(self, parameters: list[nn.Parameter], first: bool) -> Program:
        """Gradients of a micro-batch go to (``first``) or are added to those of the whole batch, in float32."""
        shared = self._training.weights.shared

        def collect() -> None:
            fresh = [torch.empty_like(parameter) for parameter in parameters]
            sums = [torch.empty_like(parameter, dtype=torch.float32) for parameter in parameters]
            if not first:
                torch._foreach_add_(sums, fresh if shared else [gradient.float() for gradient in fresh])
            elif not shared:
                torch._foreach_copy_(sums, fresh)

        with torch.no_grad():
            return list_call(collect, stage=Stage.BACKWARD)

    def _place(self, instruction: Instruction) -> StageKey:
        whole = bool(self._training.counters.compiled)
        if instruction.direction == "backward":
            return Stage.BACKWARD, None if whole or not _layers(self._training.module) else instruction.layer
        if whole and instruction.stage is not Stage.OPTIMIZER:
            return Stage.FORWARD, None
        return instruction.stage, instruction.layer

    def listing(self, batch: Batch) -> Program:
        """Forward and backward pass of the batch's first micro-batch."""
        training, objective = self._training, self._training.objective
        micro = objective.split(batch, training.config.accumulate)[0]
        inputs = [x.to(training.device) for x in micro.inputs]
        return list_training_program(training.module, *inputs, call=lambda module, *x: objective.loss(module, *x)[0])

    def _optimizer(self) -> Program:
        from tickwise.training.loop import update

        training = self._training
        return list_call(lambda: update(training, training.weights.gradients, 1.0), stage=Stage.OPTIMIZER, item=1.0)


def _whole_solution(sizes_NF: NDArray[numpy.int64], flat_NX: NDArray[numpy.int64]) -> NDArray[numpy.int64] | None:
    """(F, X) whole numbers whose products with the sizes are exactly the figures (N, X), where there are any."""
    scale_F = sizes_NF.max(0).clip(1)
    found_FX = numpy.zeros((sizes_NF.shape[1], flat_NX.shape[1]), dtype=numpy.int64)
    for _ in range(_REFINEMENTS):  # what rounding large figures left is solved for again
        left_NX = flat_NX - sizes_NF @ found_FX
        if not left_NX.any():
            return found_FX
        solved_FX = numpy.linalg.lstsq(sizes_NF / scale_F, left_NX.astype(numpy.float64))[0] / scale_F[:, None]
        found_FX += numpy.rint(solved_FX).astype(numpy.int64)
    return None


def _unexplained(sizes_NF: NDArray[numpy.int64], flat_NX: NDArray[numpy.int64]) -> int:
    """The column of figures that is farthest from any sum of the sizes."""
    flat = flat_NX.astype(numpy.float64)
    left_NX = flat - sizes_NF @ numpy.linalg.lstsq(sizes_NF.astype(numpy.float64), flat)[0]
    return int(numpy.abs(left_NX).max(0).argmax())


def _sums(counted: _Counted) -> dict[StageKey, list[int]]:
    """FLOPs, bytes read and bytes written of each place."""
    figures: dict[StageKey, list[int]] = {}
    for place, one, n in counted:
        row = figures.setdefault(place, [0, 0, 0])
        row[0] += n * one.flops
        row[1] += n * one.bytes_read
        row[2] += n * one.bytes_written
    return figures


@contextlib.contextmanager
def traced(training: "Training", path: Path | None, overwrite: bool = False) -> Iterator[None]:
    """Steps taken inside the block are recorded as a trace at ``path``, if one is given."""
    if path is None:
        yield
        return
    costs = StepCosts(training)
    with record_trace(path, model=str(training.config.out), dtype=torch_dtype(training.dtype_name),
                      device=training.device, costs=costs, listing=costs.typical_listing,
                      overwrite=overwrite) as ledger:
        training.ledger = ledger
        try:
            yield
        finally:
            training.ledger = None


@contextlib.contextmanager
def heard(training: "Training") -> Iterator[None]:
    """Inside the block the run's ledger, if there is one, hears the marks; also where each layer's backward pass
    begins, by hooks on the gradients of the layers' outputs."""
    if training.ledger is None:
        yield
        return
    layers = _layers(training.module) if not training.counters.compiled else []
    handles = [layer.register_forward_hook(_backward_mark(index)) for index, layer in enumerate(layers)]
    if handles:
        handles.append(layers[0].register_forward_pre_hook(_embedding_mark))
    try:
        with marking(training.ledger):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _layers(module: nn.Module) -> list[nn.Module]:
    """The blocks whose backward passes are told apart: ``module.layers``, if there are any."""
    layers = getattr(module, "layers", None)
    return list(layers) if isinstance(layers, nn.ModuleList) else []


def _backward_mark(layer: int) -> Any:
    def hook(_module: nn.Module, _arguments: Any, output: Tensor | tuple[Tensor, ...]) -> None:
        stream = output if isinstance(output, Tensor) else output[0]
        if stream.requires_grad:
            stream.register_hook(lambda _gradient: mark(Stage.BACKWARD, layer))

    return hook


def _embedding_mark(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
    """The gradient of the first layer's input is complete: what is left is the embedding's."""
    if arguments[0].requires_grad:
        arguments[0].register_hook(lambda _gradient: mark(Stage.BACKWARD))
