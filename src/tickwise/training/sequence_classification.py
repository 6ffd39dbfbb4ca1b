"""Training recurrent classifiers: batches of texts of like length, words read as unknown now and then, class weights.

Shape legend: B texts, T words, F features of a word, L characters of a word, C classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.data.tag_features import UNKNOWN, EncodedSentence
from tickwise.training.class_objective import ClassObjective
from tickwise.training.objective import Batch
from tickwise.training.tagging_objective import batches_by_length

_POOL_BATCHES = 16
"""Texts are sorted by length within this many batches: little padding, and other batches in each epoch."""
_PREDICTED_TOKENS = 8192
_TEMPERATURES = np.geomspace(0.5, 8, 25)


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
                         example_weights=example_weights)
        self._texts, self._validation, self._word_dropout = texts, validation, word_dropout
        self._lengths = np.array([len(text) for text in texts])

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else sum(map(len, self._validation[0]))

    def _shuffled(self, number: int) -> Sequence[NDArray[np.int64]]:
        chooser = np.random.default_rng((self._seed, number))
        order = chooser.permutation(len(self._texts))[: self.steps_per_epoch * self._batch_size]
        batches = []
        for start in range(0, len(order), _POOL_BATCHES * self._batch_size):
            pool = order[start : start + _POOL_BATCHES * self._batch_size]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            batches += np.split(pool, len(pool) // self._batch_size)
        return [batches[i] for i in chooser.permutation(len(batches))]

    def _batch(self, texts: NDArray[np.int64], step: int | None) -> Batch:
        features, characters, lengths = collate_texts([self._texts[i] for i in texts])
        if self._word_dropout and step is not None:
            draws = self._draws(step).random(features.shape[:2], dtype=np.float32)
            dropped = torch.from_numpy(draws < self._word_dropout)
            dropped &= features[..., 0] > 0
            features[dropped] = UNKNOWN
            characters[dropped] = 0
        index = torch.from_numpy(texts)
        return Batch((features, characters, lengths, self._classes[index], self._weights[index]), int(lengths.sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        parts = zip(*(x.chunk(n) for x in batch.inputs), strict=True)
        return [Batch(tuple(part), int(part[2].sum())) for part in parts]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features, characters, lengths, classes, importance = inputs
        return self._mean_loss(module(features, characters, lengths), classes, importance), ()

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Accuracy, and the cross-entropy at the best temperature: the model will be calibrated, and a recurrent one
        grows sure of itself long before it stops improving. On the whole validation part (``max_tokens`` is for longer
        ones)."""
        assert self._validation is not None
        texts, classes = self._validation
        logits = classify_sequences(module, texts, device)
        return {"loss": min(F.cross_entropy(logits / t, classes).item() for t in _TEMPERATURES),
                "accuracy": (logits.argmax(1) == classes).float().mean().item()}


@torch.no_grad()
def classify_sequences(module: nn.Module, texts: Sequence[EncodedSentence], device: torch.device) -> Tensor:
    """Logits (B, C) on the CPU, texts of like length together."""
    if not texts:
        return torch.empty(0, 0)
    was_training = module.training
    module.eval()
    order, parts = [], []
    for batch in batches_by_length([len(text) for text in texts], _PREDICTED_TOKENS):
        inputs = collate_texts([texts[i] for i in batch])
        parts.append(module(*(x.to(device) for x in inputs)).float().cpu())
        order += batch
    module.train(was_training)
    logits = torch.cat(parts)
    return torch.empty_like(logits).index_copy_(0, torch.tensor(order), logits)
