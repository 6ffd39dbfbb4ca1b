"""FLOPs and bytes of one operation, from its arguments and results."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import flop_registry

from tickwise.profiling.stand_ins import Schema, StandIn, tensors_in


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


# What FlopCounterMode has no formula for. By name, because not every build of torch has every operator.
_FORMULAS: dict[str, Callable[[tuple[Any, ...]], int]] = {
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward": lambda args: 2 * _attention(args[1:4]),
    "aten.mkldnn_rnn_layer": _recurrent_layer,
    "aten.mkldnn_rnn_layer_backward": lambda args: 2 * _recurrent_layer(args),
    "aten._grouped_mm": _grouped_products,
    "aten.mv": lambda args: int(2 * args[0].numel()),
    "aten.addmv": lambda args: int(2 * args[1].numel()),
    "aten.dot": lambda args: int(2 * args[0].numel()),
}


def _aten(words: str) -> frozenset[str]:
    return frozenset(f"aten.{word}" for word in words.split())


_FREE = _aten("empty empty_strided empty_like empty_permuted new_empty new_empty_strided _unsafe_view detach_ set_")
_FIRST_IS_NOT_READ = _aten(  # it gives the shape, or is overwritten
    "zeros_like ones_like full_like rand_like randn_like new_zeros new_ones new_full "
    "copy_ zero_ fill_ random_ normal_ uniform_ bernoulli_ exponential_"
)
_ADD_TO_FIRST = _aten("addmm baddbmm addmv addbmm")
_LOOK_UPS = _aten("embedding index_select gather index take")
_SCATTERS = _aten("scatter_ scatter_add_ index_put_ index_add_ index_copy_")


def traffic(
    schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor], outputs: list[Tensor]
) -> tuple[int, int]:
    """Bytes read and bytes written: the sizes of the tensors, each counted once.

    Views cost nothing, a look-up reads the rows that it takes, a scatter writes the places that it hits, and what is
    only overwritten is not read.
    """
    name = schema.packet
    if schema.is_view or name in _FREE:
        return 0, 0
    if schema.mutated:
        mutated = [t for word in schema.mutated for t in tensors_in((schema.argument(word, args, kwargs),))]
        results = mutated if schema.returns_mutated else [*mutated, *outputs]
        unread = {id(t) for word in schema.out for t in tensors_in((schema.argument(word, args, kwargs),))}
    else:
        results, unread = outputs, set()
    extra = 0
    if name in _FIRST_IS_NOT_READ or (name in _ADD_TO_FIRST and kwargs.get("beta", 1) == 0):
        unread.add(id(args[0]))
    elif name in _LOOK_UPS:
        unread.add(id(args[0]))
        extra = sum(map(size_of, results))
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
        # The values, or for a scalar the places.
        source = next((t for t in reversed(inputs[1:]) if t.dtype == args[0].dtype), inputs[-1])
        n_bytes = source.numel() * args[0].element_size()
        read = sum(map(size_of, inputs[1:]))
        return read + (n_bytes if "add" in name else 0), n_bytes
    return _distinct([t for t in inputs if id(t) not in unread]) + extra, _distinct(results)


def size_of(tensor: Tensor) -> int:
    """Bytes of the elements that a tensor really has: a dimension of stride 0 is one element."""
    n: int = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if stride or not length:
            n *= length
    return n


def _distinct(tensors: list[Tensor]) -> int:
    """Bytes of all of them; the same elements twice, however arranged, count once."""
    if len(tensors) == 1:
        return size_of(tensors[0])
    sizes = {}
    for tensor in tensors:
        whole = tensor.meta if isinstance(tensor, StandIn) else tensor
        sizes[whole.untyped_storage()._cdata, whole.storage_offset(), whole.numel()] = size_of(tensor)
    return sum(sizes.values())
