"""Fine-tuning a decoder on conversations: what the assistant says, from everything before it.

Conversations are padded, batch by batch with others of like length; none sees another's tokens.
Shape legend: B conversations, T tokens of the longest less one, N tokens that the assistant wrote.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.core.stages import Stage, mark
from tickwise.data.chats import EncodedChats
from tickwise.layers.loss import LARGE_VOCABULARY, head_and_loss
from tickwise.models.decoder import Decoder
from tickwise.training.objective import Batch
from tickwise.training.shuffled_passes import ShuffledPasses, batches_by_length

_OTHERS = -100
"""The label of what the assistant did not write."""


class ChatTurns(ShuffledPasses):
    """The ``Objective`` of a decoder on conversations; a batch counts for the tokens that the assistant wrote."""

    unit = "conversations"

    def __init__(self, training: EncodedChats, validation: EncodedChats | None, *, batch_size: int, seed: int) -> None:
        super().__init__(len(training), batch_size=batch_size, seed=seed, lengths=[len(ids) for ids in training.ids])
        self._training, self._validation = training, validation

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else self._validation.n_own

    def _batch(self, chosen: NDArray[np.int64], step: int | None) -> Batch:
        ids_BT, labels_BT = collate(self._training, chosen)
        return Batch((ids_BT, labels_BT, torch.ones(())), int((labels_BT != _OTHERS).sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """The last input of each part is what its mean counts for, so that their mean is that of the whole batch."""
        ids_BT, labels_BT, _ = batch.inputs
        parts = list(zip(ids_BT.chunk(n), labels_BT.chunk(n), strict=True))
        counts = [int((labels != _OTHERS).sum()) for _, labels in parts]
        return [Batch((ids, labels, torch.tensor(len(parts) * count / batch.n_tokens)), count)
                for (ids, labels), count in zip(parts, counts, strict=True)]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Mean nats of the assistant's tokens."""
        assert isinstance(module, Decoder)
        ids_BT, labels_BT, weight = inputs
        return chat_loss(module, ids_BT, labels_BT) * weight, ()

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        assert isinstance(module, Decoder)
        assert self._validation is not None
        return {"loss": mean_chat_loss(module, self._validation, device, max_tokens)}


def collate(chats: EncodedChats, chosen: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """(B, T) ids that are read, padded behind the end with what nobody looks at, and the next tokens, -100 where the
    assistant did not write them."""
    length = max(len(chats.ids[i]) for i in chosen) - 1
    ids_BT, labels_BT = np.zeros((len(chosen), length), np.int64), np.full((len(chosen), length), _OTHERS, np.int64)
    for row, i in enumerate(chosen):
        ids, own = chats.ids[i], chats.own[i]
        ids_BT[row, : len(ids) - 1] = ids[:-1]
        labels_BT[row, : len(ids) - 1] = np.where(own[1:], ids[1:], _OTHERS)
    return torch.from_numpy(ids_BT), torch.from_numpy(labels_BT)


def chat_loss(module: Decoder, ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
    """Mean cross-entropy (nats, float32) of the labels; the head computes nothing for other places."""
    places_N = (labels_BT.flatten() != _OTHERS).nonzero().squeeze(1)
    hidden_NC = module.hidden_states(ids_BT).flatten(0, 1).index_select(0, places_N)
    labels_N = labels_BT.flatten().index_select(0, places_N)
    if module.config.logit_soft_cap is None and module.config.vocab_size >= LARGE_VOCABULARY:
        mark(Stage.HEAD)
        return head_and_loss(hidden_NC, module.lm_head.weight, labels_N)
    logits_NV = module.logits(hidden_NC[None])[0].float()
    mark(Stage.LOSS)
    return F.cross_entropy(logits_NV, labels_N)


@torch.no_grad()
def mean_chat_loss(module: Decoder, chats: EncodedChats, device: torch.device, max_tokens: int | None = None) -> float:
    """Nats per token of the assistant, over a part of about ``max_tokens`` that is always the same."""
    order = np.random.default_rng(0).permutation(len(chats))
    if max_tokens is not None:
        counted = np.cumsum([int(chats.own[i].sum()) for i in order])
        order = order[: max(1, int(np.searchsorted(counted, max_tokens, side="right")))]
    total, count = 0.0, 0
    for batch in batches_by_length([len(chats.ids[i]) for i in order]):
        ids_BT, labels_BT = (x.to(device) for x in collate(chats, order[batch]))
        n = int((labels_BT != _OTHERS).sum())
        total += chat_loss(module, ids_BT, labels_BT).item() * n
        count += n
    return total / count
