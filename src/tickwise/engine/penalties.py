"""Penalties for tokens that occurred before: repetition, presence and frequency.

Shapes: B batch rows, V vocabulary, N tokens that occurred, in any rows.
"""

import copy
from collections.abc import Iterable, Sequence

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from tickwise.engine.settings import GenerationSettings


class Occurrences:
    """The different tokens that a row has seen, and how often it wrote each itself."""

    def __init__(self, prompt_ids: Iterable[int]) -> None:
        self._place: dict[int, int] = {}
        self._ids = numpy.zeros(256, dtype=numpy.int64)
        self._written = numpy.zeros(256, dtype=numpy.float32)
        for token_id in prompt_ids:
            self._find(token_id)

    @property
    def ids(self) -> NDArray[numpy.int64]:
        """Token ids (N,), each once."""
        return self._ids[: len(self._place)]

    @property
    def written(self) -> NDArray[numpy.float32]:
        """How often the row wrote each of ``ids``, (N,); 0 for a token that is in the prompt only."""
        return self._written[: len(self._place)]

    def add(self, token_id: int) -> None:
        """Count a token that the row wrote."""
        place = self._find(token_id)
        self._written[place] += 1

    def copy(self) -> "Occurrences":
        twin = copy.copy(self)
        twin._place, twin._ids, twin._written = self._place.copy(), self._ids.copy(), self._written.copy()
        return twin

    def _find(self, token_id: int) -> int:
        place = self._place.setdefault(token_id, len(self._place))
        if place == len(self._ids):
            self._ids = numpy.concatenate([self._ids, numpy.zeros_like(self._ids)])
            self._written = numpy.concatenate([self._written, numpy.zeros_like(self._written)])
        self._ids[place] = token_id
        return place


def occurrences_for(settings: GenerationSettings, prompt_ids: Sequence[int]) -> Occurrences | None:
    """What has to be counted for ``settings``, before the first token; ``None`` without penalties."""
    if settings.repetition_penalty != 1:
        return Occurrences(prompt_ids)
    return Occurrences(()) if settings.presence_penalty or settings.frequency_penalty else None


def penalise(shaped_BV: Tensor, penalised: Sequence[tuple[int, GenerationSettings, Occurrences]]) -> None:
    """Change the logits of tokens that occurred before, in place.

    Repetition (Keskar et al. 2019, section 4.1): positive logits are divided, negative ones multiplied, so that both
    move down. Then OpenAI's ``logit - count * frequency_penalty - (count > 0) * presence_penalty``, where ``count``
    is how often the token was written.
    """
    lengths = [len(occurrences.ids) for _, _, occurrences in penalised]

    def of_each(values: Sequence[float]) -> NDArray[numpy.float32]:
        return numpy.repeat(numpy.array(values, dtype=numpy.float32), lengths)

    def moved(values: NDArray[numpy.generic]) -> Tensor:
        return torch.from_numpy(values).to(shaped_BV.device)

    n_vocab = shaped_BV.shape[1]
    index_N = moved(numpy.concatenate([seen.ids + row * n_vocab for row, _, seen in penalised]))
    repetition_N = moved(of_each([settings.repetition_penalty for _, settings, _ in penalised]))
    written_N = numpy.concatenate([seen.written for _, _, seen in penalised])
    taken_N = written_N * of_each([settings.frequency_penalty for _, settings, _ in penalised])
    taken_N += (written_N > 0) * of_each([settings.presence_penalty for _, settings, _ in penalised])
    flat_N = shaped_BV.view(-1)
    logits_N = flat_N[index_N]
    logits_N = torch.where(logits_N > 0, logits_N / repetition_N, logits_N * repetition_N)
    flat_N[index_N] = logits_N - moved(taken_N)
