"""A graph of facts in DuckDB: questions are answered by following relations, and the answer shows its path.

A fact is a triple (subject, relation, object) with where it comes from; names that differ in case are one. A question's
names are looked up among the graph's; from each of them paths of up to so many facts are followed, in both directions,
no fact twice, so that cycles end. A path's score is the share of the question's other words that its relations (and
what its names are said to be) contain, less a price for each fact, a higher one for a fact that contains none, and one
for a relation with a name in it ("receive nobel prize in") that the question does not have. Of equal scores those paths
are kept that have most of the question's names. A word
counts only in the direction in which the question reads it (``graph_directions``); where the question leaves that open,
a noun ("capital") that is read from the object to the subject has a price. What is asked for as "the R of …" has to be
the last relation. A fact that is denied leads nowhere further.
"""

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tickwise.core.errors import ConfigError, DataError, OutputError
from tickwise.core.paths import atomic_file
from tickwise.tasks.graph_answers import GraphAnswer, PathAnswer
from tickwise.tasks.graph_directions import (
    A_NUMBER,
    ASKING,
    WHERE,
    Direction,
    Place,
    places_of_owners,
    said,
    stem,
)
from tickwise.tasks.graph_facts import (
    NUMBER,
    SINGLE,
    WORD,
    Fact,
    Step,
    is_denial,
    key_of_name,
    relation_name,
)
from tickwise.tasks.graph_inner_names import InnerNames
from tickwise.tasks.graph_paths import (
    FACT_PRICE,
    Walk,
    confirms,
    is_needed,
    right_number,
    says_yes,
    several_times,
    unknown_words,
    words_met,
)
from tickwise.tasks.graph_problems import Problems, any_contradict, contradicting, contradictions, cycles
from tickwise.tasks.passage_index import attached

if TYPE_CHECKING:
    import duckdb

_WRONG_END_PRICE, _FOUND = 0.3, 0.5
_MORE_PRICE = 0.05
_WALKS_KEPT = 2000
_NAME_WORDS = 8
_FACTS_OF_NAME = 2000  # that are looked at in each direction: a name with more says little
_ASKS_NUMBER = re.compile(
    r"^when\b|\bhow (?:many|much|old|tall|high|long|large|big|far)\b|\b(?:what|which) (?:year|date|day)\b",
    re.IGNORECASE)
_THE_R_OF = re.compile(r"\b(?:is|are|was|were)\s+the\s+(\w+)\s+of\b", re.IGNORECASE)
_CONNECTED = re.compile(r"\b(?:related|connected|linked|connection|relation)\b", re.IGNORECASE)
_VERB_FIRST = frozenset({"is", "are", "was", "were", "did", "does", "do", "has", "have"})
_SHORT_NOT = re.compile(r"n['’]t\b", re.IGNORECASE)
_HAVE = frozenset({"has", "have", "had"})


class _Question(NamedTuple):
    """Where the graph's names stand in a question, the stems of the words that may say a relation, how it begins, how
    the words are read from each of the names (by their keys), whether it asks for what is denied, its words in upper
    case that are no names of the graph, and the names that an answer's path has to confirm."""

    places: Sequence[Place]
    stems: Sequence[str]
    words: Sequence[str]
    directions: dict[str, Direction]
    denied: bool
    unknown: frozenset[str]
    to_confirm: frozenset[str]

    @property
    def first(self) -> str:
        return "who" if "whom" in self.words[:2] else "".join(self.words[:1])


class KnowledgeGraph:
    """Facts to ask. ``build_graph`` makes one, ``open`` reads one that was kept."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection", single: Iterable[str] = ()) -> None:
        self._connection = connection
        self._single = SINGLE | {relation_name(name) for name in single}
        self.n_facts: int = connection.execute("SELECT count(*) FROM facts").fetchall()[0][0]
        relations = connection.execute("SELECT DISTINCT relation FROM facts").fetchall()
        self._inner = InnerNames(connection, [relation for (relation,) in relations])

    @classmethod
    def open(cls, path: Path, single: Iterable[str] = ()) -> "KnowledgeGraph":
        """``single``: further relations of which a subject has one object. ``DataError`` for a file that is missing or
        no graph."""
        import duckdb

        if not path.is_file():
            raise DataError(f"{path}: no such graph; make one with --documents or --triples")
        try:
            return cls(attached(path), single)
        except duckdb.Error as problem:
            first = (str(problem).splitlines() or [""])[0]
            raise DataError(f"{path}: not a graph of facts, or damaged ({first})") from None

    def facts(self, name: str | None = None) -> list[Fact]:
        """All facts, or those about ``name``, in the order in which they came."""
        condition, values = ("", []) if name is None else (
            "WHERE subject_key = ? OR object_key = ?", [key_of_name(name)] * 2)
        return [Fact(*row) for row in self._connection.execute(
            f"SELECT id, subject, relation, object, place FROM facts {condition} ORDER BY id", values).fetchall()]

    def largest_name(self) -> str:
        """The name of the most facts, as the first of them spells it."""
        ((key,),) = self._connection.execute(
            "SELECT key FROM (SELECT subject_key AS key FROM facts UNION ALL SELECT object_key FROM facts) "
            "GROUP BY key ORDER BY count(*) DESC, key LIMIT 1").fetchall()
        fact = self.facts(key)[0]
        return fact.subject if key_of_name(fact.subject) == key else fact.object

    # ---------------------------------------------------------------- questions

    def ask(self, question: str, hops: int = 3) -> GraphAnswer:
        """Answer a question from the facts on paths of up to ``hops`` of them: a name or a number, or "yes" or "no" to
        a question that begins with a verb and has two names, or for "how is A related to B" the path between them."""
        if hops < 1:
            raise ConfigError(f"--hops {hops}: must be at least 1")
        asked = self._read(question)
        names, first = [place.key for place in asked.places], asked.first
        if not names:
            empty = not question.strip()
            return GraphAnswer(question, reason="the question is empty" if empty else
                               "no name in the question is in the graph")
        if len(names) > 1 and (first in _VERB_FIRST or _CONNECTED.search(question)):
            return self._connect(question, asked, hops, first in _VERB_FIRST)
        wanted = several_times(asked.stems)
        if first == "where":
            wanted |= {WHERE}
        if asks_number := bool(_ASKS_NUMBER.search(question)):
            wanted = (wanted - {"year", "date", "day"}) | {A_NUMBER}
        if not wanted:
            return GraphAnswer(question, reason="the question has no words beside names to find a relation by")
        if first in _VERB_FIRST:
            return GraphAnswer(question, reason="a question for yes or no needs two names that are in the graph")
        role = _THE_R_OF.search(question)
        asked_words = wanted - {A_NUMBER}
        found: dict[str, PathAnswer] = {}
        for name in names:
            for walk in self._walk(name, wanted, hops, asked.directions[name]):
                end, score = walk.steps[-1].end, walk.score(wanted)
                if walk.met != wanted:
                    continue
                if role and stem(role[1]) not in map(stem, WORD.findall(walk.steps[-1].fact.relation)):
                    score -= _WRONG_END_PRICE
                more = sum(self._inner.says_more(step, asked.words) for step in walk.steps)
                if more and len(names) > 1:
                    continue  # when someone won one prize does not say when another
                score -= _MORE_PRICE * more
                last_words = map(stem, WORD.findall(walk.steps[-1].fact.relation))
                if asks_number and asked_words and asked_words.isdisjoint(last_words):
                    continue  # a number of something else
                wrong_kind = first in ("who", "where", "when") and bool(NUMBER.search(end)) != asks_number
                wrong_kind |= asks_number and not right_number(question, end)
                if key_of_name(end) in names or wrong_kind or is_denial(walk.steps[-1].fact.relation) != asked.denied:
                    continue
                if score >= _FOUND and (key_of_name(end) not in found or score > found[key_of_name(end)].score):
                    found[key_of_name(end)] = PathAnswer(end, walk.steps, score)
        return self._best(question, self._naming_most(self._confirmed(found, asked), frozenset(names)))

    def _confirmed(self, found: dict[str, PathAnswer], asked: _Question) -> dict[str, PathAnswer]:
        """The answers whose paths have all that the question names."""
        return {key: answer for key, answer in found.items() if not unknown_words(asked.unknown, answer.path) and
                confirms(self._connection, answer.path, asked.to_confirm)}

    def _naming_most(self, found: dict[str, PathAnswer], names: frozenset[str]) -> dict[str, PathAnswer]:
        """Of the best answers to a question with several names those whose paths have most of them."""
        if len(names) < 2 or not found:
            return found
        most = max(answer.score for answer in found.values())
        best = {key: answer for key, answer in found.items() if answer.score >= most - 1e-9}
        kept = self._inner.naming_most({key: answer.path for key, answer in best.items()}, names)
        return {key: answer for key, answer in best.items() if key in kept}

    def _best(self, question: str, found: dict[str, PathAnswer], tolerance: float = 1e-9) -> GraphAnswer:
        """The answers of the highest score (and down to ``tolerance`` below it), with what contradicts them."""
        if not found:
            return GraphAnswer(question, reason="no path through the facts fits the question")
        most = max(answer.score for answer in found.values())
        best = tuple(answer for answer in found.values() if answer.score >= most - tolerance)
        facts = [step.fact for answer in best for step in answer.path]
        last = [answer.path[-1].fact for answer in best]
        against = tuple(contradicting(self._connection, facts, self._single))
        both = {"yes", "no"} <= {answer.text for answer in best}
        contradictory = both or bool(against) or any_contradict(last, self._single)
        return GraphAnswer(question, best, contradictory, against=against)

    def _connect(self, question: str, asked: _Question, hops: int, yes_or_no: bool) -> GraphAnswer:
        """Paths between the first two names: the best one. A "yes" needs facts that are read as the question reads
        them; of relations that it does not name, those that say what something is or where."""
        name, other = (place.key for place in asked.places[:2])
        wanted, direction = several_times(asked.stems), asked.directions[name]
        having = not _HAVE.isdisjoint(asked.words)
        found: dict[str, PathAnswer] = {}
        for walk in self._walk(name, wanted, hops, direction, everything=not (yes_or_no and wanted)):
            score = walk.score(wanted)
            if key_of_name(walk.steps[-1].end) != other or score < _FOUND:
                continue
            if yes_or_no and not (walk.met == wanted and says_yes(walk.steps, wanted, direction, having)):
                continue
            denied = is_denial(walk.steps[-1].fact.relation)
            text = ("no" if denied else "yes") if yes_or_no else walk.steps[-1].end
            if text not in found or score > found[text].score:
                found[text] = PathAnswer(text, walk.steps, score)
        return self._best(question, self._confirmed(found, asked) if yes_or_no else found,
                          hops * FACT_PRICE if yes_or_no else 1e-9)

    def _read(self, question: str) -> _Question:
        """The graph's names in the question (the longest that do not overlap), and its other words."""
        question = self._with_long_nots(question)
        tokens = WORD.findall(re.sub(r"['’]s\b", " ", question))
        spans, known = self._names_in(tokens)
        taken: set[int] = set()
        places: list[Place] = []
        for (i, j), key in sorted(spans.items(), key=lambda item: (item[0][0] - item[0][1], item[0])):
            # A word in lower case that relations have as well is more likely to ask for one.
            asks = j - i == 1 and tokens[i].islower() and stem(tokens[i]) in self._inner.words
            asks = asks or (tokens[i].islower() and key in ASKING)
            role, _, whose = key.partition(" of ")  # "the capital of France" is what is asked for
            asks = asks or (tokens[i].islower() and whose in known and stem(role) in self._inner.words)
            if key in known and not asks and not taken & set(range(i, j)):
                taken |= set(range(i, j))
                places.append(Place(i, j, key))
        yes_or_no = bool(tokens) and tokens[0].lower() in _VERB_FIRST
        if not yes_or_no and any(tokens[place.start][0].isupper() for place in places):
            # Beside names in upper case, "country" is what something is said to be.
            kinds = {key for (key,) in self._connection.execute(
                "SELECT DISTINCT object_key FROM facts WHERE relation = 'is a'").fetchall()}
            taken -= {place.start for place in places if tokens[place.start].islower() and place.key in kinds}
            places = [place for place in places if place.start in taken]
        stems = [stem(token) for i, token in enumerate(tokens) if i not in taken and token.lower() not in ASKING]
        words = [token.lower() for token in tokens]
        places.sort()
        owners = places_of_owners(question)
        denied = any(words[i] in ("not", "never") for i in range(len(words)) if i not in taken)
        directions = {place.key: Direction(words, owners, places, place) for place in reversed(places)}
        capitals = {i for i, token in enumerate(tokens) if not token[0].islower()}
        unknown = {words[i] for i in capitals - taken if i and words[i] not in ASKING}
        written = {place.key for place in places if place.start in capitals}
        return _Question(places, stems, words, directions, denied, frozenset(unknown),
                         frozenset(written or directions))

    def _names_in(self, tokens: Sequence[str]) -> tuple[dict[tuple[int, int], str], set[str]]:
        """The key of every run of a few tokens, by its bounds, and which of the keys are the graph's names."""
        spans = {(i, j): key_of_name(" ".join(tokens[i:j])) for i in range(len(tokens))
                 for j in range(i + 1, min(i + _NAME_WORDS, len(tokens)) + 1)}
        return spans, {key for (key,) in self._connection.execute(
            "SELECT key FROM names WHERE key IN (SELECT unnest(?::VARCHAR[]))", [list(set(spans.values()))]).fetchall()}

    def _with_long_nots(self, question: str) -> str:
        """The question with " not" for "n't", but in the graph's names ("Don't Look Now")."""
        if not _SHORT_NOT.search(question):
            return question
        tokens = list(WORD.finditer(question))
        spans, known = self._names_in([token[0] for token in tokens])
        named = [(tokens[i].start(), tokens[j - 1].end()) for (i, j), key in spans.items() if key in known]
        return _SHORT_NOT.sub(lambda found: found[0] if any(
            start <= found.start() and found.end() <= end for start, end in named) else " not", question)

    def _walk(self, name: str, wanted: frozenset[str], hops: int, direction: Direction,
              everything: bool = False) -> Iterator[Walk]:
        """Walks from a name, no fact twice; of each length the best ones are followed further. Facts that say nothing
        that is wanted are walked only where they change nothing, or if ``everything`` is."""
        walks = [Walk((), frozenset(), 0, 0)]
        for _ in range(hops):
            ends = [key_of_name(walk.steps[-1].end) if walk.steps else name for walk in walks]
            steps = self._steps(sorted(set(ends)), wanted, direction)
            # The best so far, the worst of them first; of equal scores the later is the worse.
            best: list[tuple[float, int, Walk, Step]] = []
            number = 0
            for walk, end in zip(walks, ends, strict=True):
                used = {step.fact.id for step in walk.steps}
                for words, against, alike in steps[end]:
                    ahead = Walk(walk.steps, walk.met | words_met(words, wanted, walk.met), walk.idle + (not words),
                                  walk.against + against)
                    score = ahead.score(wanted) - FACT_PRICE
                    for step in alike:
                        number -= 1
                        if not everything and not is_needed(step, walk.steps, ahead.met - walk.met):
                            continue
                        if len(best) == _WALKS_KEPT and score <= best[0][0]:
                            break
                        if step.fact.id not in used:
                            push = heapq.heappush if len(best) < _WALKS_KEPT else heapq.heapreplace
                            push(best, (score, number, ahead, step))
            walks = [ahead._replace(steps=(*ahead.steps, step))
                     for _, _, ahead, step in sorted(best, key=lambda one: (-one[0], -one[1]))]
            yield from walks
            walks = [walk for walk in walks if not is_denial(walk.steps[-1].fact.relation)]

    def _steps(self, keys: Sequence[str], wanted: frozenset[str],
               direction: Direction) -> dict[str, list[tuple[frozenset[str], bool, list[Step]]]]:
        """The facts about each of the names, walked away from it: those together that say the same wanted words (of
        their relation, and of what the name at their end is said to be) and read a noun backwards or not."""
        found: list[tuple[str, Step]] = []
        for backwards, column in ((False, "subject_key"), (True, "object_key")):
            rows = self._connection.execute(
                f"SELECT {column}, id, subject, relation, object, place FROM facts "
                f"WHERE {column} IN (SELECT unnest(?::VARCHAR[])) "
                f"QUALIFY row_number() OVER (PARTITION BY {column} ORDER BY id) <= {_FACTS_OF_NAME} ORDER BY id",
                [list(keys)]).fetchall()
            found += [(key, Step(Fact(*values), backwards)) for key, *values in rows]
        kinds: dict[str, set[str]] = defaultdict(set)
        for key, kind in self._connection.execute(
            "SELECT subject_key, object FROM facts WHERE relation IN ('is a', 'is', 'type', 'instance of') "
            "AND subject_key IN (SELECT unnest(?::VARCHAR[]))", [list({key_of_name(step.end) for _, step in found})],
        ).fetchall():
            kinds[key] |= {stem(word) for word in WORD.findall(kind)}
        alike: dict[str, dict[tuple[frozenset[str], bool], list[Step]]] = defaultdict(lambda: defaultdict(list))
        for key, step in found:
            words, against = said(step, kinds[key_of_name(step.end)], wanted, direction)
            alike[key][words, against].append(step)
        return {key: [(*kind, steps) for kind, steps in alike[key].items()] for key in keys}

    def problems(self) -> Problems:
        """Contradictions and cycles of all facts."""
        return Problems(tuple(contradictions(self._connection, self._single)), tuple(cycles(self.facts())))


def build_graph(facts: Iterable[tuple[str, str, str, str]], path: Path | None = None, *,
                single: Iterable[str] = (), overwrite: bool = False) -> KnowledgeGraph:
    """A graph of (subject, relation, object, where), each fact kept once, in a file or (None) in memory.

    ``DataError`` when there is none, ``OutputError`` for a file that is there already or cannot be written;
    ``overwrite`` replaces a graph, and nothing else.
    """
    import duckdb

    if path is None:
        connection = duckdb.connect(":memory:")
        _fill(connection, facts)
        return KnowledgeGraph(connection, single)
    check_graph_output(path, overwrite)
    try:
        with atomic_file(path) as temporary, duckdb.connect(str(temporary)) as connection:
            _fill(connection, facts)
    except duckdb.IOException as problem:
        raise OutputError(f"{path}: cannot write: {str(problem).rpartition(': ')[2]}") from None
    return KnowledgeGraph.open(path, single)


def check_graph_output(path: Path, overwrite: bool) -> None:
    """``OutputError`` unless ``path`` is free or holds a graph that is to be replaced."""
    if not path.exists():
        return
    try:
        KnowledgeGraph.open(path)
    except DataError:
        raise OutputError(f"{path}: holds something that is no graph; give another file") from None
    if not overwrite:
        raise OutputError(f"{path}: is there already; replace it with --overwrite, or give another file")


def _fill(connection: "duckdb.DuckDBPyConnection", facts: Iterable[tuple[str, str, str, str]]) -> None:
    import pyarrow as pa

    columns: tuple[list[str], ...] = ([], [], [], [], [], [])
    seen: set[tuple[str, str, str]] = set()
    for subject, relation, value, where in facts:
        key = (key_of_name(subject), relation_name(relation), key_of_name(value))
        if key in seen or not all(key):
            continue
        seen.add(key)
        for column, cell in zip(columns, (subject, key[1], value, where, key[0], key[2]), strict=True):
            column.append(cell)
    if not columns[0]:
        raise DataError("no facts in what was given; text needs sentences like \"Paris is the capital of France.\"")
    names = ("subject", "relation", "object", "place", "subject_key", "object_key")
    table = pa.table({"id": range(len(columns[0])), **dict(zip(names, columns, strict=True))})
    connection.register("new_facts", table)
    connection.execute("CREATE TABLE facts AS SELECT * FROM new_facts")
    connection.unregister("new_facts")
    connection.execute("CREATE TABLE names AS SELECT DISTINCT subject_key AS key FROM facts "
                       "UNION SELECT DISTINCT object_key FROM facts")
