"""Training an encoder–decoder on pairs of texts: every target token from the source and the target tokens before it.

Shape legend: B pairs, S source tokens, T target tokens, P target tokens of all pairs, without padding.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.data.pair_batches import EncodedPairs, PairBatches, PairTensors, batches_by_length
from tickwise.layers.attention import SHORT_CONTEXT
from tickwise.layers.loss import LOSS_CHUNK
from tickwise.models.encoder_decoder import EncoderDecoder
from tickwise.training.objective import Batch, BatchWork

_VALIDATION_BATCH_TOKENS = 8192
_SAMPLES = 16
"""More than a batch has sizes (13, and one for what does not depend on any)."""


def pair_loss(module: EncoderDecoder, pairs: PairTensors, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy (nats, float32) of the targets' tokens. Padding is neither read nor predicted."""
    if module.config.copies:
        return module.copying_loss(*pairs, label_smoothing=label_smoothing)
    *texts, labels_P = pairs
    return module.loss(module.target_states(*texts), labels_P, label_smoothing)


def _batch(pairs: PairTensors) -> Batch:
    return Batch((*pairs, torch.ones(())), len(pairs.labels), _work(pairs))


def _work(pairs: PairTensors) -> BatchWork:
    """Of a batch: which paths its layers take, and what their operations are linear in."""
    (b, s), t, p = pairs.source.shape, pairs.target.shape[1], len(pairs.labels)
    n_source = int(pairs.source_lengths.sum())
    is_padded, many = n_source < b * s, p > LOSS_CHUNK
    kind = is_padded, s > SHORT_CONTEXT, t > SHORT_CONTEXT, many
    sizes = [b, s, t, p, b * s, b * t, s * s, t * t, b * s * s, b * t * t, b * s * t]
    if is_padded:
        sizes.append(n_source)
    if many:
        sizes.append(-(-p // LOSS_CHUNK))
    return BatchWork(b, kind, tuple(sizes))


def _random_pairs(kind: tuple[bool, ...], chooser: np.random.Generator, eos_id: int) -> PairTensors:
    """Small ones, perhaps of the kind."""
    is_padded, long_source, long_target, many = kind
    s, t = (int(chooser.integers(3, 12)) + (SHORT_CONTEXT if is_long else 0) for is_long in (long_source, long_target))
    b = int(chooser.integers(2, 6)) + (LOSS_CHUNK * int(chooser.integers(2, 4)) // t if many else 0)
    lengths = [torch.from_numpy(chooser.integers(2, n + 1, b)) for n in (s, t)]
    lengths[0][0], lengths[1][0] = s, t
    if not is_padded:
        lengths[0][:] = s
    return PairTensors(torch.full((b, s), eos_id), lengths[0], torch.full((b, t), eos_id), lengths[1],
                       torch.full((int(lengths[1].sum()),), eos_id))


class TextToTextObjective:
    """The loop's job for an encoder–decoder (``training/objective.py``): batches of pairs of like lengths.

    A batch counts for its target tokens. With label smoothing (Szegedy et al. 2016) the training loss differs from
    validation's, which is the plain cross-entropy.
    """

    fixed_shapes = False

    def __init__(self, training: EncodedPairs | Callable[[int], EncodedPairs], validation: EncodedPairs | None, *,
                 batch_tokens: int, label_smoothing: float, seed: int) -> None:
        self.batches = PairBatches(training, batch_tokens=batch_tokens, seed=seed)
        self.validation, self.label_smoothing = validation, label_smoothing

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self.validation is None else self.validation.n_target_tokens

    @property
    def epochs_done(self) -> float:
        return self.batches.epochs_done

    def _batch(self, indices: NDArray[np.int64]) -> Batch:
        return _batch(self.batches.pairs.collate(indices))

    def next_batch(self) -> Batch:
        return self._batch(self.batches.next_batch())

    def example(self) -> Batch:
        """A batch of the middling lengths."""
        pairs = self.batches.pairs
        middle = np.argsort(pairs.targets.lengths, kind="stable")[len(pairs) // 2]
        rows = max(1, self.batches.batch_tokens // (int(pairs.targets.lengths[middle]) + 1))
        return self._batch(np.full(rows, middle))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """Rows in ``n`` parts (or fewer, when there are fewer rows). The last input of each is what its mean counts
        for, so that their mean is that of the whole batch's tokens."""
        *texts, labels_P, _ = batch.inputs
        parts = list(zip(*(x.chunk(n) for x in texts), strict=True))
        counts = [int(target_lengths_B.sum()) for *_, target_lengths_B in parts]
        return [Batch((*part, labels, torch.tensor(len(parts) * count / len(labels_P))), count)
                for part, labels, count in zip(parts, labels_P.split(counts), counts, strict=True)]

    def samples(self, kind: tuple[bool, ...]) -> Sequence[Batch]:
        """Small batches of a kind (``_work``): random lengths of no particular words."""
        chooser = np.random.default_rng(0)
        found: list[Batch] = []
        while len(found) < _SAMPLES:
            batch = _batch(_random_pairs(kind, chooser, self.batches.pairs.targets.eos_id))
            assert batch.work is not None
            if batch.work.kind == kind:
                found.append(batch)
        return found

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert isinstance(module, EncoderDecoder)
        *pairs, weight = inputs
        return pair_loss(module, PairTensors(*pairs), self.label_smoothing) * weight, ()

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:
        """Nothing goes from one batch to the next."""

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Nats per target token, and the perplexity: e to their power."""
        assert isinstance(module, EncoderDecoder)
        assert self.validation is not None
        loss = mean_loss(module, self.validation, device, max_tokens)
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}

    def state(self) -> dict[str, Any]:
        return self.batches.state()

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.batches.restore(state)


@torch.no_grad()
def mean_loss(module: EncoderDecoder, pairs: EncodedPairs, device: torch.device,
              max_tokens: int | None = None) -> float:
    """Nats per target token over ``pairs``, or over a part of about ``max_tokens`` that is always the same."""
    order = np.random.default_rng(0).permutation(len(pairs))
    if max_tokens is not None:
        counted = np.cumsum(pairs.targets.lengths[order] + 1)
        order = order[: max(1, int(np.searchsorted(counted, max_tokens, side="right")))]
    sources, targets = (side.lengths[order] + 1 for side in (pairs.sources, pairs.targets))
    total, count = 0.0, 0
    for batch in batches_by_length(sources, targets, _VALIDATION_BATCH_TOKENS):
        tensors = PairTensors(*(x.to(device) for x in pairs.collate(order[batch])))
        total += pair_loss(module, tensors).item() * len(tensors.labels)
        count += len(tensors.labels)
    return total / count
