"""Activation checkpointing: memory for time."""

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint


def layers_of(module: nn.Module) -> list[nn.Module]:
    """The blocks that a module is a stack of: the members of every list ``layers`` in it."""
    lists = (getattr(owner, "layers", None) for owner in module.modules())
    return [layer for one in lists if isinstance(one, nn.ModuleList) for layer in one]


def used_outside(layer: nn.Module) -> list[nn.Module]:
    """The parts of a layer that are called without the layer, as its ``used_outside`` names them."""
    names: tuple[str, ...] = getattr(layer, "used_outside", ())
    return [part for name, part in layer.named_modules() if name in names]


def is_hollow(module: nn.Module) -> bool:
    """The module has shapes but no numbers yet."""
    return any(parameter.is_meta for parameter in module.parameters())


def checkpoint_activations(module: nn.Module) -> None:
    """Let every layer keep its input only, and compute the rest again in the backward pass (Chen et al. 2016)."""
    for layer in layers_of(module):
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
