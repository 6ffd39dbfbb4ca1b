"""FLOPs and bytes of one operation, from its arguments and results."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import flop_registry

from tickwise.profiling.stand_ins import Schema, StandIn, broadcast_shape, tensors_in


def flops_of(func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> int:
    """By PyTorch's formulas where it has one; 0 for elementwise work."""
    own = _FORMULAS.get(schema.packet)
    if own is not None:
        return own(args)
    formula = flop_registry.get(func._overloadpacket)
    return int(formula(*args, **kwargs, out_val=output)) if formula is not None else 0


def _attention(args: tuple[Any, ...]) -> int:
    """Two products: queries (B,H,T,D) with keys (B,H,S,D), weights (B,H,T,S) with values (B,H,S,E)."""
    batch, heads, queries, width = args[0].shape
    keys, value_width = args[1].shape[-2], args[2].shape[-1]
    return int(2 * batch * heads * queries * keys * (width + value_width))


def _recurrent_layer(args: tuple[Any, ...]) -> int:
    """oneDNN's fused recurrent layer: (steps, batch, inputs) with gate weights (gates*H, inputs), (gates*H, H)."""
    steps, batch = args[0].shape[0], args[0].shape[1]
    return int(2 * steps * batch * (args[1].numel() + args[2].numel()))


def _grouped_products(args: tuple[Any, ...]) -> int:
    """Rows (m, k) in groups, each with its own (k, n) of (G, k, n), as experts have; or groups along k, or of n."""
    a, b = args[0], args[1]
    groups = a.shape[0] if a.ndim == 3 and b.ndim == 2 else 1
    return int(2 * a.numel() * b.shape[-1] // groups)


def _added_product(args: tuple[Any, ...]) -> int:
    """(added, (…, m, k), (…, k, n))."""
    return int(2 * args[1].numel() * args[2].shape[-1])


# What FlopCounterMode has no formula for. By name, because not every build of torch has every operator.
_FORMULAS: dict[str, Callable[[tuple[Any, ...]], int]] = {
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward": lambda args: 2 * _attention(args[1:4]),
    "aten.mkldnn_rnn_layer": _recurrent_layer,
    "aten.mkldnn_rnn_layer_backward": lambda args: 2 * _recurrent_layer(args),
    "aten._grouped_mm": _grouped_products,
    "aten.mv": lambda args: int(2 * args[0].numel()),
    "aten.addmv": lambda args: int(2 * args[1].numel()),
    "aten.addmv_": lambda args: int(2 * args[1].numel()),
    "aten.dot": lambda args: int(2 * args[0].numel()),
    "aten._int_mm": lambda args: int(2 * args[0].numel() * args[1].shape[-1]),
    **dict.fromkeys(("aten.addmm_", "aten.baddbmm_", "aten.addbmm", "aten.addbmm_", "aten._addmm_activation"),
                    _added_product),
}


def _aten(words: str) -> frozenset[str]:
    return frozenset(f"aten.{word}" for word in words.split())


_FREE = _aten("empty empty_strided empty_like empty_permuted new_empty new_empty_strided _unsafe_view detach_ set_ "
              "unsafe_split unsafe_split_with_sizes unsafe_chunk")
_FIRST_IS_NOT_READ = _aten(  # it gives the shape, or is overwritten
    "zeros_like ones_like full_like rand_like randn_like new_zeros new_ones new_full "
    "copy_ zero_ fill_ random_ normal_ uniform_ bernoulli_ exponential_ _foreach_copy_ _foreach_zero_"
)
_ADD_TO_FIRST = _aten("addmm baddbmm addmv addbmm addmm_ baddbmm_ addmv_ addbmm_")
_LOOK_UPS = _aten("embedding index_select gather index take")
_BAGS = _aten("_embedding_bag _embedding_bag_forward_only")
_SCATTERS = _aten("scatter_ scatter_add_ scatter_reduce_ index_put_ _index_put_impl_ index_add_ index_copy_ "
                  "index_fill_ index_reduce_")


def traffic(
    schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor], outputs: list[Tensor]
) -> tuple[int, int]:
    """Bytes read and bytes written: the sizes of the tensors, each counted once.

    Views cost nothing, a look-up reads the rows that it takes, a binary search the entries that it compares with, a
    scatter writes the places that it hits, and what is only overwritten is not read.
    """
    name = schema.packet
    if schema.is_view or name in _FREE:
        return 0, 0
    if schema.mutated:
        words = [word for word in schema.mutated if not _only_might_write(schema, word, args, kwargs)]
        mutated = [t for word in words for t in tensors_in((schema.argument(word, args, kwargs),))]
        results = mutated if schema.returns_mutated else [*mutated, *outputs]
        unread = {id(t) for word in schema.out for t in tensors_in((schema.argument(word, args, kwargs),))}
    else:
        results, unread = outputs, set()
    extra = 0
    if name in _FIRST_IS_NOT_READ or (name in _ADD_TO_FIRST and kwargs.get("beta", 1) == 0):
        unread.update(map(id, tensors_in(args[:1])))
    elif name in _LOOK_UPS:
        unread.add(id(args[0]))
        extra = sum(map(size_of, results))
    elif name in _BAGS:
        unread.add(id(args[0]))
        extra = args[1].numel() * args[0].shape[1] * args[0].element_size()
    elif name == "aten.searchsorted" and isinstance(args[1], Tensor):
        unread.add(id(args[0]))
        steps = max(1, args[0].shape[-1]).bit_length()
        extra = min(size_of(args[0]), args[1].numel() * steps * args[0].element_size())
    elif name == "aten.nll_loss_forward":
        unread.add(id(args[0]))
        extra = args[1].numel() * args[0].element_size()
    elif name == "aten.nll_loss_backward":
        unread.add(id(args[1]))
    elif name == "aten._grouped_mm" and args[0].ndim == 2 and args[1].ndim == 3:
        # Few rows cannot reach all groups; which ones they reach depends on values.
        unread.add(id(args[1]))
        extra = size_of(args[1]) * min(args[0].shape[0], args[1].shape[0]) // args[1].shape[0]
    elif name in _SCATTERS:
        hit = _elements_hit(name, args) * args[0].element_size()
        adds = "add" in name or "reduce" in name or ("accumulate" in schema.names
                                                     and schema.argument("accumulate", args, kwargs))
        return _distinct(inputs[1:]) + (hit if adds else 0), hit
    return _distinct([t for t in inputs if id(t) not in unread]) + extra, _distinct(results)


def _only_might_write(schema: Schema, word: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Fused optimizers write into gradients only to scale them back."""
    return (word == "grads" and "grad_scale" in schema.names
            and schema.argument("grad_scale", args, kwargs) is None)


def _elements_hit(name: str, args: tuple[Any, ...]) -> int:
    """How many elements of its first argument a scatter writes; all of them where a mask says which."""
    shape = args[0].shape
    if "index_put" in name:
        at = {dim: index for dim, index in enumerate(args[1]) if index is not None}
        if any(not index.is_floating_point() and index.dtype.itemsize == 1 for index in at.values()):
            return math.prod(shape)
        found = broadcast_shape([index.shape for index in at.values()])
        return math.prod(found) * math.prod(n for dim, n in enumerate(shape) if dim not in at)
    if "index_" in name:
        return math.prod(shape) // max(1, shape[args[1]] if shape else 1) * int(args[2].numel())
    return int(args[2].numel())


def size_of(tensor: Tensor) -> int:
    """Bytes of the elements that a tensor really has: a dimension of stride 0 is one element, and windows that overlap
    share theirs."""
    n: int = tensor.element_size()
    span = n
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if not length:
            return 0
        if stride:
            span += (length - 1) * stride * tensor.element_size()
            n *= length
    return min(n, span)


def _distinct(tensors: list[Tensor]) -> int:
    """Bytes of all of them; the same elements twice, however arranged, count once."""
    if len(tensors) == 1:
        return size_of(tensors[0])
    sizes = {}
    for tensor in tensors:
        whole = tensor.meta if isinstance(tensor, StandIn) else tensor
        sizes[whole.untyped_storage()._cdata, whole.storage_offset(), whole.numel()] = size_of(tensor)
    return sum(sizes.values())
