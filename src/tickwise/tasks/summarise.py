"""Summaries without a trained model: baselines that a learned one has to beat, and extraction by TextRank."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy

from tickwise.core.errors import ConfigError, DataError
from tickwise.data import catalogue
from tickwise.data.pairs import named_rows
from tickwise.data.passages import sentence_spans
from tickwise.evaluation.classification import Score
from tickwise.evaluation.overlap import OfReferences, mean_meteor, rouge
from tickwise.text.search_terms import search_terms

Method = Literal["lead", "copy", "extractive"]
Summariser = Callable[[Sequence[str]], list[str]]
_LINE_END = re.compile(r"\r\n|\r|\n")
"""Others, such as U+2028, may stand in a turn."""
_TURN = re.compile(r"\s*(?:\[[^\]]*\]\s*)?(?:<[^<>]+>|[^\s:：][^:：]{0,29}[:：](?!//|[:：]|(?<=\d.)\d))")
"""How a turn begins: ``Name:``, ``#Person1#:``, ``<name>``; "12:30" and "https://" begin none."""
_DAMPING = 0.85
_ITERATIONS = 50
_MOST_SENTENCES = 4000
"""That are compared with each other; their number squared is what it costs."""


@dataclass(frozen=True)
class Summarised:
    """A text and its reference summaries."""

    text: str
    references: tuple[str, ...]


def sentences(text: str) -> list[str]:
    """The sentences of ``text``; where at least half of its lines begin as turns of a dialogue do, its lines."""
    lines = [line.strip() for line in _LINE_END.split(text) if line.strip()]
    if len(lines) > 1 and 2 * sum(_TURN.match(line) is not None for line in lines) >= len(lines):
        return lines
    text = _LINE_END.sub("\n", text)
    return [re.sub(r"\s*\n\s*", " ", text[start:end]) for start, end in sentence_spans(text)]


def lead(text: str, n: int = 3) -> str:
    """The first ``n`` sentences (or turns)."""
    return "\n".join(sentences(text)[:n])


def extract(text: str, n: int = 3) -> str:
    """The ``n`` sentences (or turns) of highest TextRank, in their order.

    Source: Mihalcea & Tarau 2004: sentences are linked by the number of their common words over the sum of the
    logarithms of their lengths, and ranked by PageRank. Words are search terms. Of equal ranks the earlier counts.
    ``DataError`` for a text of more than 4,000 sentences.
    """
    parts = sentences(text)
    if len(parts) > _MOST_SENTENCES:
        raise DataError(f"a text of {len(parts):,} sentences is too long to compare each with each; cut it to "
                        f"{_MOST_SENTENCES:,} or take the first ones (--method lead)")
    ranks = text_rank([search_terms(part) for part in parts])
    best = sorted(sorted(range(len(parts)), key=lambda i: (-ranks[i], i))[:n])
    return "\n".join(parts[i] for i in best)


def text_rank(terms: Sequence[Sequence[str]]) -> list[float]:
    """PageRank of sentences, given the terms of each."""
    n = len(terms)
    shared = numpy.zeros((n, n))
    places: dict[str, list[int]] = {}
    for i, own in enumerate(terms):
        for term in set(own):
            places.setdefault(term, []).append(i)
    for having in places.values():
        shared[numpy.ix_(having, having)] += 1
    sizes = numpy.log(numpy.maximum(shared.diagonal(), 1))
    lengths = sizes[:, None] + sizes
    numpy.fill_diagonal(shared, 0)
    links = numpy.divide(shared, lengths, out=numpy.zeros_like(shared), where=lengths > 0)
    totals = links.sum(axis=0)
    shares = numpy.divide(links, totals, out=numpy.zeros_like(links), where=totals > 0)
    ranks = numpy.ones(n)
    for _ in range(_ITERATIONS):
        ranks = 1 - _DAMPING + _DAMPING * shares @ ranks
    return [round(float(rank), 12) for rank in ranks]


def baseline(method: Method, n: int = 3) -> Summariser:
    """What summarises texts by ``method``: ``lead``, ``extractive`` (both ``n`` sentences) or ``copy`` (the text)."""
    if n < 1:
        raise ConfigError(f"--sentences {n}: must be at least 1")
    of_text: dict[Method, Callable[[str], str]] = {
        "lead": lambda text: lead(text, n), "extractive": lambda text: extract(text, n), "copy": lambda text: text}
    return lambda texts: [of_text[method](text) for text in texts]


def read_summarised(sources: Sequence[str], field: str, summary: str) -> list[Summarised]:
    """Texts with their summaries: rows of tables (.jsonl, .json, .csv, .tsv, .parquet, also .gz) or of the test part
    of known data sets.

    ``field`` holds the text; ``summary`` a summary, or keys that are ``summary`` and a number several of them.
    """
    rows: list[Summarised] = []
    for source in sources:
        entry = None if Path(source).exists() else catalogue.find(source)
        if entry is None and not Path(source).exists():
            raise DataError(f"{source}: no such file, and no data set of that name (see tickwise data ls)")
        found = entry.rows("test") if entry is not None else named_rows(Path(source))
        for number, row in enumerate(found, start=1):
            keys = [key for key in row if key == summary or (key.startswith(summary) and key[len(summary) :].isdigit())]
            references = tuple(row[key] for key in sorted(keys))
            if not isinstance(row.get(field), str) or not references or not all(map(_is_text, references)):
                raise DataError(f"{source}, row {number}: needs a text '{field}' and '{summary}' (it has "
                                f"{', '.join(map(str, row))}); name them with --field and --summary")
            rows.append(Summarised(row[field], references))
    if not rows:
        raise DataError(f"{', '.join(sources)}: no texts with summaries")
    return rows


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def evaluate_summaries(summarise: Summariser, rows: Sequence[Summarised], of: OfReferences = "best",
                       samples: int = 1000, seed: int = 0) -> dict[str, Score]:
    """ROUGE-1, -2 and -L and METEOR of summaries against the references of their texts."""
    written = summarise([row.text for row in rows])
    references = [row.references for row in rows]
    return rouge(written, references, of, samples, seed) | {
        "meteor": mean_meteor(written, references, samples=samples, seed=seed)}
