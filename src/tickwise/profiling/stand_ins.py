"""Tensors without data: code runs on them, as on any device, and only shapes, strides and number formats are computed.

A ``StandIn`` says that it is on the device of the tensor it stands for, so code that asks takes the branch that it
takes in earnest; this is what a meta tensor cannot do. ``result_of`` tells what an operation returns. For the
operations of language models it has rules of its own, because PyTorch's meta kernels are written in Python, take ten
times as long and load its compiler, which costs a second; every other operation goes to its meta kernel.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


class NeedsValuesError(RuntimeError):
    """Code asked for the value of a tensor that has none."""


class StandIn(Tensor):
    """Shape, strides, number format and device of a tensor; ``meta`` is the same on the meta device."""

    meta: Tensor

    @staticmethod
    def __new__(cls, meta: Tensor, device: torch.device, requires_grad: bool = False) -> "StandIn":
        with torch.inference_mode(False):  # a view of a normal tensor is one, too, whatever mode it is made in
            made: StandIn = torch.Tensor._make_wrapper_subclass(
                cls, meta.shape, strides=meta.stride(), storage_offset=meta.storage_offset(), dtype=meta.dtype,
                device=device, requires_grad=requires_grad,
            )
        made.meta = meta
        return made

    def __init__(self, meta: Tensor, device: torch.device, requires_grad: bool = False) -> None:
        """``__new__`` has done it."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        raise NeedsValuesError(f"{func}: a stand-in outside the run that it was made for")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"StandIn({tuple(self.shape)}, {self.dtype}, {self.device})"


def meta_of(tensor: Tensor) -> Tensor:
    """The tensor on the meta device; views of one stand-in share their storage there."""
    if isinstance(tensor, StandIn):
        return tensor.meta
    if tensor.device.type == "meta":
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operation's arguments or results, lists included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with every tensor in it replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)([map_tensors(function, v) for v in value])
    return value


def result_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device) -> Any:
    """What ``func(*args, **kwargs)`` returns, as stand-ins on ``device``; nothing is computed or written.

    ``NeedsValuesError`` when that depends on the values of a tensor.
    """
    schema = schema_of(func)
    if schema.needs_values:
        raise NeedsValuesError(f"{func} depends on values")
    if schema.returns_mutated:
        mutated = [schema.argument(name, args, kwargs) for name in schema.mutated]
        return mutated[0] if schema.n_returns == 1 else tuple(mutated[: schema.n_returns]) or None
    args, kwargs = map_tensors(meta_of, args), {name: map_tensors(meta_of, v) for name, v in kwargs.items()}
    if kwargs.get("device") is not None:
        device = torch.device(kwargs["device"])
        kwargs = {**kwargs, "device": torch.device("meta")}
    rule = _RULES.get(schema.packet)
    if rule is None and schema.is_pointwise:
        rule = _pointwise
    found = rule(func, args, kwargs) if rule is not None else NotImplemented
    if found is NotImplemented:
        found = func(*args, **kwargs)
    return map_tensors(lambda meta: StandIn(meta, device), found)


@dataclasses.dataclass(frozen=True)
class Schema:
    """The parts of an operator's schema that say what it reads, writes and returns."""

    packet: str
    """Name without the overload: ``aten.mm``."""
    names: tuple[str, ...]
    mutated: tuple[str, ...]
    """Arguments that are written to."""
    out: frozenset[str]
    """Those of them that are only written to (``out=``)."""
    n_returns: int
    returns_mutated: bool
    """Everything that is returned is an argument that was written to."""
    is_view: bool
    is_pointwise: bool
    is_random: bool
    is_composite: bool
    """A composition of other operations, which arrives whole in inference mode."""
    needs_values: bool

    def argument(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        index = self.names.index(name)
        return args[index] if index < len(args) else kwargs.get(name)


def _has_kernel(func: Any, key: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))


@functools.cache
def schema_of(func: Any) -> Schema:
    """The schema of an operator overload (``torch.ops.aten.mm.default``)."""
    packet = str(func._overloadpacket)
    arguments, returns = func._schema.arguments, func._schema.returns
    mutated = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    written = [r.alias_info is not None and r.alias_info.is_write for r in returns]
    tags = set(func.tags)
    changes_shape = torch.Tag.inplace_view in tags and packet not in ("aten.detach_", "aten.set_")
    return Schema(
        packet=packet,
        names=tuple(a.name for a in arguments),
        mutated=tuple(mutated),
        out=frozenset(a.name for a in arguments if a.is_out),
        n_returns=len(returns),
        returns_mutated=bool(mutated) and all(written) and len(returns) <= len(mutated),
        is_view=any(r.alias_info is not None and not r.alias_info.is_write for r in returns),
        is_pointwise=torch.Tag.pointwise in tags and not mutated and packet != "aten.clone",
        is_random=torch.Tag.nondeterministic_seeded in tags,
        is_composite=_has_kernel(func, "CompositeImplicitAutograd") and not _has_kernel(func, "CPU"),
        needs_values=changes_shape or torch.Tag.data_dependent_output in tags
        or (torch.Tag.dynamic_output_shape in tags and packet != "aten.index"),
    )


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _probe_key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, value.ndim == 0
    if isinstance(value, (bool, int, float, complex)):
        return type(value)
    return tuple(_probe_key(v) for v in value) if isinstance(value, (list, tuple)) else value


_dtypes: dict[Any, torch.dtype] = {}


def _dtype(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.dtype:
    """The number format of the result: from one real run on tensors of a single element each."""
    key = (func, tuple(map(_probe_key, args)), tuple((name, _probe_key(v)) for name, v in kwargs.items()))
    if key not in _dtypes:
        probes = map_tensors(lambda t: torch.ones((1,) * t.ndim, dtype=t.dtype), (args, tuple(kwargs.values())))
        _dtypes[key] = func(*probes[0], **dict(zip(kwargs, probes[1], strict=True))).dtype
    return _dtypes[key]


def _in_order_of(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A dense tensor whose dimensions lie in memory in the order of ``tensor``'s."""
    strides, n = [0] * tensor.ndim, 1
    for dim in sorted(range(tensor.ndim), key=lambda d: (tensor.stride(d), -d)):
        strides[dim] = n
        n *= max(1, tensor.shape[dim])
    return torch.empty_strided(tensor.shape, strides, dtype=dtype, device="meta")


def broadcast_shape(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """As ``torch.broadcast_shapes``, which loads sympy first."""
    result = [1] * max(map(len, shapes), default=0)
    for shape in shapes:
        for dim in range(1, len(shape) + 1):
            if shape[-dim] != 1:
                if result[-dim] not in (1, shape[-dim]):
                    raise ValueError(f"shapes {', '.join(str(tuple(s)) for s in shapes)} cannot be broadcast")
                result[-dim] = shape[-dim]
    return tuple(result)


def _pointwise(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Broadcast shape, in the memory order of the first operand that has it."""
    operands = [*tensors_in(args), *tensors_in(kwargs.values())]
    if not operands:
        return NotImplemented
    dtype = _dtype(func, args, kwargs)
    shape: Sequence[int] = operands[0].shape
    if any(t.shape != shape for t in operands):
        shape = broadcast_shape([t.shape for t in operands])
    full = [t for t in operands if t.shape == shape and (0 not in t.stride() or t.ndim == 0)]
    if not full or full[0].is_contiguous():
        return _empty(shape, dtype)
    return _in_order_of(full[0], dtype)


def _reduction(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    schema, shape = schema_of(func), args[0].shape
    dims = schema.argument("dim", args, kwargs) if "dim" in schema.names else None
    keep = bool(schema.argument("keepdim", args, kwargs)) if "keepdim" in schema.names else False
    if dims is None or dims == []:
        gone = set(range(len(shape)))
    else:
        gone = {d % max(1, len(shape)) for d in (dims if isinstance(dims, (list, tuple)) else [dims])}
    left = [1 if d in gone else n for d, n in enumerate(shape) if keep or d not in gone]
    return _empty(left, _dtype(func, args, kwargs))


def _like_first(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument's shape, contiguous."""
    return _empty(args[0].shape, _dtype(func, args, kwargs))


def _like_second(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _empty(args[1].shape, args[1].dtype)


def _filled_like(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dtype = kwargs.get("dtype") or args[0].dtype
    if kwargs.get("memory_format") in (None, torch.preserve_format):
        return _in_order_of(args[0], dtype)
    return _empty(args[0].shape, dtype) if kwargs["memory_format"] is torch.contiguous_format else NotImplemented


def _new(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _empty(args[1], kwargs.get("dtype") or args[0].dtype)


def _zeros_around(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Backward of a slice: (gradient, sizes of the whole, …)."""
    return _empty(args[1], args[0].dtype)


def _mm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """(m, k) · (k, n), or batches of that; an added term may come first."""
    a, b = args[-2:] if len(args) < 3 else args[1:3]
    return _empty((*a.shape[:-1], b.shape[-1]), a.dtype)


def _grouped_mm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Rows (m, k) in groups of their own with (G, k, n); its kernel takes bf16 only, its shapes are those of any."""
    a, b = args[0], args[1]
    if (a.ndim, b.ndim) != (2, 3):
        return NotImplemented
    return _empty((a.shape[0], b.shape[-1]), a.dtype)


def _softmax_backward(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _empty(args[0].shape, args[3])


def _embedding(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _empty((*args[1].shape, args[0].shape[1]), args[0].dtype)


def _embedding_backward(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _empty((args[2], args[0].shape[-1]), args[0].dtype)


def _index_select(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    shape = list(args[0].shape)
    if not shape:
        return NotImplemented
    shape[args[1]] = args[2].numel()
    return _empty(shape, args[0].dtype)


def _index(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Advanced indexing: the indices' shape stands where the indexed dimensions stood, if those are neighbours."""
    shape, indices = args[0].shape, args[1]
    at = [dim for dim, index in enumerate(indices) if index is not None]
    given = [indices[dim] for dim in at]
    if any(index.dtype in (torch.bool, torch.uint8) for index in given):
        raise NeedsValuesError("indexing with a mask depends on values")
    found = broadcast_shape([index.shape for index in given])
    if at[-1] - at[0] + 1 == len(at):
        return _empty((*shape[: at[0]], *found, *shape[at[-1] + 1 :]), args[0].dtype)
    return _empty((*found, *(n for dim, n in enumerate(shape) if dim not in at)), args[0].dtype)


def _gather(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _empty(args[2].shape, args[0].dtype)


def _cat(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = args[0]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    if any(t.ndim != tensors[0].ndim or t.dtype != tensors[0].dtype for t in tensors) or tensors[0].ndim == 0:
        return NotImplemented
    shape = list(tensors[0].shape)
    shape[dim] = sum(t.shape[dim] for t in tensors)
    return _empty(shape, tensors[0].dtype)


def _stack(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = args[0]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    shape = list(tensors[0].shape)
    shape.insert(dim % (len(shape) + 1), len(tensors))
    return _empty(shape, tensors[0].dtype)


def _layer_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, normalized, weight = args[0], args[1], args[2]
    mixed = weight is not None and weight.dtype != x.dtype
    statistics = (*x.shape[: x.ndim - len(normalized)], *(1 for _ in normalized))
    dtype = torch.float32 if mixed else x.dtype
    return _empty(x.shape, x.dtype), _empty(statistics, dtype), _empty(statistics, dtype)


def _layer_norm_backward(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight, bias, wanted = args[1], args[5], args[6], args[7]
    made = zip((x, weight, bias), wanted, strict=True)
    return tuple(_empty(t.shape, t.dtype) if want and t is not None else None for t, want in made)


def _nll_loss(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    scores, targets, reduction = args[0], args[1], args[3]
    return _empty(targets.shape if reduction == 0 else (), scores.dtype), _empty((), scores.dtype)


def _attention(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Fused attention on a CPU: like the queries (B, H, T, D); and the sums of the softmax, (B, H, T)."""
    batch, heads, queries, _ = args[0].shape
    return _in_order_of(args[0], args[0].dtype), _empty((batch, queries, heads), torch.float32).transpose(1, 2)


def _attention_backward(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return tuple(
        torch.empty_permuted(t.shape, (0, 2, 1, 3), dtype=t.dtype, device="meta") for t in args[1:4]
    )


_Rule = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


def _table(rules: dict[_Rule, str]) -> dict[str, _Rule]:
    return {f"aten.{name}": rule for rule, names in rules.items() for name in names.split()}


# Equal to what the CPU's kernels return: tests/profiling/test_stand_ins.py compares them.
def _arange(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Torch's own loads a library for symbols, and with some types the compiler."""
    start, end, step = {1: (0, *args, 1), 2: (*args, 1), 3: args}[len(args)]
    whole = all(isinstance(x, int) for x in (start, end, step))
    dtype = kwargs.get("dtype") or (torch.int64 if whole else torch.get_default_dtype())
    return _empty((max(0, math.ceil((end - start) / step)),), dtype)


_RULES = _table({
    _reduction: "sum mean amax amin linalg_vector_norm all any argmax argmin prod",
    _like_first: "_softmax _log_softmax cumsum roll tril triu flip",
    _like_second: "nll_loss_backward",
    _filled_like: "zeros_like ones_like full_like empty_like rand_like randn_like",
    _new: "new_zeros new_ones new_full new_empty",
    _zeros_around: "slice_backward select_backward",
    _mm: "mm addmm bmm baddbmm",
    _grouped_mm: "_grouped_mm",
    _softmax_backward: "_softmax_backward_data _log_softmax_backward_data",
    _embedding: "embedding",
    _embedding_backward: "embedding_dense_backward",
    _index_select: "index_select",
    _gather: "gather",
    _index: "index",
    _cat: "cat",
    _stack: "stack",
    _layer_norm: "native_layer_norm",
    _layer_norm_backward: "native_layer_norm_backward",
    _nll_loss: "nll_loss_forward",
    _arange: "arange",
    _attention: "_scaled_dot_product_flash_attention_for_cpu",
    _attention_backward: "_scaled_dot_product_flash_attention_for_cpu_backward",
})

