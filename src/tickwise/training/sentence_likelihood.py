"""Maximum likelihood of sentences, each read from its beginning: what a generator of sentences starts from.

Shape legend: B sentences, T tokens of the longest one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.stages import Stage, mark
from tickwise.data.sentences import SentenceBatches, Sentences
from tickwise.models.recurrent import Recurrent
from tickwise.training.objective import Batch

_VALIDATED_AT_ONCE = 64


def shifted(ids_BT: Tensor, eos_id: int) -> Tensor:
    """What is read to write ``ids_BT``: the same moved on by one, behind the end token."""
    return F.pad(ids_BT[:, :-1], (1, 0), value=eos_id)


class SentenceLikelihood:
    """Mean cross-entropy of the words of sentences and of their ends, in nats per token."""

    fixed_shapes = False

    def __init__(self, sentences: Sentences, validation: Sentences | None, *, batch_size: int, seed: int) -> None:
        self.batches = SentenceBatches(sentences, batch_size=batch_size, seed=seed)
        self._validation = validation

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else int(self._validation.lengths.sum()) + len(self._validation)

    @property
    def epochs_done(self) -> float:
        return self.batches.epochs_done

    def next_batch(self) -> Batch:
        return self._batch(self.batches.next_batch())

    def example(self) -> Batch:
        return self._batch(np.arange(self.batches.batch_size))

    def _batch(self, indices: np.ndarray) -> Batch:
        ids_BT, lengths_B = self.batches.sentences.padded(indices)
        return Batch((ids_BT, lengths_B), int(lengths_B.sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        return [Batch((ids, lengths), int(lengths.sum()))
                for ids, lengths in zip(*(tensor.chunk(n) for tensor in batch.inputs), strict=True)]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert isinstance(module, Recurrent)
        ids_BT, lengths_B = inputs
        hidden_BTC, _ = module.read(shifted(ids_BT, self.batches.sentences.eos_id))
        inside_TB = torch.arange(ids_BT.shape[1], device=ids_BT.device)[:, None] < lengths_B
        loss = module.loss(hidden_BTC.transpose(0, 1)[inside_TB], ids_BT.t()[inside_TB])
        mark(Stage.LOSS)
        return loss, ()

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:
        """Sentences are independent."""

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        assert isinstance(module, Recurrent)
        assert self._validation is not None
        was_training = module.training
        module.eval()
        loss = mean_nats(module, self._validation, device, max_tokens)
        module.train(was_training)
        return {"loss": loss}

    def state(self) -> dict[str, Any]:
        return self.batches.state()

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.batches.restore(dict(state))


@torch.no_grad()
def mean_nats(module: Recurrent, sentences: Sentences, device: torch.device, max_tokens: int | None = None) -> float:
    """Nats per token, ends of sentences counted; with ``max_tokens`` of sentences spread over all of them."""
    n = len(sentences)
    if max_tokens is not None:
        n = max(1, min(n, int(n * max_tokens / (sentences.lengths.sum() + n))))
    chosen = np.linspace(0, len(sentences) - 1, n).astype(np.int64)
    chosen = chosen[np.argsort(sentences.lengths[chosen], kind="stable")]
    total, n_tokens = 0.0, 0
    for indices in np.array_split(chosen, range(_VALIDATED_AT_ONCE, n, _VALIDATED_AT_ONCE)):
        ids_BT, lengths_B = (tensor.to(device) for tensor in sentences.padded(indices))
        inside_BT = torch.arange(ids_BT.shape[1], device=device) < lengths_B[:, None]
        hidden_BTC, _ = module.read(shifted(ids_BT, sentences.eos_id))
        logits_NV = module.logits(hidden_BTC[inside_BT]).float()
        total += F.cross_entropy(logits_NV, ids_BT[inside_BT], reduction="sum").item()
        n_tokens += int(lengths_B.sum())
    return total / n_tokens
