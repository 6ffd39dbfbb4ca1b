"""What does not fit together in a graph of facts: contradictions, and cycles of one relation."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tickwise.tasks.graph_facts import MUTUAL, NUMBER, Fact, key_of_name

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Problems:
    """What does not fit together: pairs (or more) of facts that contradict each other, and cycles of one relation."""

    contradictions: tuple[tuple[Fact, ...], ...]
    cycles: tuple[tuple[Fact, ...], ...]


def contradict(a: Fact, b: Fact, single: Collection[str]) -> bool:
    """Whether the facts contradict each other; of relations in ``single`` a subject has one object of a kind."""
    if key_of_name(a.subject) != key_of_name(b.subject):
        return False
    same = key_of_name(a.object) == key_of_name(b.object)
    if a.relation == b.relation and a.relation in single:
        return not same and bool(NUMBER.search(a.object)) == bool(NUMBER.search(b.object))
    return same and f"not {a.relation}" == b.relation


def contradictions(connection: "duckdb.DuckDBPyConnection", single: Collection[str]) -> Iterator[tuple[Fact, ...]]:
    """Facts that contradict each other, of a graph's tables: pairs, or more of one subject and relation."""
    groups: dict[tuple[str, str, bool], dict[str, Fact]] = defaultdict(dict)
    rows = connection.execute(
        "SELECT id, subject, relation, object, place FROM facts WHERE relation IN (SELECT unnest(?::VARCHAR[])) "
        "ORDER BY id", [sorted(single)]).fetchall()
    for fact in (Fact(*row) for row in rows):
        kind = (key_of_name(fact.subject), fact.relation, bool(NUMBER.search(fact.object)))
        groups[kind].setdefault(key_of_name(fact.object), fact)
    yield from (tuple(group.values()) for group in groups.values() if len(group) > 1)
    rows = connection.execute(
        "SELECT yes.id, yes.subject, yes.relation, yes.object, yes.place, "
        "no.id, no.subject, no.relation, no.object, no.place "
        "FROM facts AS no JOIN facts AS yes ON no.relation = 'not ' || yes.relation AND "
        "no.subject_key = yes.subject_key AND no.object_key = yes.object_key "
        "QUALIFY row_number() OVER (PARTITION BY no.id ORDER BY yes.id) = 1 ORDER BY no.id").fetchall()
    yield from ((Fact(*row[:5]), Fact(*row[5:])) for row in rows)


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
