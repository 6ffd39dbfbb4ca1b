"""Training a sentence embedder: texts and their partners near each other, all others of the batch far.

Sources: van den Oord et al. 2018 (the loss), Gao et al. 2021 (SimCSE: a text's partner may be itself, read with other
dropout). Shape legend: B texts, T tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.data.encoder_inputs import Marks, mask_words, padded
from tickwise.models.encoder_heads import SentenceEmbedder, contrastive_loss, partner_scores
from tickwise.training.encoder_classification import Rows, encoded_outputs
from tickwise.training.objective import Batch
from tickwise.training.shuffled_passes import ShuffledPasses


def check_whole(n_parts: int) -> None:
    """``ConfigError`` where batches are to be taken apart."""
    if n_parts > 1:
        raise ConfigError("an embedder learns from whole batches, each text's partner being told from all others: "
                          "train it in one process, without micro-batches")


class Contrastive(ShuffledPasses):
    """The ``Objective`` of a sentence embedder. Text i of ``left`` belongs to text i of ``right``; where both are the
    same text, they are told apart by dropout and by ``word_dropout`` (the chance that a token is masked). Pairs that
    have a text in common are no wrong answers for each other. Validation needs partners that differ: a text alone is
    its own nearest one whatever the model is. Everything random but dropout follows from ``seed`` and the number of
    batches so far."""

    def __init__(self, left: Rows, right: Rows, validation: tuple[Rows, Rows] | None, marks: Marks, *, batch_size: int,
                 seed: int, word_dropout: float) -> None:
        assert len(left) == len(right)
        super().__init__(len(left), batch_size=batch_size, seed=seed)
        self._left, self._right, self._validation, self._marks = left, right, validation, marks
        self._word_dropout = word_dropout
        self._texts_N2 = _numbered(left, right)

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else sum(map(len, [*self._validation[0], *self._validation[1]]))

    def _batch(self, chosen: NDArray[np.int64], step: int | None) -> Batch:
        inputs: list[Tensor] = []
        draws = self._draws(step or 0)
        for rows in (self._left, self._right):
            ids_BT, lengths_B = padded([rows[i] for i in chosen], self._marks.pad)
            if self._word_dropout and step is not None:
                mask_words(ids_BT, lengths_B, self._marks, self._word_dropout, draws)
            inputs += [ids_BT, lengths_B]
        n_tokens = int(inputs[1].sum() + inputs[3].sum())
        return Batch((*inputs, self._texts_N2[torch.from_numpy(chosen)]), n_tokens)

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """``ConfigError`` for more than one part: each would tell its own texts apart only."""
        check_whole(n)
        return [batch]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert isinstance(module, SentenceEmbedder)
        left_ids, left_lengths, right_ids, right_lengths, texts_B2 = inputs
        left_BC, right_BC = module(left_ids, left_lengths), module(right_ids, right_lengths)
        mark(Stage.LOSS)
        return contrastive_loss(partner_scores(left_BC, right_BC, module.config.temperature, texts_B2)), ()

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """The loss among all development pairs at once, and how many left texts find their partner before any text of
        a pair that has none of theirs."""
        assert self._validation is not None
        assert isinstance(module, SentenceEmbedder)
        left_BC, right_BC = (encoded_outputs(module, rows, self._marks, device) for rows in self._validation)
        scores_BB = partner_scores(left_BC, right_BC, module.config.temperature, _numbered(*self._validation))
        found = scores_BB.argmax(1) == torch.arange(len(left_BC))
        return {"loss": contrastive_loss(scores_BB).item(), "recall": found.float().mean().item()}


def _numbered(left: Rows, right: Rows) -> Tensor:
    """(N, 2): the texts of each pair by number, the same for equal ones."""
    numbers: dict[bytes, int] = {}
    return torch.tensor([[numbers.setdefault(row.tobytes(), len(numbers)) for row in pair]
                         for pair in zip(left, right, strict=True)])
