"""Listings of one tick of a model from transformers: prefill, decode with its cache, training."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage
from tickwise.profiling.program import Program, list_program, list_training_program

Phase = Literal["prefill", "decode", "train"]
_STATES = ("past_key_values", "cache_params", "state")
"""What architectures call their state between ticks: keys and values, Mamba's, RWKV's."""


def longest_text(module: nn.Module) -> int | None:
    """The most tokens that the model takes, where its config says so."""
    config: Any = module.config
    for name in ("max_position_embeddings", "n_positions"):
        if isinstance(getattr(config, name, None), int) and not getattr(config, "is_encoder_decoder", False):
            return int(getattr(config, name))
    return None


def list_transformers_tick(module: nn.Module, phase: Phase, batch: int, context: int) -> Program:
    """``prefill``: read ``context`` tokens. ``decode``: read the last of them, with the others in the cache.
    ``train``: forward and backward pass over ``context`` tokens with the model's own loss.

    An encoder-decoder reads a source of ``context`` tokens in its encoder; its decoder reads one token in a prefill,
    ``context`` in training, and the last of ``context`` in a decode tick. ``ConfigError`` for a phase that the model
    does not have, and for a decode tick with nothing in its cache.
    """
    config: Any = module.config
    two_texts = bool(getattr(config, "is_encoder_decoder", False))
    takes = inspect.signature(module.forward).parameters
    read = "decoder_input_ids" if two_texts else "input_ids"

    def ids(length: int) -> Tensor:
        return torch.zeros(batch, length, dtype=torch.long)

    if phase == "train":
        if "labels" not in takes:
            raise ConfigError(f"{type(module).__name__}: has no loss of its own; use --phase prefill")
        inputs: dict[str, Any] = {"input_ids": ids(context), "labels": ids(context), read: ids(context)}
        return _with_loss(list_training_program(module.train(), loss=lambda output: output.loss, **inputs))
    module.eval()
    source: dict[str, Any] = {"input_ids": ids(context)} if two_texts else {}
    options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
    if "use_cache" in takes:
        options["use_cache"] = True
    if phase == "prefill":
        options[read] = ids(1 if two_texts else context)
        return list_program(module, **source, **options)
    no_cache = ConfigError(f"{type(module).__name__}: keeps no cache, so it has no decode tick; use --phase prefill")
    name = next((name for name in _STATES if name in takes), None)
    if name is None or "use_cache" not in takes:
        raise no_cache
    if context < 2:
        raise ConfigError("--context 1: a decode tick has a token in its cache and reads one more; give 2 or more")

    def cached(run: Callable[..., Any]) -> Mapping[str, Any]:
        output = run(**source, **{**options, read: ids(context - 1)})
        if getattr(output, name, None) is None:
            raise no_cache
        state: dict[str, Any] = {name: getattr(output, name)}
        if two_texts:
            state["encoder_outputs"] = (output.encoder_last_hidden_state,)
        return state

    options[read] = ids(1)
    return list_program(module, prepare=cached, **options)


_CROSS_ENTROPY = {f"aten.{name}" for name in (
    "_log_softmax", "nll_loss_forward", "nll_loss_backward", "_log_softmax_backward_data",
    "nll_loss2d_forward", "nll_loss2d_backward")}


def _with_loss(program: Program) -> Program:
    """The model's own cross-entropy, which its code computes behind the head, as the stage that it is."""
    return Program(tuple(
        replace(i, stage=Stage.LOSS, layer=None) if i.op in _CROSS_ENTROPY else i for i in program.instructions
    ))
