"""Training a span reader: where answers begin and end, windows of like length together; F1 on the development part.

Shape legend: B windows, T tokens.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.core.errors import NumericsError
from tickwise.core.stages import Stage, mark
from tickwise.data.span_windows import Window
from tickwise.data.spans import SpanQuestion
from tickwise.models.encoder_heads import SpanReader
from tickwise.training.objective import Batch
from tickwise.training.shuffled_passes import ShuffledPasses, batches_by_length

_CANDIDATES = 64
"""Spans of a passage among which the best is looked for: the likeliest ones."""


@dataclass(frozen=True)
class FoundSpan:
    """The best span of a question's passage by its characters; the logarithm of how likely it is just this one; the
    margin over "no answer here": the logarithm of how much likelier the likeliest span is, within its window; and the
    log-odds that this window has an answer. Spans share the probability of being the answer with others of their
    window: where an answer stands several times, the margin is lower, but not the odds."""

    start: int
    end: int
    log_probability: float
    margin: float
    odds: float

    @property
    def probability(self) -> float:
        return math.exp(self.log_probability)


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


def span_loss(scores_B2T: Tensor, targets_B2T: Tensor, places_weight: float | Tensor = 1.0) -> Tensor:
    """Mean nats of whether a window has an answer, and of its beginning and end where it has one; where several places
    are right, of any of them (Clark & Gardner 2018). ``places_weight``: what the second of these means counts for.

    That there is none is told by the scores at the first position alone: were it one choice among the places, as in
    BERT, readers of few questions, most of whose windows have no answer, would learn to choose nothing else.
    """
    has_answer_B = ~targets_B2T[:, 0, 0]
    none = F.binary_cross_entropy_with_logits(scores_B2T[:, :, 0].sum(1), (~has_answer_B).float())
    if not has_answer_B.any():
        return none
    places_N2T, right_N2T = scores_B2T[has_answer_B][..., 1:], targets_B2T[has_answer_B][..., 1:]
    right = places_N2T.masked_fill(~right_N2T, -torch.inf).logsumexp(-1)
    return none + (places_N2T.logsumexp(-1) - right).mean() * places_weight


def balanced(windows: Sequence[Window], seed: int) -> list[Window]:
    """All windows that have an answer, and of the others at most as many, drawn at random."""
    without = [i for i, window in enumerate(windows) if window.targets[0, 0]]
    n_kept = min(len(without), max(1, len(windows) - len(without)))
    kept = {without[i] for i in np.random.default_rng(seed).choice(len(without), n_kept, replace=False)} \
        if without else set()
    return [window for i, window in enumerate(windows) if i in kept or not window.targets[0, 0]]


class SpanReading(ShuffledPasses):
    """The ``Objective`` of a span reader, over shuffled passes through the windows."""

    unit = "windows"

    def __init__(self, windows: Sequence[Window], validation: Sequence[Window], asked: Sequence[SpanQuestion], *,
                 pad: int, batch_size: int, seed: int) -> None:
        """``asked`` are the validation questions, which their windows name by number."""
        super().__init__(len(windows), batch_size=batch_size, seed=seed, lengths=[len(window) for window in windows])
        self._windows, self._validation, self._asked, self._pad = windows, validation, asked, pad

    @property
    def n_validation_tokens(self) -> int:
        return sum(map(len, self._validation))

    def _batch(self, chosen: NDArray[np.int64], step: int | None) -> Batch:
        inputs = collate_windows([self._windows[i] for i in chosen], self._pad)
        return Batch((*inputs, torch.tensor(1.0)), int(inputs[1].sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """Rows in ``n`` parts (or fewer, when there are fewer rows). The last input of each is what its mean over
        windows with an answer counts for beside that over all of its windows, so that both add up to the batch's."""
        *rows, _ = batch.inputs
        parts = list(zip(*(x.chunk(n) for x in rows), strict=True))
        answered = [int((~targets_B2T[:, 0, 0]).sum()) for *_, targets_B2T in parts]
        share = sum(answered) / len(rows[0])
        return [Batch((*part, torch.tensor(own / len(part[0]) / share if own else 1.0)), int(part[1].sum()),
                      weight=len(part[0])) for part, own in zip(parts, answered, strict=True)]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        ids_BT, lengths_B, segments_BT, targets_B2T, places_weight = inputs
        scores_B2T = module(ids_BT, lengths_B, segments_BT)
        mark(Stage.LOSS)
        return span_loss(scores_B2T, targets_B2T, places_weight), ()

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """``f1``: by characters, over the questions that have an answer, each made to give one (which is wrong where
        the answer stands nowhere in the passage); where some have none, ``overall_f1``: over all, with silence where
        that is best. ``loss`` is 1 less the mean of these."""
        assert isinstance(module, SpanReader)
        found = find_spans(module, [self._validation], len(self._asked), self._pad, device)
        has_answer = np.array([bool(question.references) for question in self._asked])
        f1s = np.array([max((_overlap_f1((span.start, span.end), place) for place in question.answers), default=0.0)
                        for span, question in zip(found, self._asked, strict=True)])
        f1 = float(f1s[has_answer].mean()) if has_answer.any() else 0.0
        if has_answer.all():
            return {"loss": 1.0 - f1, "f1": f1}
        _, overall = best_threshold(np.array([span.margin for span in found]), f1s, ~has_answer)
        return {"loss": 1.0 - (f1 + overall) / 2, "f1": f1, "overall_f1": overall}


def _overlap_f1(found: tuple[int, int], gold: tuple[int, int]) -> float:
    """Harmonic mean of precision and recall of characters."""
    shared = min(found[1], gold[1]) - max(found[0], gold[0])
    return 2 * shared / (found[1] - found[0] + gold[1] - gold[0]) if shared > 0 else 0.0


def best_threshold(margins_Q: NDArray[np.float64], answered_Q: NDArray[np.float64],
                   none_Q: NDArray[np.bool_]) -> tuple[float, float]:
    """From which margin on questions are best answered, and their mean score then: ``answered_Q`` where they are, and
    where they are not, 1 for those that have none."""
    order = np.argsort(-margins_Q, kind="stable")
    totals = none_Q.sum() + np.concatenate(([0.0], np.cumsum((answered_Q - none_Q)[order])))
    n_answered, ranked = int(totals.argmax()), margins_Q[order]
    if n_answered == 0:
        threshold = float(ranked[0]) + 1.0
    elif n_answered == len(ranked):
        threshold = float(ranked[-1]) - 1.0
    else:
        threshold = float(ranked[n_answered - 1] + ranked[n_answered]) / 2
    return threshold, float(totals.max()) / len(margins_Q)


def in_blocks(windows: Iterable[Window], n_tokens: int) -> Iterator[list[Window]]:
    """``windows`` in lists of at most so many tokens, or of one window."""
    block: list[Window] = []
    n = 0
    for window in windows:
        if block and n + len(window) > n_tokens:
            yield block
            block, n = [], 0
        block.append(window)
        n += len(window)
    if block:
        yield block


class _Likely(NamedTuple):
    """The likeliest spans of a passage, at most ``_CANDIDATES``, the likeliest first; one row each."""

    places: NDArray[np.int64]
    """Their characters (n, 2)."""
    log_probabilities: NDArray[np.float64]
    margins: NDArray[np.float64]
    odds: NDArray[np.float64]
    """Log-odds that the window of each has an answer."""

    def joined(self, other: "_Likely") -> "_Likely":
        """The likeliest of both; a span that two windows found counts once, as the surer of them has it."""
        places = np.concatenate([self.places, other.places])
        log_probabilities = np.concatenate([self.log_probabilities, other.log_probabilities])
        order = np.argsort(-log_probabilities, kind="stable")
        _, firsts = np.unique(places[order], axis=0, return_index=True)
        order = order[np.sort(firsts)[:_CANDIDATES]]
        return _Likely(places[order], log_probabilities[order], np.concatenate([self.margins, other.margins])[order],
                       np.concatenate([self.odds, other.odds])[order])

    def best(self) -> FoundSpan:
        """That of which the most is expected of ``_overlap_f1``, were one of them the answer (minimum Bayes risk)."""
        weights = np.exp(self.log_probabilities - self.log_probabilities[0])
        starts, ends = self.places.T
        shared = (np.minimum(ends[:, None], ends) - np.maximum(starts[:, None], starts)).clip(0)
        lengths = ends - starts
        expected = 2 * shared / np.maximum(1, lengths[:, None] + lengths) @ weights
        at = int(expected.argmax())
        return FoundSpan(int(starts[at]), int(ends[at]), float(self.log_probabilities[at]), float(self.margins[0]),
                         float(self.odds[0]))


@torch.no_grad()
def find_spans(module: SpanReader, blocks: Iterable[Sequence[Window]], n_questions: int, pad: int, device: torch.device,
               advance: Callable[[float], None] = lambda n_windows: None) -> list[FoundSpan]:
    """The span of each question over all of its windows by which the expected F1 is highest. A passage without a token
    gives the empty span with margin and odds of -inf. One block of windows after the other is read, those of like
    length together; ``advance`` is told how many were read. ``NumericsError`` for scores that are no finite numbers."""
    likely: list[_Likely | None] = [None] * n_questions
    was_training = module.training
    module.eval()
    for windows in blocks:
        for batch in batches_by_length([len(window) for window in windows]):
            chosen = [windows[i] for i in batch]
            ids_BT, lengths_B, segments_BT, _ = collate_windows(chosen, pad)
            scores_B2T = module(ids_BT.to(device), lengths_B.to(device), segments_BT.to(device)).cpu().double()
            for window, scores_2T in zip(chosen, scores_B2T, strict=True):
                found = _likely_spans(scores_2T[:, : len(window)], window, module.config.longest_answer)
                before = likely[window.question]
                if found is not None:
                    likely[window.question] = found if before is None else before.joined(found)
            advance(len(batch))
    module.train(was_training)
    return [FoundSpan(0, 0, -math.inf, -math.inf, -math.inf) if spans is None else spans.best() for spans in likely]


def _likely_spans(scores_2T: Tensor, window: Window, longest: int) -> _Likely | None:
    """The likeliest spans of at most ``longest`` tokens; None in a window without a passage. ``NumericsError`` where
    scores of the passage are no finite numbers."""
    own = np.flatnonzero(window.places[:, 1] > window.places[:, 0])
    if not len(own):
        return None
    first, last = int(own[0]), int(own[-1]) + 1
    if not (scores_2T[:, first:last].isfinite().all() and scores_2T[:, 0].isfinite().all()):
        raise NumericsError("the reader's scores are no finite numbers; train it again, with a lower --tuning.lr")
    starts, ends = scores_2T[:, first:last].log_softmax(-1)
    n = last - first
    most = min(longest, n)
    # Row s, column i: the span from s to s + i.
    sums = starts[:, None] + F.pad(ends, (0, most - 1), value=-torch.inf).unfold(0, most, 1)
    n_spans = n * most - most * (most - 1) // 2
    top, flat = sums.flatten().topk(min(_CANDIDATES, n_spans))
    begins, lengths = flat.numpy() // most, flat.numpy() % most
    places = np.stack([window.places[first + begins, 0], window.places[first + begins + lengths, 1]], 1)
    none = scores_2T[:, 0].sum()
    return _Likely(places.astype(np.int64), (F.logsigmoid(-none) + top).numpy(), (top - none).numpy(),
                   np.full(len(places), float(-none)))
