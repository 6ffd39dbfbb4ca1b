"""Count the FLOPs of any ``torch.nn.Module`` by running it on meta tensors, which have shapes but no data.

Counted are matrix products, convolutions and attention, two FLOPs per multiply-add, with the formulas of
``torch.utils.flop_counter``; elementwise work counts nothing there and nothing here. On meta tensors PyTorch
runs attention as its two matrix products, so CPU attention is counted too, which ``FlopCounterMode`` leaves
out, and the backward pass of attention counts its four products without the recomputation of fused kernels.
Causal attention counts the full square, as ``FlopCounterMode`` does.
"""

import contextlib
import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_flatten, tree_map_only
from torch.utils.flop_counter import flop_registry

from tickwise.core.errors import UserError

ATTENTION = "scaled_dot_product_attention"


@dataclasses.dataclass(frozen=True)
class FlopCount:
    """FLOPs by operation; ``total`` is their sum."""

    total: int
    by_op: Mapping[str, int]
    """Operation name (``aten.mm``; attention in the forward pass as ``scaled_dot_product_attention``) → FLOPs."""
    by_module: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Innermost module's dotted name ('' for the root) → FLOPs of the forward pass."""
    kind: str = "counted"

    def __post_init__(self) -> None:
        assert self.total == sum(self.by_op.values()), "the parts must sum to the total"


def count_flops(module: torch.nn.Module, *args: Any, **kwargs: Any) -> FlopCount:
    """FLOPs of ``module(*args, **kwargs)`` (the forward pass).

    No data is computed and the module is left as it was, but state that the arguments carry in Python
    (a cache's length) moves on as in a real call: pass a fresh one. A module that must look at values
    (``.item()``) is run for real instead. ``UserError`` when it cannot be run with these arguments at all.
    """
    return _count(module, args, kwargs, _forward_only)


def count_training_flops(
    module: torch.nn.Module, *args: Any, loss: Callable[[Any], torch.Tensor] | None = None, **kwargs: Any
) -> FlopCount:
    """FLOPs of one forward and backward pass over the parameters that require gradients.

    ``loss`` maps the module's output to the tensor that is differentiated; without it that is the sum of
    the floating-point outputs. The optimizer does no matrix products and adds nothing, except for Muon-like
    ones, which are not counted here.
    """

    def forward_and_backward(call: Callable[[], Any], parameters: list[torch.Tensor]) -> None:
        with torch.enable_grad():
            output = call()
            if loss is not None:
                objective = loss(output)
            else:
                parts = [t.float().sum() for t in _tensors(output) if t.requires_grad]
                if not parts:
                    raise UserError(f"{type(module).__name__}: no output depends on a trainable parameter")
                objective = torch.stack(parts).sum()
            trained = [p for p in parameters if p.requires_grad]
            # Not .backward(): that would leave gradients on the caller's parameters.
            torch.autograd.grad(objective.sum(), trained, allow_unused=True)

    return _count(module, args, kwargs, forward_and_backward)


def _forward_only(call: Callable[[], Any], parameters: list[torch.Tensor]) -> None:
    with torch.no_grad():
        call()


_Pass = Callable[[Callable[[], Any], list[torch.Tensor]], None]


def _count(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], run: _Pass) -> FlopCount:
    try:
        return _count_on_meta(module, args, kwargs, run)
    except UserError:
        raise
    except Exception:  # whatever a module raises when its values are missing
        try:
            return _count_for_real(module, args, kwargs, run)
        except UserError:
            raise
        except Exception as problem:
            first_line = (str(problem).splitlines() or [type(problem).__name__])[0]
            raise UserError(f"{type(module).__name__} cannot be run with these inputs: {first_line}") from problem


def _count_on_meta(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], run: _Pass
) -> FlopCount:
    stand_ins: dict[int, torch.Tensor] = {}

    def stand_in(tensor: torch.Tensor) -> torch.Tensor:
        # One stand-in per tensor, so that tied weights stay tied.
        if id(tensor) not in stand_ins:
            stand_ins[id(tensor)] = _to_meta(tensor).requires_grad_(tensor.requires_grad)
        return stand_ins[id(tensor)]

    state = {
        name: stand_in(tensor)
        for named in (module.named_parameters, module.named_buffers)
        for name, tensor in named(remove_duplicate=False)
    }
    meta_args, meta_kwargs = tree_map_only(torch.Tensor, stand_in, (args, kwargs))
    parameters = [stand_ins[id(p)] for p in module.parameters()]
    with _counting(module) as counter:
        run(lambda: torch.func.functional_call(module, state, meta_args, meta_kwargs), parameters)
    return counter.result()


def _count_for_real(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], run: _Pass
) -> FlopCount:
    # Running statistics and random numbers are the caller's: count on copies of both.
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    accelerators = sorted({t.device.index or 0 for t in module.parameters() if t.device.type == "cuda"})
    with torch.random.fork_rng(devices=accelerators), _counting(module) as counter:
        run(lambda: torch.func.functional_call(module, buffers, args, kwargs), list(module.parameters()))
    return counter.result()


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, torch.Tensor)]


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _is_meta(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.device.type == "meta"


def _all_on_meta_if_any(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with every real tensor that stands beside a meta tensor replaced by one."""
    if not tree_any(_is_meta, (args, kwargs)):
        return args, kwargs
    args, kwargs = tree_map_only(torch.Tensor, lambda t: t if _is_meta(t) else _to_meta(t), (args, kwargs))
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": torch.device("meta")}
    return args, kwargs


class _Counter(TorchDispatchMode):
    """Adds up the formula of every operation; a real tensor that meets a meta tensor becomes one."""

    def __init__(self) -> None:
        super().__init__()
        self.by_op: Counter[str] = Counter()
        self.by_module: Counter[str] = Counter()
        self.modules: list[str] = []
        self.in_attention = False

    def result(self) -> FlopCount:
        by_op = {name: flops for name, flops in self.by_op.items() if flops}
        return FlopCount(sum(by_op.values()), by_op, {n: flops for n, flops in self.by_module.items() if flops})

    def add(self, name: str, flops: int) -> None:
        self.by_op[ATTENTION if self.in_attention else name] += flops
        if self.modules:
            self.by_module[self.modules[-1]] += flops

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = _all_on_meta_if_any(args, kwargs or {})
        output = func(*args, **kwargs)
        packet = getattr(func, "_overloadpacket", None)
        own = _FORMULAS.get(str(packet))
        if own is not None:
            self.add(str(packet), own(args))
        elif packet in flop_registry:
            self.add(str(packet), int(flop_registry[packet](*args, **kwargs, out_val=output)))
        return output


class _AttentionLabel(TorchFunctionMode):
    """Names the products inside ``scaled_dot_product_attention`` for what they are."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        # It compares devices before any dispatch: keys from a real cache must be meta by then.
        args, kwargs = _all_on_meta_if_any(args, kwargs)
        before, self.counter.in_attention = self.counter.in_attention, True
        try:
            return func(*args, **kwargs)
        finally:
            self.counter.in_attention = before


def _attention(args: tuple[Any, ...]) -> int:
    """Two products: queries (B,H,T,D) with keys (B,H,S,D), weights (B,H,T,S) with values (B,H,S,E)."""
    batch, heads, queries, width = args[0].shape
    keys, value_width = args[1].shape[-2], args[2].shape[-1]
    return int(2 * batch * heads * queries * keys * (width + value_width))


def _recurrent_layer(args: tuple[Any, ...]) -> int:
    """oneDNN's fused recurrent layer: (steps, batch, inputs) with gate weights (gates*H, inputs), (gates*H, H)."""
    steps, batch = args[0].shape[0], args[0].shape[1]
    return int(2 * steps * batch * (args[1].numel() + args[2].numel()))


# What FlopCounterMode has no formula for; reached only when a module is run for real. By name, because
# not every build of torch has every operator.
_FORMULAS: dict[str, Callable[[tuple[Any, ...]], int]] = {
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward": lambda args: 2 * _attention(args[1:4]),
    "aten.mkldnn_rnn_layer": _recurrent_layer,
    "aten.mv": lambda args: int(2 * args[0].numel()),
    "aten.addmv": lambda args: int(2 * args[1].numel()),
    "aten.dot": lambda args: int(2 * args[0].numel()),
}


@contextlib.contextmanager
def _counting(module: torch.nn.Module) -> Iterator[_Counter]:
    counter = _Counter()
    handles = []
    for name, child in module.named_modules():

        def enter(_module: Any, _args: Any, name: str = name) -> None:
            counter.modules.append(name)

        def leave(_module: Any, _args: Any, _output: Any) -> None:
            counter.modules.pop()

        handles.append(child.register_forward_pre_hook(enter))
        handles.append(child.register_forward_hook(leave, always_call=True))
    try:
        with warnings.catch_warnings(), counter, _AttentionLabel(counter):
            warnings.simplefilter("ignore")
            yield counter
    finally:
        for handle in handles:
            handle.remove()
