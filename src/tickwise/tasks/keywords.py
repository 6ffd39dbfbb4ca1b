"""Keywords of a text: words and short phrases that matter in it, by TF-IDF against a background or by TextRank.

With a background (how many documents of a corpus have each word) a word's weight is its inverse document frequency
(Spärck Jones 1972); without one it is its rank in the graph of neighbouring words (Mihalcea & Tarau 2004). A phrase of
up to three words weighs what its words do. Nothing is random.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tickwise.core.config import read_json
from tickwise.core.errors import DataError
from tickwise.core.paths import write_text_atomic
from tickwise.text.documents import chunk_documents
from tickwise.text.sources import ChunkReader, ReadSettings, find_files
from tickwise.text.terms import Term, content_runs

_LONGEST_PHRASE = 3
_WINDOW = 4
_DAMPING = 0.85
_ITERATIONS = 50


@dataclass(frozen=True)
class Keyword:
    """A keyword as the text writes it first, its score (larger is better), and its places (start, end) in the text."""

    text: str
    score: float
    places: tuple[tuple[int, int], ...]

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "score": self.score, "places": [list(place) for place in self.places]}


@dataclass(frozen=True)
class Background:
    """In how many of ``n_documents`` documents each word (by its key) occurs."""

    n_documents: int
    documents_with: dict[str, int]

    @classmethod
    def count(cls, documents: Iterable[str]) -> "Background":
        """``DataError`` when there is no document."""
        n, counts = 0, Counter[str]()
        for document in documents:
            n += 1
            counts.update({term.key for run in content_runs(document) for term in run})
        if not n:
            raise DataError("no documents to count words in; give a corpus with at least one")
        return cls(n, dict(counts))

    def weight(self, key: str) -> float:
        """Inverse document frequency in nats; a word that the corpus lacks counts as in half a document."""
        return math.log((self.n_documents + 1) / (self.documents_with.get(key, 0) + 0.5))

    def save(self, path: Path) -> None:
        rows = dict(sorted(self.documents_with.items()))
        write_text_atomic(path, json.dumps({"n_documents": self.n_documents, "documents_with": rows},
                                           ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Background":
        content = read_json(path, "the background counts", DataError)
        n, counts = content.get("n_documents"), content.get("documents_with")
        if type(n) is not int or n < 1 or not isinstance(counts, dict) or not all(
                type(count) is int and 0 <= count <= n for count in counts.values()):
            raise DataError(f"{path}: not a file of background counts; make one with --save-background")
        return cls(n, counts)


def corpus_documents(sources: Sequence[str], documents: str = "line", field: str = "text") -> Iterator[str]:
    """The documents of files, folders or standard input (``-``), cleaned; see ``ReadSettings`` for the settings."""
    settings = ReadSettings(documents=documents, field=field)
    whole: list[str] = []  # pieces of a file that is one document
    for chunk in ChunkReader(find_files(sources), settings):
        if whole and not chunk.continues:
            yield "".join(whole)
            whole = []
        texts = chunk_documents(chunk, settings).texts
        if chunk.kind == "text" and settings.separator is None:
            whole += texts
        else:
            yield from texts
    if whole:
        yield "".join(whole)


def text_rank(runs: Sequence[Sequence[Term]]) -> dict[str, float]:
    """PageRank of the words, of which two are linked as often as they stand within four content words."""
    keys = [term.key for run in runs for term in run]
    weights: dict[str, Counter[str]] = {key: Counter() for key in keys}
    for i, key in enumerate(keys):
        for other in keys[i + 1 : i + _WINDOW]:
            if other != key:
                weights[key][other] += 1
                weights[other][key] += 1
    totals = {key: sum(links.values()) for key, links in weights.items()}
    rank = dict.fromkeys(weights, 1.0)
    for _ in range(_ITERATIONS):
        rank = {key: 1 - _DAMPING + _DAMPING * sum(rank[other] * n / totals[other] for other, n in links.items())
                for key, links in weights.items()}
    return rank


def keywords(text: str, n: int = 10, background: Background | None = None) -> list[Keyword]:
    """The ``n`` best keywords of ``text`` (fewer when it has fewer content words), best first.

    A phrase has to occur twice. It stands for its words when at least half of their occurrences are inside it.
    """
    runs = content_runs(text)
    places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for run in runs:
        for length in range(1, _LONGEST_PHRASE + 1):
            for i in range(len(run) - length + 1):
                first, last = run[i], run[i + length - 1]
                places.setdefault(tuple(t.key for t in run[i : i + length]), []).append((first.start, last.end))
    if background is not None:
        counts = Counter(term.key for run in runs for term in run)
        weight = {key: background.weight(key) for key in counts}
    else:
        weight = text_rank(runs)

    def score(keys: tuple[str, ...]) -> float:
        often = len(places[keys]) if background is not None else 1
        return often * sum(weight[key] for key in keys)

    candidates = [keys for keys in places if len(keys) == 1 or (len(places[keys]) > 1 and len(set(keys)) == len(keys))]
    candidates.sort(key=lambda keys: (-score(keys), -len(keys), places[keys][0]))
    chosen: list[tuple[str, ...]] = []
    for keys in candidates:
        if len(chosen) == n:
            break
        if not any(_says_the_same(keys, other, places) for other in chosen):
            chosen.append(keys)
    return [Keyword(text[slice(*places[keys][0])], score(keys), tuple(places[keys])) for keys in chosen]


def _says_the_same(keys: tuple[str, ...], chosen: tuple[str, ...],
                   places: dict[tuple[str, ...], list[tuple[int, int]]]) -> bool:
    """Whether ``keys`` is a part of ``chosen``, or the other way round, and mostly occurs there."""
    short, long_ = sorted((keys, chosen), key=len)
    inside = any(long_[i : i + len(short)] == short for i in range(len(long_) - len(short) + 1))
    return inside and 2 * len(places[long_]) >= len(places[short])
