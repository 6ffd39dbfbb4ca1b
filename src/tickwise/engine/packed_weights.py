"""Weights in the layout that the CPU's library computes in, for work that uses them many times."""

import copy
import functools
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tickwise.core import console

_WORTH_PACKING = 256
"""Rows that all products with a matrix together must have."""

Module = TypeVar("Module", bound=nn.Module)


def packed_weights(module: Module, n_rows: int) -> Module:
    """``module`` itself, or where it pays a twin of it whose linear layers multiply with copies of their weights in
    oneDNN's blocked layout (the one that ``torch.compile`` freezes into), which saves rearranging them in every call.

    ``module`` stays as it is: others may use it meanwhile. The twin shares everything else with it, is for inference
    only, and knows nothing of weights that ``module`` gets later. It is ``module`` itself for fewer than a few hundred
    ``n_rows``, on an accelerator, and in number formats that this machine's library does not pack.
    """
    parameter = next(module.parameters())
    if n_rows < _WORTH_PACKING or parameter.device.type != "cpu":
        return module
    why_not = why_not_packed(parameter.dtype)
    if why_not:
        console.note(f"weights stay in their usual layout: {why_not}")
        return module
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    twin = copy.deepcopy(module, shared)
    for layer in twin.modules():
        if isinstance(layer, nn.Linear):
            with torch.inference_mode(False), torch.no_grad():
                weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().clone(), n_rows)
            layer.forward = functools.partial(_product, weight, layer.bias)  # type: ignore[method-assign]
    return twin


def why_not_packed(dtype: torch.dtype) -> str:
    """Why weights of this number format cannot be packed here; empty when they can."""
    if not torch.backends.mkldnn.is_available():
        return "PyTorch was built without oneDNN"
    operators = torch.ops.mkldnn
    if not all(hasattr(operators, name) for name in ("_reorder_linear_weight", "_linear_pointwise")):
        return f"PyTorch {torch.__version__} does not offer oneDNN's packed products"
    known = dtype == torch.float32 or (dtype == torch.bfloat16 and operators._is_mkldnn_bf16_supported()) or (
        dtype == torch.float16 and operators._is_mkldnn_fp16_supported())
    if not known:
        return f"oneDNN has no products in {str(dtype).removeprefix('torch.')} on this processor"
    return ""


def _product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result
