"""Model directories of other programs that a family of ours computes, by their ``model_type``.

Decoders are in ``tensor_names.py``: they are also written that way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tickwise.interop.bert import BERT, bert_config, bert_state
from tickwise.interop.encoder_decoder_names import encoder_decoder_config, encoder_decoder_state
from tickwise.models.families import ENCODER, FAMILIES, Family


@dataclass(frozen=True)
class Foreign:
    """How a directory of this ``model_type`` becomes a module of ours."""

    family: Family
    config: Callable[[Mapping[str, Any], str], Any]
    """From the values of ``config.json``; the second argument names the file in messages."""
    state: Callable[[Any, Mapping[str, Tensor], Mapping[str, Tensor], str], dict[str, Tensor]]
    """The ``state_dict``, from the config, the stored tensors, our own tensors' names and shapes, and the file."""


_ENCODER_DECODER = Foreign(FAMILIES["tickwise-encoder-decoder"], encoder_decoder_config, encoder_decoder_state)

FOREIGN: Mapping[str, Foreign] = {"t5": _ENCODER_DECODER, "bart": _ENCODER_DECODER, "marian": _ENCODER_DECODER,
                               BERT: Foreign(ENCODER, bert_config, bert_state)}
