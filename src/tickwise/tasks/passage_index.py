"""An index of passages on disk, in DuckDB: found by their words (BM25) and, with an embedder, by their meaning.

A passage's score for a question is

    (1 - w) · BM25 / most + w · max(0, cosine)

BM25 (Robertson & Zaragoza 2009) has k1 = 1.2, b = 0.75 and the inverse document frequency ln(1 + (N - n + ½) / (n + ½))
of Lucene; ``most`` is what it cannot exceed for this question, the sum of its terms' inverse document frequencies times
k1 + 1, where a term that no passage has counts as the rarest. So scores lie between 0 and 1 and say how much of the
question a passage covers. Cosines are between embeddings from which the mean of all passages was taken. A sum of scores
that are scaled by their theoretical extremes did better than fusing ranks in Bruch, Gai & Ingber 2023. Without an
embedder w is 0.

A folder holds ``index.json`` and ``index.duckdb``; it appears whole or not at all.
"""

import functools
import itertools
import json
import math
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray

from tickwise.core.config import read_json
from tickwise.core.console import progress
from tickwise.core.errors import CheckpointError, ConfigError, DataError, OutputError
from tickwise.core.paths import atomic_directory, write_text_atomic
from tickwise.data.passages import Passage
from tickwise.tasks.embedders import EmbedsTexts, embedder_fingerprint, load_embedder, unit_rows
from tickwise.text.search_terms import search_terms, term_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow

FORMAT = 2
K1, B = 1.2, 0.75
EMBEDDING_WEIGHT = 0.1
_HEADER, _DATABASE = "index.json", "index.duckdb"
_PASSAGES_AT_ONCE = 4096
# Questions times passages that are compared at once.
_PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Hit:
    """A passage and why it was found: its score, the share of BM25 in it before weighing, and the cosine (None without
    an embedder)."""

    number: int
    passage: Passage
    score: float
    bm25: float
    cosine: float | None

    @property
    def where(self) -> str:
        """Its document, its place in it, and its title."""
        passage = self.passage
        return f"{passage.source}, {passage.place}" + (f" ({passage.title})" if passage.title else "")

    def to_json(self) -> dict[str, Any]:
        p = self.passage
        return {"text": p.text, "source": p.source, "place": p.place, "title": p.title, "score": self.score,
                "bm25": self.bm25, "cosine": self.cosine}


class PassageIndex:
    """An index that was opened. ``search`` finds passages, ``header`` says what is in it."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection", header: dict[str, Any],
                 embedder: EmbedsTexts | None) -> None:
        self._connection, self.header, self._embedder = connection, header, embedder
        self.n_passages: int = header["passages"]
        mean = header.get("embedding_mean")
        self._mean = None if mean is None else numpy.array(mean, dtype=numpy.float32)

    @classmethod
    def open(cls, path: Path, device: str = "auto") -> "PassageIndex":
        """The index in a folder; its embedder computes on ``device``. ``DataError`` when it is missing or damaged,
        ``CheckpointError`` when its embedder is gone or another one by now."""
        import duckdb

        header = read_json(path / _HEADER, "the description of an index of passages", DataError)
        if header.get("format") != FORMAT or not isinstance(header.get("passages"), int):
            raise DataError(f"{path / _HEADER}: not an index that this tickwise reads; build it again")
        try:
            connection = attached(path / _DATABASE)
            (n,) = connection.execute("SELECT count(*) FROM passages").fetchall()[0]
        except duckdb.Error as problem:
            first = (str(problem).splitlines() or [""])[0]
            raise DataError(f"{path / _DATABASE}: missing or damaged ({first}); build the index again") from None
        if n != header["passages"]:
            raise DataError(f"{path}: {_HEADER} and {_DATABASE} do not belong together; build the index again")
        index = cls(connection, header, None)
        if header.get("embedder") is not None:
            embedder = Path(header["embedder"])
            index._embedder = load_embedder(embedder, functools.cache(index.word_weight), device)
            if embedder_fingerprint(embedder) != header["embedder_fingerprint"]:
                raise CheckpointError(f"{embedder}: has changed since {path} was made with it; build the index again, "
                                      "or put the old one back")
        return index

    @property
    def has_embeddings(self) -> bool:
        return self._embedder is not None

    def weight(self, wanted: float | None = None) -> float:
        """The share of the embeddings in a score: as wanted, else the one that the index's threshold was chosen with,
        else 0.1; without embeddings 0. ``ConfigError`` for a share that is none."""
        kept = self.header.get("threshold")
        usual = kept["embedding_weight"] if isinstance(kept, dict) else EMBEDDING_WEIGHT
        weight = float(usual if wanted is None else wanted)
        if not 0 <= weight <= 1:
            raise ConfigError(f"--embedding-weight {weight:g}: must be from 0 to 1")
        return weight if self._embedder is not None else 0.0

    def word_weight(self, word: str) -> float:
        """Inverse document frequency of a word as texts write it; 0 for function words."""
        term = term_of(word)
        return self.term_weights([term])[term] if term else 0.0

    def term_weights(self, terms: Iterable[str]) -> dict[str, float]:
        """Inverse document frequency of each term; those that no passage has count as the rarest."""
        return {term: idf for term, (_, idf) in self._look_up(terms).items()}

    def _look_up(self, terms: Iterable[str]) -> dict[str, tuple[int | None, float]]:
        wanted = list(dict.fromkeys(terms))
        found: dict[str, tuple[int | None, float]] = dict.fromkeys(wanted, (None, _idf(self.n_passages, 0)))
        rows = self._connection.execute(
            "SELECT term, id, idf FROM terms WHERE term IN (SELECT unnest(?::VARCHAR[]))", [wanted]).fetchall()
        return found | {term: (number, idf) for term, number, idf in rows}

    def search(self, questions: Sequence[str], k: int = 5, *, without: Sequence[Collection[int]] | None = None,
               embedding_weight: float | None = None) -> list[list[Hit]]:
        """The ``k`` best passages for each question, best first; only such as share a term with it or, with an
        embedder, point its way. Equal scores stand in the order of the documents.

        ``without``: numbers of passages that may not be found, for each question. ``embedding_weight``: the w above.
        """
        if k < 1:
            raise ConfigError(f"-k {k}: must be at least 1")
        weight = self.weight(embedding_weight)
        at_once = max(1, min(len(questions), _PAIRS_AT_ONCE // self.n_passages))
        found: list[list[Hit]] = []
        for start in range(0, len(questions), at_once):
            some = questions[start : start + at_once]
            left_out = without[start : start + at_once] if without is not None else [()] * len(some)
            found += self._search(some, k, left_out, weight)
        return found

    def _search(self, questions: Sequence[str], k: int, without: Sequence[Collection[int]],
                weight: float) -> list[list[Hit]]:
        import pyarrow as pa

        counts = [Counter(search_terms(question)) for question in questions]
        known = self._look_up(term for own in counts for term in own)
        asked = [(row, known[term][0], n) for row, own in enumerate(counts) for term, n in own.items()
                 if known[term][0] is not None]
        most = [(K1 + 1) * sum(known[term][1] * n for term, n in own.items()) or 1.0 for own in counts]
        barred = [(row, number) for row, own in enumerate(without) for number in own]
        tables = {
            "asked": pa.table({"question": pa.array([a[0] for a in asked], pa.int32()),
                               "term": pa.array([a[1] for a in asked], pa.int32()),
                               "n": pa.array([a[2] for a in asked], pa.int32())}),
            "most": pa.table({"question": pa.array(range(len(questions)), pa.int32()),
                              "most": pa.array(most, pa.float64())}),
            "barred": pa.table({"question": pa.array([b[0] for b in barred], pa.int32()),
                                "passage": pa.array([b[1] for b in barred], pa.int32())}),
        }
        sql = _BY_WORDS
        if weight > 0:
            assert self._embedder is not None
            vectors = centred(self._embedder.embed(questions), self._mean)
            tables["meant"] = pa.table({"question": pa.array(range(len(questions)), pa.int32()),
                                        "vector": vector_column(vectors)})
            sql = _BY_WORDS_AND_MEANING
        parameters = {"k": k} | ({"w": weight} if "meant" in tables else {})
        for name, table in tables.items():
            self._connection.register(name, table)
        rows = self._connection.execute(sql, parameters).fetchall()
        for name in tables:
            self._connection.unregister(name)
        passages = self._passages({number for _, number, *_ in rows})
        hits: list[list[Hit]] = [[] for _ in questions]
        for question, number, score, bm25, cosine in rows:
            hits[question].append(Hit(number, passages[number], score, bm25, cosine))
        return hits

    def _passages(self, numbers: Collection[int]) -> dict[int, Passage]:
        rows = self._connection.execute(
            "SELECT id, text, source, place, title FROM passages WHERE id IN (SELECT unnest(?::INTEGER[]))",
            [sorted(numbers)]).fetchall()
        return {number: Passage(*values) for number, *values in rows}

    def passages(self) -> Iterator[tuple[int, Passage]]:
        """All passages with their numbers, in the order of the documents."""
        for first in range(0, self.n_passages, _PASSAGES_AT_ONCE):
            numbers = range(first, min(first + _PASSAGES_AT_ONCE, self.n_passages))
            yield from sorted(self._passages(numbers).items())


def attached(database: Path) -> "duckdb.DuckDBPyConnection":
    """A connection that reads a database file. It has an instance of DuckDB to itself, so that a file that was replaced
    is read anew while others still read the old one."""
    import duckdb

    connection = duckdb.connect(":memory:")
    connection.execute("ATTACH '{}' AS kept (TYPE duckdb, READ_ONLY)".format(str(database).replace("'", "''")))
    connection.execute("USE kept")
    return connection


_BY_WORDS = """
SELECT question, passage, score, score AS bm25, NULL AS cosine FROM (
    SELECT asked.question, postings.passage, sum(asked.n * postings.weight) / any_value(most.most) AS score
    FROM asked JOIN postings USING (term) JOIN most USING (question)
    GROUP BY ALL)
ANTI JOIN barred USING (question, passage)
QUALIFY row_number() OVER (PARTITION BY question ORDER BY score DESC, passage) <= $k
ORDER BY question, score DESC, passage"""
_BY_WORDS_AND_MEANING = """
WITH by_words AS (
    SELECT asked.question, postings.passage, sum(asked.n * postings.weight) / any_value(most.most) AS bm25
    FROM asked JOIN postings USING (term) JOIN most USING (question)
    GROUP BY ALL),
by_meaning AS (
    SELECT meant.question, vectors.passage, array_inner_product(meant.vector, vectors.vector) AS cosine
    FROM meant CROSS JOIN vectors)
SELECT question, passage, (1 - $w) * coalesce(bm25, 0) + $w * greatest(cosine, 0) AS score, coalesce(bm25, 0), cosine
FROM by_meaning LEFT JOIN by_words USING (question, passage) ANTI JOIN barred USING (question, passage)
WHERE score > 0
QUALIFY row_number() OVER (PARTITION BY question ORDER BY score DESC, passage) <= $k
ORDER BY question, score DESC, passage"""


def _idf(n_passages: int, n_with: int) -> float:
    return math.log(1 + (n_passages - n_with + 0.5) / (n_with + 0.5))


def centred(vectors: NDArray[numpy.float32], mean: NDArray[numpy.float32] | None) -> NDArray[numpy.float32]:
    """Unit rows (N, C) without what all passages have in common; rows of zeros stay so."""
    if mean is None:
        return vectors
    empty = ~vectors.any(axis=1, keepdims=True)
    return unit_rows(numpy.where(empty, 0, vectors - mean))


def vector_column(vectors: NDArray[numpy.float32]) -> "pyarrow.FixedSizeListArray":
    """(N, C) as a column of arrays of C floats."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), vectors.shape[1])


def build_index(passages: Iterable[Passage], path: Path | None = None, *, embedder: Path | None = None,
                about: Mapping[str, Any] | None = None, overwrite: bool = False, device: str = "auto") -> PassageIndex:
    """Index ``passages`` in a folder, or (None) in memory for as long as the index is used.

    ``embedder``: what the index is to use besides words, on ``device``. ``about`` is kept in the header. Raises
    ``DataError`` when there is no passage, ``OutputError`` for a folder that is taken.
    """
    import duckdb

    if path is None:
        connection = duckdb.connect(":memory:")
        header = _fill(connection, passages, embedder, about or {}, device)
        index = PassageIndex(connection, header, None)
        if embedder is not None:
            index._embedder = load_embedder(embedder, functools.cache(index.word_weight), device)
        return index
    check_index_output(path, overwrite)
    with atomic_directory(path) as folder:
        with duckdb.connect(str(folder / _DATABASE)) as connection:
            header = _fill(connection, passages, embedder, about or {}, device)
        write_text_atomic(folder / _HEADER, json.dumps(header, ensure_ascii=False, indent=2) + "\n")
    return PassageIndex.open(path, device)


def check_index_output(path: Path, overwrite: bool) -> None:
    """``OutputError`` unless ``path`` is free or holds an index that is to be replaced."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / _HEADER).is_file():
        raise OutputError(f"{path}: holds something that is no index; give another folder")
    if not overwrite:
        raise OutputError(f"{path}: holds an index already; replace it with --overwrite, or give another folder")


def _fill(connection: "duckdb.DuckDBPyConnection", passages: Iterable[Passage], embedder: Path | None,
          about: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Write all tables; returns the header."""
    connection.execute("CREATE TABLE passages (id INTEGER, text VARCHAR, source VARCHAR, place VARCHAR, title VARCHAR, "
                       "n_terms INTEGER)")
    connection.execute("CREATE TEMP TABLE counts (term INTEGER, passage INTEGER, n INTEGER)")
    numbers: dict[str, int] = {}
    n_with = array("i")
    n = 0
    with progress("index", None, "passages") as bar:
        for batch in _batches(passages):
            _add(connection, batch, n, numbers, n_with)
            n += len(batch)
            bar.advance(len(batch))
    if not n:
        raise DataError("no passage in the documents; give files with text")
    idf = [_idf(n, count) for count in n_with]
    _insert(connection, "terms", {"term": list(numbers), "id": list(numbers.values()), "idf": idf})
    connection.execute("""
        CREATE TABLE postings AS
        SELECT counts.term, counts.passage,
            (idf * n * ($k1 + 1) / (n + $k1 * (1 - $b + $b * n_terms / mean)))::FLOAT AS weight
        FROM counts JOIN terms ON terms.id = counts.term JOIN passages ON passages.id = counts.passage,
            (SELECT avg(n_terms) AS mean FROM passages)
        ORDER BY counts.term, counts.passage""", {"k1": K1, "b": B})
    connection.execute("DROP TABLE counts")
    header = {"format": FORMAT, "passages": n, "terms": len(numbers), **about}
    if embedder is not None:
        header |= _embed(connection, n, embedder, dict(zip(numbers, idf, strict=True)), device)
    return header


def _add(connection: "duckdb.DuckDBPyConnection", batch: Sequence[Passage], first: int, numbers: dict[str, int],
         n_with: "array[int]") -> None:
    """Passages and the counts of their terms; new terms get the next numbers, ``n_with`` counts passages by term."""
    terms, owners, counts, lengths = array("i"), array("i"), array("i"), array("i")
    for number, passage in enumerate(batch, start=first):
        own = Counter(search_terms(f"{passage.title}\n{passage.text}"))
        lengths.append(own.total())
        for term, count in own.items():
            term_number = numbers.setdefault(term, len(numbers))
            if term_number == len(n_with):
                n_with.append(0)
            n_with[term_number] += 1
            terms.append(term_number)
            owners.append(number)
            counts.append(count)
    _insert(connection, "passages", {
        "id": range(first, first + len(batch)), "text": [p.text for p in batch], "source": [p.source for p in batch],
        "place": [p.place for p in batch], "title": [p.title for p in batch], "n_terms": numpy.asarray(lengths)})
    _insert(connection, "counts", {"term": numpy.asarray(terms), "passage": numpy.asarray(owners),
                                   "n": numpy.asarray(counts)})


def _embed(connection: "duckdb.DuckDBPyConnection", n: int, path: Path, idf: Mapping[str, float],
           device: str) -> dict[str, Any]:
    """The table of centred embeddings; returns what the header says of it."""
    unknown = _idf(n, 0)

    def weight(word: str) -> float:
        term = term_of(word)
        return idf.get(term, unknown) if term else 0.0

    model = load_embedder(path, weight, device)
    rows = numpy.zeros((n, model.width), dtype=numpy.float32)
    reading = connection.cursor().execute("SELECT text FROM passages ORDER BY id")
    done = 0
    with progress("embed", n, "passages") as bar:
        while texts := [text for (text,) in reading.fetchmany(_PASSAGES_AT_ONCE)]:
            rows[done : done + len(texts)] = model.embed(texts)
            done += len(texts)
            bar.advance(len(texts))
    mean = rows.mean(axis=0)
    rows = centred(rows, mean)
    connection.execute(f"CREATE TABLE vectors (passage INTEGER, vector FLOAT[{model.width}])")
    for start in range(0, n, _PASSAGES_AT_ONCE):
        some = rows[start : start + _PASSAGES_AT_ONCE]
        _insert(connection, "vectors", {"passage": range(start, start + len(some)), "vector": vector_column(some)})
    return {"embedder": str(path.resolve()), "embedder_fingerprint": embedder_fingerprint(path),
            "embedding_mean": mean.tolist()}


def _insert(connection: "duckdb.DuckDBPyConnection", table: str, columns: Mapping[str, Any]) -> None:
    """Append ``columns`` to a table, which is made if it is not there."""
    import pyarrow as pa

    rows = pa.table({name: values if isinstance(values, pa.Array) else pa.array(values)
                     for name, values in columns.items()})
    connection.register("new_rows", rows)
    exists = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [table]).fetchall()[0][0]
    connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM new_rows" if exists
                       else f"CREATE TABLE {table} AS SELECT * FROM new_rows")
    connection.unregister("new_rows")


def _batches(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    waiting = iter(passages)
    while batch := list(itertools.islice(waiting, _PASSAGES_AT_ONCE)):
        yield batch
