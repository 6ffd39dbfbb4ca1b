"""Records what PyTorch code does: every operation, the stage and submodule it belongs to, its costs.

The operations run on stand-ins (``stand_ins``), not at all, or in earnest.
"""

import bisect
import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tickwise.core.stages import Stage, marking
from tickwise.profiling.instructions import ATTENTION, Direction, Instruction, Program
from tickwise.profiling.operation_costs import flops_of, traffic
from tickwise.profiling.stages import places_of
from tickwise.profiling.stand_ins import Schema, StandIn, map_tensors, result_of, schema_of, tensors_in

How = Literal["stand-ins", "dry", "real"]

# Constants up to this many elements are computed: code may look at them, and may keep them for later.
_SMALL = 1 << 20

# Nodes that add into a leaf's gradient have the highest number there is.
_UNNUMBERED = 1 << 63

_NAMES = {
    "aten._scaled_dot_product_flash_attention_for_cpu": ATTENTION,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward": f"{ATTENTION}_backward",
}


@contextlib.contextmanager
def recording(module: torch.nn.Module | None, recorder: "Recorder") -> Iterator[None]:
    """Operations, marks and submodules of the ``with`` block go to ``recorder``; random numbers are put back."""
    handles = []
    accelerators: set[int] = set()
    if module is not None:
        accelerators = {t.device.index or 0 for t in module.parameters() if t.device.type == "cuda"}
        recorder.places.named = places_of(module)
        for name, child in module.named_modules():

            def enter(_module: Any, _args: Any, name: str = name) -> None:
                recorder.places.enter(name)

            def leave(_module: Any, _args: Any, _output: Any) -> None:
                recorder.places.leave()

            handles.append(child.register_forward_pre_hook(enter))
            handles.append(child.register_forward_hook(leave, always_call=True))
    try:
        with (
            torch.random.fork_rng(devices=sorted(accelerators)), warnings.catch_warnings(),
            marking(recorder.places), recorder, _AttentionOnOneDevice(),
        ):  # fmt: skip
            warnings.simplefilter("ignore")
            yield
    finally:
        for handle in handles:
            handle.remove()


class Place(NamedTuple):
    """Where code is: stage, layer (``None``: not part of one) and dotted path of the submodule."""

    stage: Stage
    layer: int | None
    module: str


class Places:
    """Where the running code is, and where it was when autograd recorded the operation of a given number."""

    def __init__(self, start: Stage) -> None:
        self.named: dict[str, tuple[Stage, int | None]] = {}
        """Places of submodules by dotted path."""
        self._start = start
        self._marked = False
        self._modules = [""]
        self._numbers: list[int] = []
        self._history: list[Place] = []
        self._last_backward = Place(Stage.BACKWARD, None, "")
        self.restart()

    def restart(self) -> None:
        """As if nothing had run yet."""
        self._marked = False
        self._move(Place(self._start, None, ""))

    def mark(self, stage: Stage, layer: int | None = None) -> None:
        """Marks that the code carries win over the names of submodules."""
        self._marked = True
        self._move(Place(stage, layer, self._modules[-1]))

    def enter(self, module: str) -> None:
        self._modules.append(module)
        self._enter_or_leave()

    def leave(self) -> None:
        self._modules.pop()
        self._enter_or_leave()

    def _enter_or_leave(self) -> None:
        stage, layer, module = self.now.stage, self.now.layer, self._modules[-1]
        if not self._marked:
            # Code between two stages, such as a residual addition, goes on with the one before.
            stage, layer = self.named.get(module, (stage, layer))
        self._move(Place(stage, layer, module))

    def _move(self, place: Place) -> None:
        self.now = place
        number = torch.autograd._get_sequence_nr()
        if self._numbers and self._numbers[-1] == number:
            self._history[-1] = place
        else:
            self._numbers.append(number)
            self._history.append(place)

    def current(self) -> tuple[Place, Direction]:
        """Of the operation that runs now; in a backward pass, where its forward operation was."""
        if torch._C._current_graph_task_id() == -1:
            return self.now, "forward"
        node = torch._C._current_autograd_node()
        # Between two nodes the engine adds up gradients: work of the node before.
        if node is not None:
            number = node._sequence_nr()
            index = bisect.bisect_right(self._numbers, number) - 1
            known = index >= 0 and number < _UNNUMBERED
            self._last_backward = self._history[index] if known else Place(Stage.BACKWARD, None, "")
        return self._last_backward, "backward"


class Recorder(TorchDispatchMode):
    """Lists every operation that runs while it is on.

    ``stand-ins``: what depends on stand-ins is not computed, the rest is, as it may decide what the code does; small
    constants are not listed. ``dry``: nothing is computed, whatever it works on; ``.item()`` answers ``item``.
    ``real``: everything is computed.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch would wrap ``__torch_dispatch__`` into something that first loads its compiler."""
        return False

    def __init__(self, how: How, start: Stage = Stage.FORWARD, item: float | None = None) -> None:
        super().__init__()
        self.places = Places(start)
        self._how = how
        self._item = item
        self._instructions: list[tuple[int, Instruction]] = []
        self._clock = 0
        self._listing = True
        # Storages of plain tensors that the program has written into, and constants that fill one.
        self._written: dict[int, Any] = {}
        self._constants: dict[int, tuple[Tensor, int, Instruction]] = {}

    def program(self) -> Program:
        """What was recorded."""
        return Program(tuple(instruction for _, instruction in sorted(self._instructions, key=lambda pair: pair[0])))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Operations in the ``with`` block run as the others do and are not listed."""
        self._listing = False
        try:
            yield
        finally:
            self._listing = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            return func(*args, **kwargs)
        self._clock += 1
        schema = schema_of(func)
        if schema.is_composite and func._overloadpacket not in flop_registry:
            with self:
                # Not func.decompose, which prefers a composition in Python, with parts of its own.
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        inputs = [*tensors_in(args), *tensors_in(kwargs.values())]
        if self._how == "real":
            output = func(*args, **kwargs)
        elif self._is_constant(schema, args, inputs):
            return self._constant(func, schema, args, kwargs, inputs)
        elif self._item is not None and schema.packet == "aten._local_scalar_dense":
            return self._item
        else:
            output = self._result(func, schema, args, kwargs, inputs)
        if self._listing:
            self._instructions.append((self._clock, self._instruction(func, schema, args, kwargs, inputs, output)))
        return output

    def _is_constant(self, schema: Schema, args: tuple[Any, ...], inputs: list[Tensor]) -> bool:
        if self._how == "dry" or schema.is_random:
            return False
        return not any(map(self._depends_on_inputs, inputs)) and (bool(inputs) or _elements(args) <= _SMALL)

    def _depends_on_inputs(self, tensor: Tensor) -> bool:
        if isinstance(tensor, StandIn):
            return True
        return bool(self._written) and tensor.untyped_storage()._cdata in self._written

    def _constant(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor]
    ) -> Any:
        output = func(*args, **kwargs)
        if not inputs and isinstance(output, Tensor):
            instruction = self._instruction(func, schema, args, kwargs, inputs, output)
            if instruction.bytes_written:
                self._constants[output.untyped_storage()._cdata] = output, self._clock, instruction
        return output

    def _result(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor]
    ) -> Any:
        device = next((t.device for t in inputs if isinstance(t, StandIn)), None)
        if device is None:
            device = inputs[0].device if inputs else torch.device(kwargs.get("device") or "cpu")
        if not inputs and "device" in schema.names:
            kwargs = {**kwargs, "device": device}
        output = result_of(func, args, kwargs, device)
        for name in schema.mutated:
            for tensor in tensors_in((schema.argument(name, args, kwargs),)):
                if not isinstance(tensor, StandIn):
                    self._note_written(tensor)
        return output

    def _note_written(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._written[storage._cdata] = storage  # kept, so that no other storage gets its address
        filled = self._constants.pop(storage._cdata, None)
        if filled is not None and self._listing:  # no constant then, but a buffer that the program clears
            self._instructions.append(filled[1:])

    def _instruction(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor],
        output: Any,
    ) -> Instruction:
        place, direction = self.places.current()
        outputs = list(tensors_in((output,)))
        read, written = traffic(schema, args, kwargs, inputs, outputs)
        first = outputs[0] if outputs else inputs[0] if inputs else None
        return Instruction(
            stage=place.stage, layer=place.layer, op=_NAMES.get(schema.packet, schema.packet),
            shapes=tuple(tuple(t.shape) for t in inputs), outputs=tuple(tuple(t.shape) for t in outputs),
            dtype=str(first.dtype).removeprefix("torch.") if first is not None else "",
            flops=flops_of(func, schema, args, kwargs, output), bytes_read=read, bytes_written=written,
            direction=direction, module=place.module,
        )  # fmt: skip


def _elements(args: tuple[Any, ...]) -> int:
    """Of the tensor that a factory makes: its first argument is the shape."""
    n = 1
    for length in args[0] if args and isinstance(args[0], (list, tuple)) else ():
        n *= length
    return n


class _AttentionOnOneDevice(TorchFunctionMode):
    """Makes stand-ins of meta tensors that meet one in attention, which compares devices before any dispatch.

    A cache on the meta device is how a decode tick is listed without memory for its keys and values.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            given = [*tensors_in(args), *tensors_in(kwargs.values())]
            device = next((t.device for t in given if isinstance(t, StandIn)), None)
            if device is not None and any(t.device.type == "meta" for t in given):

                def lifted(tensor: Tensor) -> Tensor:
                    return StandIn(tensor, device) if tensor.device.type == "meta" else tensor

                args = map_tensors(lifted, args)
                kwargs = {name: map_tensors(lifted, value) for name, value in kwargs.items()}
        return func(*args, **kwargs)
