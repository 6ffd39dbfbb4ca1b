"""Fine-tuning an encoder for classes of texts: batches of texts of like length, words masked now and then.

Shape legend: B texts, T tokens, C classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.data.encoder_inputs import Marks, padded
from tickwise.training.class_objective import ClassObjective
from tickwise.training.objective import Batch
from tickwise.training.tagging_objective import batches_by_length

_POOL_BATCHES = 16
"""Texts are sorted by length within this many batches: little padding, and other batches in each epoch."""
_PREDICTED_TOKENS = 8192
_TEMPERATURES = np.geomspace(0.5, 8, 25)
Rows = Sequence[NDArray[np.int64]]


class EncoderClassification(ClassObjective):
    """Cross-entropy of each text's class. ``word_dropout`` is the chance that a token is read as the mask."""

    def __init__(self, texts: Rows, classes: Tensor, validation: tuple[Rows, Tensor] | None, marks: Marks, *,
                 batch_size: int, seed: int, word_dropout: float = 0.0, label_smoothing: float = 0.0,
                 example_weights: Tensor | None = None) -> None:
        assert len(texts) == len(classes)
        super().__init__(classes, batch_size=batch_size, seed=seed, label_smoothing=label_smoothing,
                         example_weights=example_weights)
        self._texts, self._validation, self._marks, self._word_dropout = texts, validation, marks, word_dropout
        self._lengths = np.array([len(text) for text in texts])

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else sum(map(len, self._validation[0]))

    def _shuffled(self, number: int) -> Sequence[NDArray[np.int64]]:
        chooser = np.random.default_rng((self._seed, number))
        order = chooser.permutation(len(self._texts))[: self.steps_per_epoch * self._batch_size]
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), _POOL_BATCHES * self._batch_size):
            pool = order[start : start + _POOL_BATCHES * self._batch_size]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            batches += np.split(pool, len(pool) // self._batch_size)
        return [batches[i] for i in chooser.permutation(len(batches))]

    def _batch(self, texts: NDArray[np.int64], step: int | None) -> Batch:
        ids_BT, lengths_B = padded([self._texts[i] for i in texts], self._marks.pad)
        if self._word_dropout and step is not None:
            dropped = torch.from_numpy(self._draws(step).random(ids_BT.shape, dtype=np.float32) < self._word_dropout)
            dropped[:, 0] = False
            ids_BT[dropped & (torch.arange(ids_BT.shape[1]) < lengths_B[:, None] - 1)] = self._marks.mask
        index = torch.from_numpy(texts)
        return Batch((ids_BT, lengths_B, self._classes[index], self._weights[index]), int(lengths_B.sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        parts = zip(*(x.chunk(n) for x in batch.inputs), strict=True)
        return [Batch(tuple(part), int(part[1].sum())) for part in parts]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        ids_BT, lengths_B, classes_B, importance_B = inputs
        return self._mean_loss(module(ids_BT, lengths_B).float(), classes_B, importance_B), ()

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Accuracy, and the cross-entropy at the best temperature, for the model will be calibrated; on the whole
        validation part (``max_tokens`` is for longer ones)."""
        assert self._validation is not None
        texts, classes = self._validation
        logits = classify_encoded(module, texts, self._marks, device)
        return {"loss": min(F.cross_entropy(logits / t, classes).item() for t in _TEMPERATURES),
                "accuracy": (logits.argmax(1) == classes).float().mean().item()}


@torch.no_grad()
def classify_encoded(module: nn.Module, texts: Rows, marks: Marks, device: torch.device) -> Tensor:
    """The module's output for each text, on the CPU, texts of like length together."""
    if not texts:
        return torch.empty(0, 0)
    was_training = module.training
    module.eval()
    order, parts = [], []
    for batch in batches_by_length([len(text) for text in texts], _PREDICTED_TOKENS):
        ids_BT, lengths_B = padded([texts[i] for i in batch], marks.pad)
        parts.append(module(ids_BT.to(device), lengths_B.to(device)).float().cpu())
        order += batch
    module.train(was_training)
    out = torch.cat(parts)
    return torch.empty_like(out).index_copy_(0, torch.tensor(order), out)
