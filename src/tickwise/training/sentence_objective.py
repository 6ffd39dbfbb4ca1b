"""What objectives on sentences have in common: batches of like length, and validation on some of many."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tickwise.data.sentences import SentenceBatches, Sentences

_VALIDATED_AT_ONCE = 64


class SentenceObjective:
    """Base of objectives whose examples are sentences, each read from its beginning."""

    fixed_shapes = False

    def __init__(self, sentences: Sentences, validation: Sentences | None, *, batch_size: int, seed: int) -> None:
        self.batches = SentenceBatches(sentences, batch_size=batch_size, seed=seed)
        self._validation = validation

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else int(self._validation.lengths.sum()) + len(self._validation)

    @property
    def epochs_done(self) -> float:
        return self.batches.epochs_done

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:
        """Sentences are independent."""

    def state(self) -> dict[str, Any]:
        return self.batches.state()

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.batches.restore(dict(state))


def spread_batches(sentences: Sentences, max_tokens: int | None) -> list[NDArray[np.int64]]:
    """Numbers of the sentences, those of like length together, in batches to compute at once; with ``max_tokens`` of
    about so many tokens' worth, spread over all of them."""
    n = len(sentences)
    if max_tokens is not None:
        n = max(1, min(n, int(n * max_tokens / (sentences.lengths.sum() + n))))
    chosen = np.linspace(0, len(sentences) - 1, n).astype(np.int64)
    chosen = chosen[np.argsort(sentences.lengths[chosen], kind="stable")]
    return np.array_split(chosen, range(_VALIDATED_AT_ONCE, n, _VALIDATED_AT_ONCE))
