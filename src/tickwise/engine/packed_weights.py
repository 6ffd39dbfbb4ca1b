"""Weights in the layout that the CPU's library computes in, for work that uses them many times."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_WORTH_PACKING = 256
"""Rows that all products with a matrix together must have."""


@contextlib.contextmanager
def packed_weights(module: nn.Module, n_rows: int) -> Iterator[None]:
    """Inside the block the linear layers of ``module`` multiply with copies of their weights in oneDNN's blocked layout
    (the one that ``torch.compile`` freezes into), which saves rearranging them in every call. Nothing changes for fewer
    than a few hundred ``n_rows``, on an accelerator, or where PyTorch was built without oneDNN."""
    packed: list[nn.Linear] = []
    try:
        if n_rows >= _WORTH_PACKING and next(module.parameters()).device.type == "cpu" and _can_pack():
            for layer in module.modules():
                if isinstance(layer, nn.Linear) and "forward" not in vars(layer):
                    with torch.inference_mode(False), torch.no_grad():
                        weight = _operators()._reorder_linear_weight(layer.weight.detach().clone(), n_rows)
                    layer.forward = functools.partial(_product, weight, layer.bias)  # type: ignore[method-assign]
                    packed.append(layer)
        yield
    finally:
        for layer in packed:
            del layer.forward


def _product(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    result: Tensor = _operators()._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _operators() -> Any:
    return torch.ops.mkldnn


@functools.cache
def _can_pack() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        _product(_operators()._reorder_linear_weight(torch.zeros(16, 16), 16), None, torch.zeros(16, 16))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return True
