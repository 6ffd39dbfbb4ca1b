"""The language model's job: every token from those before it, over windows of one stream.

Shape legend: B sequences, T tokens.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.stages import Stage, mark
from tickwise.data.batches import BatchCursor, evaluation_windows
from tickwise.layers.loss import LARGE_VOCABULARY, head_and_loss
from tickwise.models.decoder import Decoder
from tickwise.training.objective import Batch

if TYPE_CHECKING:
    import numpy

VALIDATION_BATCH_TOKENS = 8_192


def next_token_loss(module: Decoder, inputs_BT: Tensor, targets_BT: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy (nats) of the next token, in float32.

    Large vocabularies go through a head that never holds all logits at once.
    """
    hidden = module.hidden_states(inputs_BT).flatten(0, 1)
    targets = targets_BT.flatten()
    if module.config.logit_soft_cap is None and module.config.vocab_size >= LARGE_VOCABULARY:
        mark(Stage.HEAD)
        return head_and_loss(hidden, module.lm_head.weight, targets, label_smoothing)
    logits = module.logits(hidden).float()
    mark(Stage.LOSS)
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


class NextToken:
    """The ``Objective`` of a decoder: shuffled windows to learn from, windows in order to validate on."""

    fixed_shapes = True

    def __init__(self, cursor: BatchCursor, validation: "numpy.ndarray | None", label_smoothing: float = 0.0) -> None:
        """``validation`` is a token stream of its own, if there is one."""
        self._cursor, self._validation, self._label_smoothing = cursor, validation, label_smoothing

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else len(self._validation) - 1

    @property
    def epochs_done(self) -> float:
        return self._cursor.epochs_done

    def next_batch(self) -> Batch:
        inputs_BT, targets_BT = self._cursor.next_batch()
        return Batch((inputs_BT, targets_BT), inputs_BT.numel())

    def example(self) -> Batch:
        ids_BT = torch.zeros(self._cursor.batch_size, self._cursor.context, dtype=torch.long)
        return Batch((ids_BT, ids_BT), ids_BT.numel())

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """Windows in up to ``n`` parts; each weighs as many as it has."""
        pieces = zip(*(x.chunk(n) for x in batch.inputs), strict=True)
        return [Batch(inputs, inputs[0].numel(), weight=len(inputs[0])) for inputs in pieces]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        inputs_BT, targets_BT = inputs
        return next_token_loss(module, inputs_BT, targets_BT, self._label_smoothing), ()  # type: ignore[arg-type]

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:
        """Windows start from nothing."""

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Mean nats per token over non-overlapping windows."""
        assert self._validation is not None
        assert isinstance(module, Decoder)
        context = self._cursor.context
        windows = evaluation_windows(self._validation, context, max_tokens, vocab_size=module.config.vocab_size)
        total, count = 0.0, 0
        rows = validation_rows(context)
        for inputs_NT, targets_NT in windows:
            for inputs, targets in zip(inputs_NT.split(rows), targets_NT.split(rows), strict=True):
                loss = next_token_loss(module, inputs.to(device), targets.to(device))
                total += loss.item() * targets.numel()
                count += targets.numel()
        return {"loss": total / count}

    def state(self) -> dict[str, Any]:
        return self._cursor.state()

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self._cursor.restore(dict(state))


def validation_rows(context: int) -> int:
    """Windows of one validation batch."""
    return max(1, min(64, VALIDATION_BATCH_TOKENS // context))
