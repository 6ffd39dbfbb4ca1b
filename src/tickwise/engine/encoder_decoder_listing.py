"""Listings of an encoder–decoder's ticks, as ``disasm`` shows them: reading sources, one more token of each target,
training."""

from typing import Literal

import torch
from torch import Tensor

from tickwise.engine.encoder_decoder_costs import EncoderDecoderCosts
from tickwise.engine.options import EngineOptions
from tickwise.engine.work import RowWork, TickWork
from tickwise.models.encoder_decoder import EncoderDecoder
from tickwise.profiling.program import Program, list_training_program


def list_encoder_decoder_tick(
    module: EncoderDecoder, phase: Literal["prefill", "decode", "train"], batch: int, context: int
) -> Program:
    """``prefill``: read sources of ``context`` tokens, and the first token of each target. ``decode``: read one more
    token of each target, the last of ``context`` in view, with sources of ``context`` tokens. ``train``: forward and
    backward pass over sources and targets of ``context`` tokens, none of them padding."""
    if phase == "train":
        return list_training_program(module.train(), torch.zeros(batch, context, dtype=torch.long), call=_loss)
    n_new, n_cached = (context + 1, 0) if phase == "prefill" else (1, 2 * context - 1)
    rows = tuple(RowWork(str(row), n_new, n_cached, phase, n_source=context) for row in range(batch))
    return EncoderDecoderCosts(module, EngineOptions.block_size).listing(TickWork(rows))


def _loss(module: EncoderDecoder, ids_BT: Tensor) -> Tensor:
    memory = module.encode(ids_BT)
    hidden_BTC = module.hidden_states(ids_BT, memory)
    hidden_NC, labels_N = hidden_BTC.flatten(0, 1), ids_BT.flatten()
    if module.config.copies:
        return module.mixed_loss(hidden_NC, module.copied(hidden_BTC, memory, ids_BT).flatten(), labels_N)
    return module.loss(hidden_NC, labels_N)
