"""Word vectors: one row per word, and what can be asked of their directions.

Shape legend: Q queries, V words, C width of a vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.config import closest
from tickwise.core.errors import ConfigError, DataError
from tickwise.core.stages import Stage, mark


@dataclass(frozen=True, kw_only=True)
class WordVectorsConfig:
    """Shape of the matrix."""

    vocab_size: int
    width: int
    """Numbers per word."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}: must be at least 1, got {getattr(self, name)}")


class WordVectors(nn.Module):
    """Word numbers (…) → vectors (…, C)."""

    def __init__(self, config: WordVectorsConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.vocab_size, config.width), requires_grad=False)

    def forward(self, numbers: Tensor) -> Tensor:
        mark(Stage.EMBED)
        return F.embedding(numbers, self.weight)

    def example_inputs(self, batch: int, context: int) -> tuple[Tensor]:
        """Inputs for a listing: texts of ``context`` words."""
        return (torch.zeros(batch, context, dtype=torch.long),)

    def cosines(self, queries_QC: Tensor) -> Tensor:
        """(Q, V): cosines of the angles between the queries and all words; 0 for vectors of zeros."""
        mark(Stage.HEAD)
        return F.normalize(queries_QC, dim=-1) @ F.normalize(self.weight, dim=-1).t()


class Neighbour(NamedTuple):
    """A word, and the cosine of its angle to what was asked for."""

    word: str
    cosine: float


class NamedVectors:
    """Word vectors with their words, which are told apart by case."""

    def __init__(self, words: Sequence[str], module: WordVectors) -> None:
        assert len(words) == module.config.vocab_size
        self.words = tuple(words)
        self.module = module
        self._number = {word: number for number, word in enumerate(self.words)}

    def number(self, word: str) -> int:
        """The row of ``word``; ``DataError`` when it has no vector."""
        found = self._number.get(word)
        if found is None:
            raise DataError(f"{word!r} has no vector{closest(word, self.words)}; it was not among the "
                            f"{len(self.words):,} words that were frequent enough")
        return found

    def __contains__(self, word: str) -> bool:
        return word in self._number

    def neighbours(self, word: str, k: int = 10) -> list[Neighbour]:
        """The ``k`` words whose vectors point most nearly the same way, best first."""
        number = self.number(word)
        return self._nearest(self.module.weight[number], {number}, k)

    def analogy(self, a: str, b: str, c: str, k: int = 10) -> list[Neighbour]:
        """What is to ``c`` as ``b`` is to ``a``: the words nearest to b - a + c, of vectors of length 1, without the
        three (3CosAdd, Mikolov, Yih & Zweig 2013)."""
        numbers = [self.number(word) for word in (a, b, c)]
        va, vb, vc = F.normalize(self.module.weight[numbers], dim=-1)
        return self._nearest(vb - va + vc, set(numbers), k)

    @torch.no_grad()
    def _nearest(self, query_C: Tensor, without: set[int], k: int) -> list[Neighbour]:
        if k < 1:
            raise ConfigError(f"-k {k}: must be at least 1")
        cosines_V = self.module.cosines(query_C[None])[0]
        cosines_V[sorted(without)] = -torch.inf
        best = torch.topk(cosines_V, min(k, len(self.words) - len(without)))
        return [Neighbour(self.words[number], cosine)
                for cosine, number in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
