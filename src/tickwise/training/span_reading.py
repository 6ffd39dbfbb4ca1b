"""Training a span reader: where answers begin and end, windows of like length together; F1 on the development part.

Shape legend: B windows, T tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tickwise.core.errors import CheckpointError
from tickwise.core.stages import Stage, mark
from tickwise.data.span_windows import Window
from tickwise.models.encoder_heads import SpanReader
from tickwise.training.objective import Batch
from tickwise.training.tagging_objective import batches_by_length

_POOL_BATCHES = 16
_PREDICTED_TOKENS = 8192


@dataclass(frozen=True)
class FoundSpan:
    """The best span of a question's passage by its characters, and by how much its score is above that of "none" in
    the same window (the logarithm of how much likelier it is)."""

    start: int
    end: int
    margin: float


def collate_windows(windows: Sequence[Window], pad: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids (B, T), lengths (B), segments (B, T) and targets (B, 2, T), padded on the right."""
    longest = max(map(len, windows))
    ids = np.full((len(windows), longest), pad, dtype=np.int64)
    segments = np.zeros((len(windows), longest), dtype=np.int64)
    targets = np.zeros((len(windows), 2, longest), dtype=np.bool_)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = window.ids
        segments[row, : len(window)] = window.segments
        targets[row, :, : len(window)] = window.targets
    return (torch.from_numpy(ids), torch.tensor([len(w) for w in windows]), torch.from_numpy(segments),
            torch.from_numpy(targets))


def span_loss(scores_B2T: Tensor, targets_B2T: Tensor) -> Tensor:
    """Mean nats of beginning and end; where several places are right, of any of them (Clark & Gardner 2018)."""
    right_B2T = scores_B2T.masked_fill(~targets_B2T, -torch.inf)
    return (scores_B2T.logsumexp(-1) - right_B2T.logsumexp(-1)).mean()


class SpanReading:
    """The ``Objective`` of a span reader, over shuffled passes through the windows. Everything random follows from
    ``seed`` and the number of batches so far."""

    fixed_shapes = False

    def __init__(self, windows: Sequence[Window], validation: Sequence[Window],
                 answers: Sequence[Sequence[tuple[int, int]]], *, pad: int, batch_size: int, seed: int) -> None:
        """``answers`` are the places of the validation questions' answers, which their windows name by number."""
        self._windows, self._validation, self._answers, self._pad = windows, validation, answers, pad
        self._batch_size, self._seed = min(batch_size, len(windows)), seed
        self._lengths = np.array([len(window) for window in windows])
        self._step, self._pass = 0, -1
        self._batches: list[np.ndarray] = []

    @property
    def n_validation_tokens(self) -> int:
        return sum(map(len, self._validation))

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self._windows) // self._batch_size)

    @property
    def epochs_done(self) -> float:
        return self._step / self.steps_per_epoch

    def _shuffled(self, number: int) -> list[np.ndarray]:
        chooser = np.random.default_rng((self._seed, number))
        order = chooser.permutation(len(self._windows))[: self.steps_per_epoch * self._batch_size]
        batches: list[np.ndarray] = []
        for start in range(0, len(order), _POOL_BATCHES * self._batch_size):
            pool = order[start : start + _POOL_BATCHES * self._batch_size]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            batches += np.split(pool, len(pool) // self._batch_size)
        return [batches[i] for i in chooser.permutation(len(batches))]

    def _batch(self, chosen: np.ndarray) -> Batch:
        inputs = collate_windows([self._windows[i] for i in chosen], self._pad)
        return Batch(inputs, int(inputs[1].sum()))

    def next_batch(self) -> Batch:
        number, place = divmod(self._step, self.steps_per_epoch)
        if number != self._pass:
            self._pass, self._batches = number, self._shuffled(number)
        self._step += 1
        return self._batch(self._batches[place])

    def example(self) -> Batch:
        return self._batch(self._shuffled(0)[0])

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        parts = zip(*(x.chunk(n) for x in batch.inputs), strict=True)
        return [Batch(tuple(part), int(part[1].sum())) for part in parts]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        ids_BT, lengths_B, segments_BT, targets_B2T = inputs
        scores_B2T = module(ids_BT, lengths_B, segments_BT)
        mark(Stage.LOSS)
        return span_loss(scores_B2T, targets_B2T), ()

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:
        """Windows are independent."""

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """``loss`` is 1 − F1 by characters, over the questions that have an answer, each made to give one."""
        assert isinstance(module, SpanReader)
        found = find_spans(module, self._validation, len(self._answers), self._pad, device)
        scores = [max(_overlap_f1((span.start, span.end), answer) for answer in answers)
                  for span, answers in zip(found, self._answers, strict=True) if answers]
        f1 = float(np.mean(scores)) if scores else 0.0
        return {"loss": 1.0 - f1, "f1": f1}

    def state(self) -> dict[str, Any]:
        return {"step": self._step, "seed": self._seed, "windows": len(self._windows), "batch_size": self._batch_size}

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        own = self.state()
        for name in ("seed", "windows", "batch_size"):
            if state.get(name) != own[name]:
                raise CheckpointError(f"{name.replace('_', ' ')} was {state.get(name)}, this run has {own[name]}; give "
                                      "the same, or a new --out")
        self._step = int(state["step"])


def _overlap_f1(found: tuple[int, int], gold: tuple[int, int]) -> float:
    """Harmonic mean of precision and recall of characters."""
    shared = min(found[1], gold[1]) - max(found[0], gold[0])
    return 2 * shared / (found[1] - found[0] + gold[1] - gold[0]) if shared > 0 else 0.0


@torch.no_grad()
def find_spans(module: SpanReader, windows: Sequence[Window], n_questions: int, pad: int,
               device: torch.device) -> list[FoundSpan]:
    """The best span of each question over all of its windows: the highest margin over "none" in its window. A passage
    without a token gives the empty span with a margin of -inf."""
    best = [FoundSpan(0, 0, -float("inf"))] * n_questions
    was_training = module.training
    module.eval()
    for batch in batches_by_length([len(window) for window in windows], _PREDICTED_TOKENS):
        chosen = [windows[i] for i in batch]
        ids_BT, lengths_B, segments_BT, _ = collate_windows(chosen, pad)
        scores_B2T = module(ids_BT.to(device), lengths_B.to(device), segments_BT.to(device)).cpu()
        for window, scores_2T in zip(chosen, scores_B2T, strict=True):
            found = _best_span(scores_2T[:, : len(window)], window, module.config.longest_answer)
            if found is not None and found.margin > best[window.question].margin:
                best[window.question] = found
    module.train(was_training)
    return best


def _best_span(scores_2T: Tensor, window: Window, longest: int) -> FoundSpan | None:
    """The span of at most ``longest`` tokens with the highest sum of scores; None in a window without a passage."""
    own = np.flatnonzero(window.places[:, 1] > window.places[:, 0])
    if not len(own):
        return None
    first, last = int(own[0]), int(own[-1]) + 1
    starts, ends = scores_2T[0, first:last], scores_2T[1, first:last]
    n = last - first
    sums = (starts[:, None] + ends[None]).masked_fill(
        ~torch.ones(n, n, dtype=torch.bool).triu().tril(longest - 1), -torch.inf)
    start, end = divmod(int(sums.argmax()), n)
    margin = float(sums[start, end] - scores_2T[0, 0] - scores_2T[1, 0])
    return FoundSpan(int(window.places[first + start, 0]), int(window.places[first + end, 1]), margin)
