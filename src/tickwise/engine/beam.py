"""Beam search: the few most likely texts, kept side by side (Graves 2012; Wu et al. 2016 for the length penalty)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tickwise.engine.sampling import LogitsError


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished text."""

    score: float
    """Sum of its tokens' log-probabilities ÷ its length ** the length penalty."""
    token_ids: tuple[int, ...]
    """What was written, without an end-of-text token."""
    ended: bool
    """Whether by an end-of-text token."""


class BeamSearch:
    """Keeps ``width`` unfinished texts; each tick they go on with the ``width`` most likely next tokens over all.

    A text that ends counts as finished if it is among the ``width`` most likely ones. The search is over when
    ``width`` texts are finished and no unfinished one can still beat the worst of them at its present length.
    """

    def __init__(self, width: int, length_penalty: float, eos_id: int | None, max_tokens: int) -> None:
        self.width = width
        self._length_penalty, self._eos_id, self._max_tokens = length_penalty, eos_id, max_tokens
        self._scores = [0.0]
        self.texts: list[tuple[int, ...]] = [()]
        """The unfinished ones, most likely first."""
        self.finished: list[Hypothesis] = []
        self.done = False

    def advance(self, logits_WV: Tensor) -> list[tuple[int, int]]:
        """Read the next tokens' logits of every unfinished text, one row each; returns which texts go on with which
        token: (row before, token id), at most ``width`` of them.

        Raises ``LogitsError``, and changes nothing, when a row's logits are no numbers to choose by.
        """
        log_probabilities_WV = logits_WV.float().log_softmax(dim=-1)
        bad = log_probabilities_WV.isnan().any(dim=-1).nonzero().flatten().tolist()
        if bad:
            raise LogitsError(bad)
        totals_WV = log_probabilities_WV + torch.tensor(self._scores, device=logits_WV.device)[:, None]
        n_vocab = totals_WV.shape[1]
        # Every text has one way to end, so that width others remain among twice as many.
        top, flat_ids = totals_WV.flatten().topk(min(2 * self.width, totals_WV.numel()))
        length = len(self.texts[0]) + 1
        going_on: list[tuple[int, int, float]] = []
        for rank, (score, flat_id) in enumerate(zip(top.tolist(), flat_ids.tolist(), strict=True)):
            parent, token_id = divmod(flat_id, n_vocab)
            if token_id == self._eos_id:
                if rank < self.width:
                    self._finish(score, length, self.texts[parent], ended=True)
            elif len(going_on) < self.width:
                going_on.append((parent, token_id, score))
        self.texts = [(*self.texts[parent], token_id) for parent, token_id, _ in going_on]
        self._scores = [score for _, _, score in going_on]
        if length >= self._max_tokens or not going_on:
            self.stop()
        elif len(self.finished) == self.width:
            self.done = self._normalised(self._scores[0], length) <= self.finished[-1].score
        return [(parent, token_id) for parent, token_id, _ in going_on]

    def stop(self) -> None:
        """End here; the unfinished texts compete as they are."""
        for score, text in zip(self._scores, self.texts, strict=True):
            if text:
                self._finish(score, len(text), text, ended=False)
        self.done = True

    def _normalised(self, score: float, length: int) -> float:
        return float(score / length**self._length_penalty)

    def _finish(self, score: float, length: int, text: tuple[int, ...], *, ended: bool) -> None:
        self.finished.append(Hypothesis(self._normalised(score, length), text, ended))
        self.finished.sort(key=lambda hypothesis: -hypothesis.score)
        del self.finished[self.width :]
