"""Training recurrent classifiers: batches of texts of like length, words read as unknown now and then, class weights.

Shape legend: B texts, T words, F features of a word, L characters of a word, C classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.data.tag_features import UNKNOWN, EncodedSentence
from tickwise.training.class_objective import ClassObjective, calibrated_figures
from tickwise.training.objective import Batch
from tickwise.training.shuffled_passes import outputs_by_length


def collate_texts(texts: Sequence[EncodedSentence]) -> tuple[Tensor, Tensor, Tensor]:
    """Feature ids (B, T, F), character ids (B, T, L) and lengths (B), zeros behind each end."""
    longest = max(map(len, texts))
    features = np.zeros((len(texts), longest, texts[0].features.shape[1]), dtype=np.int64)
    characters = np.zeros((len(texts), longest, max(t.characters.shape[1] for t in texts)), dtype=np.int64)
    for row, text in enumerate(texts):
        features[row, : len(text)] = text.features
        characters[row, : len(text), : text.characters.shape[1]] = text.characters
    return (torch.from_numpy(features), torch.from_numpy(characters),
            torch.tensor([len(text) for text in texts], dtype=torch.long))


class SequenceClassification(ClassObjective):
    """Cross-entropy of each text's class, from its words in their order; batches are of texts of like length.
    ``word_dropout`` is the chance that a word is read as unknown."""

    def __init__(self, texts: Sequence[EncodedSentence], classes: Tensor,
                 validation: tuple[Sequence[EncodedSentence], Tensor] | None, *, batch_size: int, seed: int,
                 word_dropout: float = 0.0, label_smoothing: float = 0.0,
                 example_weights: Tensor | None = None) -> None:
        assert len(texts) == len(classes)
        super().__init__(classes, batch_size=batch_size, seed=seed, label_smoothing=label_smoothing,
                         example_weights=example_weights, lengths=[len(text) for text in texts])
        self._texts, self._validation, self._word_dropout = texts, validation, word_dropout

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else sum(map(len, self._validation[0]))

    def _batch(self, chosen: NDArray[np.int64], step: int | None) -> Batch:
        features, characters, lengths = collate_texts([self._texts[i] for i in chosen])
        if self._word_dropout and step is not None:
            draws = self._draws(step).random(features.shape[:2], dtype=np.float32)
            dropped = torch.from_numpy(draws < self._word_dropout)
            dropped &= features[..., 0] > 0
            features[dropped] = UNKNOWN
            characters[dropped] = 0
        index = torch.from_numpy(chosen)
        return Batch((features, characters, lengths, self._classes[index], self._weights[index]), int(lengths.sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        parts = zip(*(x.chunk(n) for x in batch.inputs), strict=True)
        return [Batch(tuple(part), int(part[2].sum()), weight=float(part[4].sum())) for part in parts]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features, characters, lengths, classes, importance = inputs
        return self._mean_loss(module(features, characters, lengths), classes, importance), ()

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Accuracy, and the cross-entropy at the best temperature, on the whole validation part (``max_tokens`` is for
        longer ones)."""
        assert self._validation is not None
        texts, classes = self._validation
        return calibrated_figures(classify_sequences(module, texts, device), classes)


def classify_sequences(module: nn.Module, texts: Sequence[EncodedSentence], device: torch.device) -> Tensor:
    """Logits (B, C) on the CPU."""
    return outputs_by_length(module, [len(text) for text in texts],
                             lambda batch: collate_texts([texts[i] for i in batch]), device)
