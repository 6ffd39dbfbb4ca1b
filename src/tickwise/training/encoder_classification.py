"""Fine-tuning an encoder for classes of texts: batches of texts of like length, words masked now and then.

Shape legend: B texts, T tokens, C classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.data.encoder_inputs import Marks, mask_words, padded
from tickwise.training.class_objective import ClassObjective, calibrated_figures
from tickwise.training.objective import Batch
from tickwise.training.shuffled_passes import outputs_by_length

Rows = Sequence[NDArray[np.int64]]


class EncoderClassification(ClassObjective):
    """Cross-entropy of each text's class. ``word_dropout`` is the chance that a token is read as the mask."""

    def __init__(self, texts: Rows, classes: Tensor, validation: tuple[Rows, Tensor] | None, marks: Marks, *,
                 batch_size: int, seed: int, word_dropout: float = 0.0, label_smoothing: float = 0.0,
                 example_weights: Tensor | None = None) -> None:
        assert len(texts) == len(classes)
        super().__init__(classes, batch_size=batch_size, seed=seed, label_smoothing=label_smoothing,
                         example_weights=example_weights, lengths=[len(text) for text in texts])
        self._texts, self._validation, self._marks, self._word_dropout = texts, validation, marks, word_dropout

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else sum(map(len, self._validation[0]))

    def _batch(self, chosen: NDArray[np.int64], step: int | None) -> Batch:
        ids_BT, lengths_B = padded([self._texts[i] for i in chosen], self._marks.pad)
        if self._word_dropout and step is not None:
            mask_words(ids_BT, lengths_B, self._marks, self._word_dropout, self._draws(step))
        index = torch.from_numpy(chosen)
        return Batch((ids_BT, lengths_B, self._classes[index], self._weights[index]), int(lengths_B.sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        parts = zip(*(x.chunk(n) for x in batch.inputs), strict=True)
        return [Batch(tuple(part), int(part[1].sum()), weight=float(part[3].sum())) for part in parts]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        ids_BT, lengths_B, classes_B, importance_B = inputs
        return self._mean_loss(module(ids_BT, lengths_B).float(), classes_B, importance_B), ()

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Accuracy, and the cross-entropy at the best temperature, on the whole validation part (``max_tokens`` is for
        longer ones)."""
        assert self._validation is not None
        texts, classes = self._validation
        return calibrated_figures(encoded_outputs(module, texts, self._marks, device), classes)


def encoded_outputs(module: nn.Module, texts: Rows, marks: Marks, device: torch.device) -> Tensor:
    """The module's output for each text, on the CPU."""
    return outputs_by_length(module, [len(text) for text in texts],
                             lambda batch: padded([texts[i] for i in batch], marks.pad), device)
