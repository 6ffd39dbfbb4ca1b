"""What does not fit together in a graph of facts: contradictions, and cycles of one relation."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tickwise.tasks.graph_directions import sense
from tickwise.tasks.graph_facts import MUTUAL, NUMBER, Fact, is_denial, key_of_name

if TYPE_CHECKING:
    import duckdb

_Claim = tuple[str, str, bool]
"""Whose (a key), relation, whether it is a number."""
_Sense = tuple[str, str, tuple[str, ...], bool]
"""Keys of subject and object, what the relation says, whether it is denied."""


@dataclass(frozen=True)
class Problems:
    """What does not fit together: pairs (or more) of facts that contradict each other, and cycles of one relation."""

    contradictions: tuple[tuple[Fact, ...], ...]
    cycles: tuple[tuple[Fact, ...], ...]


class _Said:
    """What facts say, to look up what contradicts one of them; of relations in ``single`` a subject has one object of a
    kind."""

    def __init__(self, facts: Iterable[Fact], single: Collection[str]) -> None:
        self._single = single
        self._senses: set[_Sense] = set()
        self.claims: dict[_Claim, set[str]] = defaultdict(set)
        for fact in facts:
            self._senses.add(_sense(fact, is_denial(fact.relation)))
            for kind, value in _single_claims(fact, single):
                self.claims[kind].add(value)

    def contradicts(self, fact: Fact) -> bool:
        return _sense(fact, not is_denial(fact.relation)) in self._senses or any(
            self.claims.get(kind, {value}) != {value} for kind, value in _single_claims(fact, self._single))


def any_contradict(facts: Sequence[Fact], single: Collection[str]) -> bool:
    """Whether two of the facts contradict each other."""
    said = _Said(facts, single)
    return any(map(said.contradicts, facts))


def _sense(fact: Fact, denied: bool) -> _Sense:
    return key_of_name(fact.subject), key_of_name(fact.object), tuple(sense(fact.relation)), denied


def _single_claims(fact: Fact, single: Collection[str]) -> Iterator[tuple[_Claim, str]]:
    """((whose, relation, whether it is a number), key of what is said) of which there is one: "Paris –capital of→
    France" says as well that France has one capital."""
    if fact.relation in single:
        yield (key_of_name(fact.subject), fact.relation, bool(NUMBER.search(fact.object))), key_of_name(fact.object)
    if (role := fact.relation.removesuffix(" of")) != fact.relation and role in single:
        yield (key_of_name(fact.object), role, bool(NUMBER.search(fact.subject))), key_of_name(fact.subject)


def contradictions(connection: "duckdb.DuckDBPyConnection", single: Collection[str]) -> Iterator[tuple[Fact, ...]]:
    """Facts that contradict each other, of a graph's tables: pairs, or more of one subject and relation."""
    groups: dict[_Claim, dict[str, Fact]] = defaultdict(dict)
    rows = connection.execute(
        "SELECT id, subject, relation, object, place FROM facts WHERE relation IN (SELECT unnest(?::VARCHAR[])) "
        "ORDER BY id", [sorted({*single, *(f"{relation} of" for relation in single)})]).fetchall()
    for fact in (Fact(*row) for row in rows):
        for kind, value in _single_claims(fact, single):
            groups[kind].setdefault(value, fact)
    yield from (tuple(group.values()) for group in groups.values() if len(group) > 1)
    rows = connection.execute(
        "SELECT yes.id, yes.subject, yes.relation, yes.object, yes.place, "
        "no.id, no.subject, no.relation, no.object, no.place "
        "FROM facts AS no JOIN facts AS yes ON starts_with(no.relation, 'not ') AND "
        "NOT starts_with(yes.relation, 'not ') AND no.subject_key = yes.subject_key AND "
        "no.object_key = yes.object_key ORDER BY no.id, yes.id").fetchall()
    told: set[int] = set()
    for yes, no in ((Fact(*row[:5]), Fact(*row[5:])) for row in rows):
        if no.id not in told and _sense(yes, True) == _sense(no, True):
            told.add(no.id)
            yield yes, no


def contradicting(connection: "duckdb.DuckDBPyConnection", facts: Iterable[Fact],
                  single: Collection[str]) -> list[Fact]:
    """The other facts of a graph's tables that contradict one of ``facts``, by one query."""
    known = {fact.id: fact for fact in facts}
    said = _Said(known.values(), single)
    claims = {(whose, relation) for whose, relation, _ in said.claims}
    pairs = {(key_of_name(fact.subject), key_of_name(fact.object)) for fact in known.values()}
    rows = connection.execute(
        "WITH claims AS (SELECT unnest($whose::VARCHAR[]) AS whose, unnest($claimed::VARCHAR[]) AS claimed), "
        "pairs AS (SELECT unnest($subjects::VARCHAR[]) AS subject_key, unnest($objects::VARCHAR[]) AS object_key), "
        "found AS (SELECT id FROM facts JOIN claims ON subject_key = whose AND relation = claimed "
        "UNION SELECT id FROM facts JOIN claims ON object_key = whose AND relation = claimed || ' of' "
        "UNION SELECT id FROM facts JOIN pairs USING (subject_key, object_key)) "
        "SELECT id, subject, relation, object, place FROM facts SEMI JOIN found USING (id) ORDER BY id",
        {"whose": [whose for whose, _ in claims], "claimed": [relation for _, relation in claims],
         "subjects": [subject for subject, _ in pairs], "objects": [value for _, value in pairs]}).fetchall()
    return [fact for fact in (Fact(*row) for row in rows) if fact.id not in known and said.contradicts(fact)]


def cycles(facts: Iterable[Fact]) -> Iterator[tuple[Fact, ...]]:
    """A cycle for each fact that closes one in a depth-first walk along one relation."""
    by_relation: dict[str, dict[str, list[Fact]]] = defaultdict(lambda: defaultdict(list))
    for fact in facts:
        if fact.relation not in MUTUAL:
            by_relation[fact.relation][key_of_name(fact.subject)].append(fact)
    for links in by_relation.values():
        done: set[str] = set()
        for start in list(links):
            yield from _cycles_from(start, links, done)


def _cycles_from(start: str, links: dict[str, list[Fact]], done: set[str]) -> Iterator[tuple[Fact, ...]]:
    """Cycles among what can be reached from ``start``, without recursion; names in ``done`` were looked at before."""
    if start in done:
        return
    way: list[Fact] = []  # the facts that lead from each name on the way to the next
    places = {start: 0}  # of the names on the way, in their order
    waiting = [iter(links.get(start, ()))]
    while waiting:
        fact = next(waiting[-1], None)
        if fact is None:
            waiting.pop()
            done.add(places.popitem()[0])
            del way[-1:]
            continue
        end = key_of_name(fact.object)
        if end in places:
            yield (*way[places[end] :], fact)
        elif end not in done:
            places[end] = len(places)
            way.append(fact)
            waiting.append(iter(links.get(end, ())))
