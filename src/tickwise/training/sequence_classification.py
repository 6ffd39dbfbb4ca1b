"""Training recurrent classifiers: batches of texts of like length, words read as unknown now and then, class weights.

Shape legend: B texts, T words, F features of a word, L characters of a word, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.errors import CheckpointError
from tickwise.core.stages import Stage, mark
from tickwise.data.tag_features import UNKNOWN, EncodedSentence
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


class SequenceClassification:
    """Cross-entropy of each text's class. ``word_dropout`` is the chance that a word is read as unknown;
    ``example_weights`` (B,) make some texts count for more. Everything random follows from ``seed`` and the number of
    batches so far."""

    def __init__(self, texts: Sequence[EncodedSentence], classes: Tensor,
                 validation: tuple[Sequence[EncodedSentence], Tensor] | None, *, batch_size: int, seed: int,
                 word_dropout: float = 0.0, label_smoothing: float = 0.0,
                 example_weights: Tensor | None = None) -> None:
        assert len(texts) == len(classes)
        self._texts, self._classes, self._validation = texts, classes, validation
        self._batch_size = min(batch_size, len(texts))
        self._seed, self._word_dropout, self._label_smoothing = seed, word_dropout, label_smoothing
        self._weights = torch.ones(len(texts)) if example_weights is None else example_weights
        self._lengths = np.array([len(text) for text in texts])
        self._step = 0
        self._pass = -1
        self._batches: list[np.ndarray[Any, np.dtype[np.int64]]] = []

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self._texts) // self._batch_size)

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else sum(map(len, self._validation[0]))

    @property
    def epochs_done(self) -> float:
        return self._step / self.steps_per_epoch

    @property
    def fixed_shapes(self) -> bool:
        return False

    def next_batch(self) -> Batch:
        number, place = divmod(self._step, self.steps_per_epoch)
        if number != self._pass:
            self._pass, self._batches = number, self._shuffled(number)
        batch = self._batch(self._batches[place], np.random.default_rng((self._seed, 1 << 32, self._step)))
        self._step += 1
        return batch

    def example(self) -> Batch:
        return self._batch(self._shuffled(0)[0], None)

    def _shuffled(self, number: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        """The batches of one pass, each of texts of like length."""
        chooser = np.random.default_rng((self._seed, number))
        order = chooser.permutation(len(self._texts))[: self.steps_per_epoch * self._batch_size]
        batches = []
        for start in range(0, len(order), _POOL_BATCHES * self._batch_size):
            pool = order[start : start + _POOL_BATCHES * self._batch_size]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            batches += np.split(pool, len(pool) // self._batch_size)
        return [batches[i] for i in chooser.permutation(len(batches))]

    def _batch(self, chosen: np.ndarray[Any, np.dtype[np.int64]], draws: np.random.Generator | None) -> Batch:
        features, characters, lengths = collate_texts([self._texts[i] for i in chosen])
        if self._word_dropout and draws is not None:
            dropped = torch.from_numpy(draws.random(features.shape[:2], dtype=np.float32) < self._word_dropout)
            dropped &= features[..., 0] > 0
            features[dropped] = UNKNOWN
            characters[dropped] = 0
        index = torch.from_numpy(chosen)
        return Batch((features, characters, lengths, self._classes[index], self._weights[index]), int(lengths.sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        parts = zip(*(x.chunk(n) for x in batch.inputs), strict=True)
        return [Batch(tuple(part), int(part[2].sum())) for part in parts]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features, characters, lengths, classes, importance = inputs
        logits_BC = module(features, characters, lengths)
        mark(Stage.LOSS)
        losses = F.cross_entropy(logits_BC, classes, reduction="none", label_smoothing=self._label_smoothing)
        return (losses * importance).sum() / importance.sum(), ()

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:
        """Texts are independent."""

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Accuracy, and the cross-entropy at the best temperature: the model will be calibrated, and a recurrent one
        grows sure of itself long before it stops improving. On the whole validation part (``max_tokens`` is for longer
        ones)."""
        assert self._validation is not None
        texts, classes = self._validation
        logits = classify_sequences(module, texts, device)
        return {"loss": min(F.cross_entropy(logits / t, classes).item() for t in _TEMPERATURES),
                "accuracy": (logits.argmax(1) == classes).float().mean().item()}

    def state(self) -> dict[str, Any]:
        return {"step": self._step, "seed": self._seed, "texts": len(self._texts), "batch_size": self._batch_size}

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        own = self.state()
        for name in ("seed", "texts", "batch_size"):
            if state.get(name) != own[name]:
                raise CheckpointError(f"{name.replace('_', ' ')} was {state.get(name)}, this run has {own[name]}; give "
                                      "the same, or a new --out")
        self._step = int(state["step"])


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
