"""How good vectors of texts are, told by pairs: with what people judged of them, or of texts that belong together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickwise.core.console import progress, say
from tickwise.core.errors import DataError
from tickwise.data.judged_pairs import JudgedPairs
from tickwise.evaluation.classification import Score
from tickwise.evaluation.results import results_json, table
from tickwise.evaluation.similarity import correlation_scores, partner_places, partner_scores
from tickwise.tasks.embed import Embedder

SIMILARITY, PARTNERS = "similarity", "partners"
_QUERIES_AT_ONCE = 512


@dataclass(frozen=True)
class PairScores:
    """``similarity``: how the cosines of pairs go with people's judgements. ``partners``: how high a text's partner
    stands among all right texts, by cosine."""

    task: str
    scores: dict[str, Score]
    n: int
    """What was scored: pairs or, of ``partners``, the different left texts."""
    n_pairs: int
    """Pairs that were read."""
    bootstrap_samples: int
    seed: int

    def to_json(self, model: str = "") -> dict[str, Any]:
        """lm-evaluation-harness's result layout, with intervals."""
        return results_json({self.task: self.scores}, {self.task: self.n}, model=model, output_type="ranking",
                            samples=self.bootstrap_samples, seed=self.seed, original={self.task: self.n_pairs})

    def table(self) -> str:
        """For people, in per cent."""
        if self.task == SIMILARITY:
            return table(self.scores, "pairs", self.n)
        return table(self.scores, f"texts, the partner of each sought among those of all; {self.n_pairs:,} pairs were "
                     "read", self.n)


def score_pairs(embedder: Embedder, pairs: JudgedPairs, samples: int = 1000, seed: int = 0) -> PairScores:
    """Spearman's and Pearson's correlation of cosines with judgements; of pairs without these, the mean reciprocal rank
    of each left text's partner among all different right texts, and how often it is the first, or among the first ten.

    Without judgements, a pair of a text with itself has no part, and a text is not sought among its own equals; the
    right texts of all pairs with the same left one are right. ``DataError`` where too little is left to score."""
    if pairs.judged is not None:
        left, right = _vectors(embedder, pairs.left), _vectors(embedder, pairs.right)
        cosines = (left * right).sum(1)
        return PairScores(SIMILARITY, correlation_scores(cosines.tolist(), pairs.judged, samples, seed), len(pairs),
                          len(pairs), samples, seed)
    own = [(a, b) for a, b in zip(pairs.left, pairs.right, strict=True) if a != b]
    if n := len(pairs) - len(own):
        say(f"{pairs.name}: left out {n:,} pairs of a text with itself")
    among = list(dict.fromkeys(b for _, b in own))
    if len(among) < 2:
        raise DataError(f"{pairs.name}: {len(among)} different texts to find; there must be at least two")
    number = {text: place for place, text in enumerate(among)}
    partners: dict[str, list[int]] = {}
    for a, b in own:
        partners.setdefault(a, []).append(number[b])
    queries = list(partners)
    vectors, candidates = _vectors(embedder, queries), _vectors(embedder, among)
    places: list[int] = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        part = queries[start : start + _QUERIES_AT_ONCE]
        cosines_NM = vectors[start : start + _QUERIES_AT_ONCE] @ candidates.T
        right_NM = np.zeros(cosines_NM.shape, dtype=bool)
        for row, text in enumerate(part):
            right_NM[row, partners[text]] = True
            if text in number:
                cosines_NM[row, number[text]] = -np.inf
        places += partner_places(cosines_NM, right_NM)
    return PairScores(PARTNERS, partner_scores(places, samples=samples, seed=seed), len(queries), len(pairs),
                      samples, seed)


def _vectors(embedder: Embedder, texts: list[str]) -> NDArray[np.float32]:
    """(N, C) of all texts; each different one is read once."""
    different = list(dict.fromkeys(texts))
    number = {text: place for place, text in enumerate(different)}
    with progress("embedding", len(different), "texts") as bar:
        vectors = embedder.embed(different, bar.advance)
    return vectors[[number[text] for text in texts]]
