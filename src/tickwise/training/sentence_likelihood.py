"""Maximum likelihood of sentences, each read from its beginning: what a generator of sentences starts from.

Shape legend: B sentences, T tokens of the longest one.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.stages import Stage, mark
from tickwise.data.sentences import Sentences
from tickwise.models.lockstep import shifted
from tickwise.models.recurrent import Recurrent
from tickwise.training.objective import Batch
from tickwise.training.sentence_objective import SentenceObjective, spread_batches


def sentence_loss(module: Recurrent, ids_BT: Tensor, inside_BT: Tensor, first_id: int) -> Tensor:
    """Mean cross-entropy (nats) of the tokens ``inside_BT``, where the sentences are read behind ``first_id``."""
    hidden_BTC, _ = module.read(shifted(ids_BT, first_id))
    inside_TB = inside_BT.t()  # time first, as the layers left it
    return module.loss(hidden_BTC.transpose(0, 1)[inside_TB], ids_BT.t()[inside_TB])


class SentenceLikelihood(SentenceObjective):
    """Mean cross-entropy of the words of sentences and of their ends, in nats per token."""

    def next_batch(self) -> Batch:
        return self._batch(self.batches.next_batch())

    def example(self) -> Batch:
        return self._batch(np.arange(self.batches.batch_size))

    def _batch(self, indices: np.ndarray) -> Batch:
        ids_BT, lengths_B = self.batches.sentences.padded(indices)
        return Batch((ids_BT, lengths_B), int(lengths_B.sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        return [Batch((ids, lengths), int(lengths.sum()), weight=float(lengths.sum()))
                for ids, lengths in zip(*(tensor.chunk(n) for tensor in batch.inputs), strict=True)]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert isinstance(module, Recurrent)
        ids_BT, lengths_B = inputs
        inside_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < lengths_B[:, None]
        loss = sentence_loss(module, ids_BT, inside_BT, self.batches.sentences.eos_id)
        mark(Stage.LOSS)
        return loss, ()

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        assert isinstance(module, Recurrent)
        assert self._validation is not None
        was_training = module.training
        module.eval()
        loss = mean_nats(module, self._validation, device, max_tokens)
        module.train(was_training)
        return {"loss": loss}


@torch.no_grad()
def mean_nats(module: Recurrent, sentences: Sentences, device: torch.device, max_tokens: int | None = None) -> float:
    """Nats per token, ends of sentences counted; with ``max_tokens`` of sentences spread over all of them."""
    total, n_tokens = 0.0, 0
    for indices in spread_batches(sentences, max_tokens):
        ids_BT, lengths_B = (tensor.to(device) for tensor in sentences.padded(indices))
        inside_BT = torch.arange(ids_BT.shape[1], device=device) < lengths_B[:, None]
        hidden_BTC, _ = module.read(shifted(ids_BT, sentences.eos_id))
        logits_NV = module.logits(hidden_BTC[inside_BT]).float()
        total += F.cross_entropy(logits_NV, ids_BT[inside_BT], reduction="sum").item()
        n_tokens += int(lengths_B.sum())
    return total / n_tokens
