"""Names within relations: of "Curie –receive nobel prize in→ 1903" the Nobel Prize.

Such a fact says more of another one ("Curie –receive→ Nobel Prize"), and tells which of several answers a question with
more than one name is about.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tickwise.tasks.graph_directions import PREPOSITION_WORDS, stem
from tickwise.tasks.graph_facts import WORD, Step, key_of_name

if TYPE_CHECKING:
    import duckdb

_MOST_WORDS_BEFORE = 3


class InnerNames:
    """The names in a graph's relations; ``words`` are stems of what relations have besides."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection", relations: Iterable[str]) -> None:
        self._connection = connection
        relations = list(relations)
        parts: dict[str, list[str]] = {}
        for relation in relations:
            words = WORD.findall(relation.removeprefix("not "))
            if len(words) > 2 and words[-1] in PREPOSITION_WORDS:
                parts[relation] = [" ".join(words[i:-1]) for i in range(1, min(len(words) - 1, _MOST_WORDS_BEFORE + 1))]
        known = {key for (key,) in connection.execute(
            "SELECT key FROM names WHERE key IN (SELECT unnest(?::VARCHAR[]))",
            [list({part for own in parts.values() for part in own})]).fetchall()}
        self._names = {relation: next((part for part in own if part in known), "") for relation, own in parts.items()}
        self.words = {stem(word) for relation in relations for word in WORD.findall(relation)
                      if word not in self._of(relation).split()}

    def _of(self, relation: str) -> str:
        return self._names.get(relation, "")

    def says_more(self, step: Step, words: Collection[str]) -> bool:
        """Whether a step's relation has a name that is not in the question."""
        return not set(self._of(step.fact.relation).split()) <= set(words)

    def naming_most(self, paths: Mapping[str, Sequence[Step]], names: frozenset[str]) -> set[str]:
        """The keys of the paths that have most of ``names``: at their ends, in their relations, or in what another fact
        says more of one of theirs."""
        if len(paths) < 2 or len(names) < 2:
            return set(paths)
        facts = list({step.fact for path in paths.values() for step in path})
        rows = self._connection.execute(
            "WITH said AS (SELECT unnest($subjects::VARCHAR[]) AS whose, unnest($relations::VARCHAR[]) AS begins) "
            "SELECT DISTINCT whose, begins, object_key FROM facts JOIN said ON subject_key = whose "
            "AND starts_with(relation, begins)",
            {"subjects": [key_of_name(fact.subject) for fact in facts],
             "relations": [f"{fact.relation} {key_of_name(fact.object)} " for fact in facts]}).fetchall()
        besides: dict[tuple[str, str], set[str]] = defaultdict(set)
        for whose, begins, value in rows:
            besides[whose, begins].add(value)

        def n_named(path: Sequence[Step]) -> int:
            said: set[str] = set()
            for fact in (step.fact for step in path):
                subject, value = key_of_name(fact.subject), key_of_name(fact.object)
                said |= {subject, value, self._of(fact.relation)} | besides[subject, f"{fact.relation} {value} "]
            return len(said & names)

        n_most = max(map(n_named, paths.values()))
        return {key for key, path in paths.items() if n_named(path) == n_most}
