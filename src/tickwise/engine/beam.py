"""Beam search: the few most likely texts, kept side by side (Graves 2012; Wu et al. 2016 for the length penalty)."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tickwise.engine.sampling import LogitsError
from tickwise.models.writing_rules import NO_RULES, WritingRules

LengthNorm = Literal["power", "gnmt"]
"""What the length penalty is an exponent of: the length, or (5 + length) ÷ 6 (Wu et al. 2016, equation 14)."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished text."""

    score: float
    """Sum of its tokens' log-probabilities ÷ its length ** the length penalty."""
    token_ids: tuple[int, ...]
    """What was written, without an end-of-text token."""
    ended: bool
    """Whether by an end-of-text token that the model chose."""


Candidate = tuple[float, int, int]
"""A way for one of the texts to go on: the log-probability of the whole text, which of the texts, the token's id."""


class _Text(NamedTuple):
    """An unfinished text: what it goes on from, and its last token. Texts share their beginnings, so that none is
    copied when another token is put to it."""

    before: "_Text | None"
    token_id: int

    def token_ids(self) -> tuple[int, ...]:
        ids, text = [], self
        while text.before is not None:
            ids.append(text.token_id)
            text = text.before
        return tuple(reversed(ids))


_EMPTY = _Text(None, -1)


class BeamSearch:
    """Keeps ``width`` unfinished texts; each tick they go on with the ``width`` most likely next tokens over all.

    A text that ends counts as finished if it is among the ``width`` most likely ones. The search is over when
    ``width`` texts are finished and no unfinished one can still beat the worst of them at its present length. At
    ``max_tokens`` tokens, its end mark included, a text is finished as it is, or, where ``rules`` force an end, with an
    end mark for its last token.
    """

    def __init__(
        self, width: int, length_penalty: float, end_ids: Collection[int], max_tokens: int,
        normalise: LengthNorm = "power", rules: WritingRules = NO_RULES,
    ) -> None:
        self.width, self._rules = width, rules
        self._length_penalty, self._end_ids, self._max_tokens = length_penalty, end_ids, max_tokens
        self._normalise = normalise
        self.scores = [0.0]
        """Log-probabilities of the unfinished texts, the most likely first."""
        self.length = 0
        """Tokens of each of them."""
        self._texts = [_EMPTY]
        self.finished: list[Hypothesis] = []
        self.done = False

    @property
    def last_ids(self) -> list[int]:
        """The last token of each unfinished text; none has one at the beginning."""
        return [text.token_id for text in self._texts] if self.length else []

    def advance(self, logits_WV: Tensor) -> list[tuple[int, int]]:
        """Read the next tokens' logits of every unfinished text, one row each; returns which texts go on with which
        token: (row before, token id), at most ``width`` of them.

        Raises ``LogitsError``, and changes nothing, when a row's logits are no numbers to choose by.
        """
        log_probabilities_WV = logits_WV.float().log_softmax(dim=-1)
        bad = log_probabilities_WV.isnan().any(dim=-1).nonzero().flatten().tolist()
        if bad:
            raise LogitsError(bad)
        if suppressed := [i for i in self._rules.suppressed_ids if i < logits_WV.shape[1]]:
            log_probabilities_WV[:, suppressed] = -math.inf
        totals_WV = log_probabilities_WV + torch.tensor(self.scores, device=logits_WV.device)[:, None]
        n_vocab = totals_WV.shape[1]
        # Beside every text's ways to end, width others remain among so many.
        most = self.width * (1 + max(1, len(self._end_ids)))
        top, flat_ids = totals_WV.flatten().topk(min(most, totals_WV.numel()))
        return self.take([(score, *divmod(flat_id, n_vocab))
                          for score, flat_id in zip(top.tolist(), flat_ids.tolist(), strict=True)])

    def take(self, candidates: Sequence[Candidate]) -> list[tuple[int, int]]:
        """As ``advance``, from the most likely ways to go on over all texts, most likely first: ``width``
        of them, and as many for every token that ends a text."""
        length = self.length + 1
        is_last = length >= self._max_tokens
        if is_last and self._rules.forces_end:
            self._finish_all(length)
            return []
        if length == 1 and self._rules.first_id is not None:
            candidates = [(0.0, 0, self._rules.first_id)]
        going_on: list[Candidate] = []
        for rank, (score, parent, token_id) in enumerate(candidates):
            if score == -math.inf:  # fewer ways than asked for
                break
            if token_id in self._end_ids:
                if rank < self.width:
                    self._finish(score, length, self._texts[parent], ended=True)
            elif len(going_on) < self.width:
                going_on.append((score, parent, token_id))
                if is_last and rank < self.width:
                    self._finish(score, length, _Text(self._texts[parent], token_id), ended=False)
        self._texts = [_Text(self._texts[parent], token_id) for _, parent, token_id in going_on]
        self.length = length
        self.scores = [score for score, _, _ in going_on]
        if is_last or not going_on:
            self.done = True
        elif len(self.finished) == self.width:
            self.done = self._normalised(self.scores[0], length) <= self.finished[-1].score
        return [(parent, token_id) for _, parent, token_id in going_on]

    def stop(self) -> None:
        """End here; the unfinished texts compete as they are."""
        if self.length:
            self._finish_all(self.length)
        self.done = True

    def _finish_all(self, length: int) -> None:
        for score, text in zip(self.scores, self._texts, strict=True):
            self._finish(score, length, text, ended=False)
        self.done = True

    def _normalised(self, score: float, length: int) -> float:
        base = length if self._normalise == "power" else (5 + length) / 6
        return float(score / base**self._length_penalty)

    def _finish(self, score: float, length: int, text: _Text, *, ended: bool) -> None:
        value = self._normalised(score, length)
        if len(self.finished) == self.width and value <= self.finished[-1].score:
            return
        self.finished.append(Hypothesis(value, text.token_ids(), ended))
        self.finished.sort(key=lambda hypothesis: -hypothesis.score)
        del self.finished[self.width :]
