"""The next token, with the state carried from batch to batch (truncated backpropagation through time).

Shape legend: B streams, T tokens, H features of the last layer, N positions, C embedding width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tickwise.core.errors import CheckpointError
from tickwise.core.stages import Stage, mark
from tickwise.data.streams import StreamCursor
from tickwise.layers.recurrent import State
from tickwise.models.recurrent import Recurrent, stream_losses
from tickwise.training.objective import Batch

_VALIDATION_STREAMS = 32


@dataclass(frozen=True, kw_only=True)
class RecurrentPenalties:
    """Terms that only the training loss has (Merity et al. 2017, "Revisiting activation regularization")."""

    activation: float = 0.0
    """Times the mean square of the last layer's outputs, as dropout left them."""
    slowness: float = 0.0
    """Times the mean square of the change of the last layer's outputs from one step to the next."""
    label_smoothing: float = 0.0


class RecurrentObjective:
    """Mean cross-entropy of the next token; the state goes from one batch to the next, the gradient does not."""

    def __init__(
        self, tokens: np.ndarray, validation: np.ndarray | None, *, vocab_size: int, batch_size: int, context: int,
        seed: int, penalties: RecurrentPenalties | None = None,
    ) -> None:
        self.cursor = StreamCursor(tokens, batch_size=batch_size, context=context, seed=seed, vocab_size=vocab_size)
        self.validation = validation
        self.penalties = RecurrentPenalties() if penalties is None else penalties
        self._carried: list[State] = []

    fixed_shapes = True

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self.validation is None else max(0, len(self.validation) - 1)

    @property
    def epochs_done(self) -> float:
        return self.cursor.epochs_done

    def next_batch(self) -> Batch:
        """Inputs (B, T), targets (B, T) and, but for the first batch of an epoch, the carried state."""
        state: State = () if self.cursor.begins_epoch else self._state()
        inputs_BT, targets_BT = self.cursor.next_batch()
        return Batch((inputs_BT, targets_BT, *state), targets_BT.numel())

    def example(self) -> Batch:
        ids_BT = torch.zeros(self.cursor.batch_size, self.cursor.context, dtype=torch.long)
        return Batch((ids_BT, ids_BT), ids_BT.numel())

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """Along the streams."""
        parts = zip(*(tensor.chunk(n) for tensor in batch.inputs), strict=True)
        return [Batch(part, part[1].numel(), weight=part[1].numel()) for part in parts]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, State]:
        assert isinstance(module, Recurrent)
        ids_BT, targets_BT, *state = inputs
        outputs_BTH, after = module.layer_outputs(ids_BT, tuple(state) or None)
        dropped_BTH = module.dropped(outputs_BTH)
        hidden_BTC = module.head_input(dropped_BTH)
        # Time first, as the layers left it: no copy.
        hidden_NC, targets_N = hidden_BTC.transpose(0, 1).flatten(0, 1), targets_BT.t().flatten()
        penalties = self.penalties
        loss = module.loss(hidden_NC, targets_N, penalties.label_smoothing)
        mark(Stage.LOSS)
        if penalties.activation and module.training:
            loss = loss + penalties.activation * dropped_BTH.float().square().mean()
        if penalties.slowness and module.training and ids_BT.shape[1] > 1:
            loss = loss + penalties.slowness * outputs_BTH.diff(dim=1).float().square().mean()
        return loss, after

    def carry(self, state: State, micro: int) -> None:
        self._carried[micro:] = [tuple(part.detach() for part in state)]

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Mean nats of the validation text's tokens, in their order and with the state carried on; of more than
        ``max_tokens``, of that many in pieces spread over the text."""
        assert isinstance(module, Recurrent)
        assert self.validation is not None
        module.eval()
        n_streams = min(_VALIDATION_STREAMS, max(1, len(self.validation) // 256))
        losses = stream_losses(module, self.validation, n_streams, max_tokens)
        module.train()
        return {"loss": losses.double().mean().item()}

    def state(self) -> dict[str, Any]:
        return self.cursor.state()

    def state_tensors(self) -> dict[str, Tensor]:
        return {f"carried.{index}": part for index, part in enumerate(self._state())}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.cursor.restore(dict(state))
        carried = [tensors[f"carried.{index}"] for index in range(len(tensors)) if f"carried.{index}" in tensors]
        if not self.cursor.begins_epoch and not carried:
            raise CheckpointError("the checkpoint lacks the recurrent state; start a new --out")
        self._carried = [tuple(carried)] if carried else []

    def _state(self) -> State:
        """What all micro-batches carried, side by side."""
        return tuple(torch.cat(parts) for parts in zip(*self._carried, strict=True))
