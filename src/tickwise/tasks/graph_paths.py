"""Which paths through a graph of facts may answer a question.

Every fact of a path has to say a word of the question that none before it says. Others are passed over only where they
change nothing: names of the same thing; behind a place the larger one it is in ("born in London", "London in
England"); behind a kind the wider one. A further name in the question has to be confirmed by the path, or by a fact
that tells more of one on it.
"""

import itertools
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tickwise.tasks.graph_directions import A_NUMBER, PREPOSITION_WORDS, WHERE, Direction, asked_by, sense, stem
from tickwise.tasks.graph_facts import WORD, Fact, Step, key_of_name
from tickwise.text.english_verbs import VERB_OF

if TYPE_CHECKING:
    import duckdb

FACT_PRICE, _IDLE_PRICE, _BACKWARDS_PRICE = 0.02, 0.1, 0.05
_SAME = frozenset({"same as", "also known as", "known as", "identical to", "alias"})
_KIND = re.compile(r"(?:is|are) an?|type|kind|kind of|type of|instance of|subclass of")
_WITHIN = re.compile(
    r"(?:(?:is|are|lies?|located|situated|contained|is located|is situated) )?(?:in|within|inside)|"
    r"(?:is |are )?(?:an? )?(?:part|suburb|borough|district|province|region|county|neighbou?rhood) of|"
    r"is an? [\w -]*?(?:city|town|village|country|state|region|province|county|district|suburb|borough|island) in|"
    r"country|state|county|continent|location|region|province")
_AT_PLACES = frozenset({"in", "at", "within", "inside"})
_PLACES = frozenset({"birthplace", "location", "residence", "headquarters"})
_ONCE = frozenset({"bear", "die", "found", "write", "build"})
_MEASURE = re.compile(r"\bhow\s+(?:many|much|old|tall|high|long|large|big|far)\b", re.IGNORECASE)
_YEAR = re.compile(r"\W*(?:in |c\. )?(?:1\d{3}|20\d\d)\W*|.*\b(?:January|February|March|April|May|June|July|August|"
                   r"September|October|November|December|century|BC|AD)\b.*")
_AMOUNT = re.compile(r"\d,\d{3}|illion\b|[%$£€]|\bpercent\b|^\d{1,3}(?:\.\d+)?$")


class Walk(NamedTuple):
    """A path, the wanted words on it, how many of its facts have none, and how many nouns are read backwards."""

    steps: tuple[Step, ...]
    met: frozenset[str]
    idle: int
    against: int

    def score(self, wanted: frozenset[str]) -> float:
        share = len(self.met) / len(wanted) if wanted else 1.0
        idle = _IDLE_PRICE * self.idle if wanted else 0.0
        return share - FACT_PRICE * len(self.steps) - idle - _BACKWARDS_PRICE * self.against


def is_same(relation: str) -> bool:
    return relation in _SAME


def may_be_passed(step: Step, before: Sequence[Step]) -> bool:
    """Whether a fact that says nothing of the question may stand behind others on a path."""
    if is_same(step.fact.relation):
        return True
    said = [one.fact.relation for one in before if not is_same(one.fact.relation)]
    if step.backwards or not said:
        return False
    if _KIND.fullmatch(step.fact.relation):
        return _KIND.fullmatch(said[-1]) is not None
    words = WORD.findall(said[-1]) or [""]
    place = _WITHIN.fullmatch(said[-1]) or words[-1] in _AT_PLACES | _PLACES
    return bool(place) and not before[-1].backwards and _WITHIN.fullmatch(step.fact.relation) is not None


def goes_on(step: Step, before: Sequence[Step]) -> bool:
    """Whether a fact tells when or where the one before it was: "Tom –kill→ Ben", "Tom –kill ben in→ 1900"."""
    fact, last = step.fact, before[-1].fact if before else None
    return last is not None and not step.backwards and _more_of(fact, last)


def is_of_place(step: Step) -> bool:
    """Whether a fact says where its subject is, and nothing else."""
    return not step.backwards and _WITHIN.fullmatch(step.fact.relation) is not None


def right_number(question: str, end: str) -> bool:
    """Whether a number is of the kind that is asked for: "how many" are no year, and "when" is no amount."""
    if _MEASURE.search(question):
        return _YEAR.fullmatch(end) is None
    return _AMOUNT.search(end) is None


def unknown_words(words: Collection[str], path: Sequence[Step]) -> set[str]:
    """Those of the words (in lower case) that stand neither in the relations of a path nor in its names."""
    facts = [step.fact for step in path]
    there = {word for fact in facts for text in fact[1:4] for word in WORD.findall(text.casefold())}
    there |= {stem(word) for word in there}
    return {word for word in words if word not in there and stem(word) not in there}


def confirms(connection: "duckdb.DuckDBPyConnection", path: Sequence[Step], names: Collection[str]) -> bool:
    """Whether each of the names (keys) stands on the path, or in a fact that tells more of one on it."""
    facts = [step.fact for step in path]
    own = {key for fact in facts for key in (key_of_name(fact.subject), key_of_name(fact.object))}
    relations = " | ".join(f" {fact.relation} " for fact in facts)
    return all(name in own or f" {name} " in relations or _is_told(connection, facts, own, name) for name in names)


def _is_told(connection: "duckdb.DuckDBPyConnection", facts: Sequence[Fact], own: set[str], name: str) -> bool:
    links = connection.execute(
        "SELECT id, subject, relation, object, place FROM facts WHERE "
        "(object_key = $name AND subject_key IN (SELECT unnest($own::VARCHAR[]))) OR "
        "(subject_key = $name AND object_key IN (SELECT unnest($own::VARCHAR[]))) ORDER BY id LIMIT 1000",
        {"name": name, "own": sorted(own)}).fetchall()
    return any(_tells_more(connection, Fact(*link), fact) for link in links for fact in facts)


def _more_of(fact: Fact, of: Fact) -> bool:
    return key_of_name(fact.subject) == key_of_name(of.subject) and (
        fact.relation.startswith(f"{of.relation} {key_of_name(of.object)} "))


def _tells_more(connection: "duckdb.DuckDBPyConnection", link: Fact, fact: Fact) -> bool:
    """Whether a fact is about the same event as another: it repeats it, or has its verb and its sentence, or the verb
    is of what happens once."""
    if _more_of(link, fact) or _more_of(fact, link):
        return True
    verbs = {word for word in sense(link.relation) if word in VERB_OF} & set(sense(fact.relation))
    if not verbs:
        return False
    if link.where == fact.where and link.where:
        return True
    if key_of_name(link.subject) == key_of_name(fact.subject):
        return sense(link.relation) == sense(fact.relation) and not verbs.isdisjoint(_ONCE)
    doing, done = (link, fact) if fact.relation.split()[-1] in PREPOSITION_WORDS else (fact, link)
    if key_of_name(doing.object) != key_of_name(done.subject):
        return False
    ((n_doing, n_done),) = connection.execute(
        "SELECT count(*) FILTER (relation = $doing AND object_key = $key), "
        "count(*) FILTER (relation = $done AND subject_key = $key AND regexp_matches(object, '\\d') = "
        "regexp_matches($value, '\\d')) FROM facts",
        {"doing": doing.relation, "done": done.relation, "key": key_of_name(doing.object),
         "value": done.object}).fetchall()
    return n_doing == n_done == 1


def is_needed(step: Step, before: Sequence[Step], new: frozenset[str]) -> bool:
    """Whether a step says more than that it leads to a place or to a number, or may be passed behind the others."""
    if new - {WHERE, A_NUMBER} or (new and not before):
        return True
    return goes_on(step, before) or (bool(new) and is_of_place(step)) or may_be_passed(step, before)


def says_yes(path: Sequence[Step], wanted: frozenset[str], direction: Direction, having: bool) -> bool:
    """Whether the facts of a path say what is asked, each word on one of them, and the others change nothing."""
    met: frozenset[str] = frozenset()
    for i, step in enumerate(path):
        new = words_met(frozenset(map(stem, WORD.findall(step.fact.relation))), wanted, met)
        first = not wanted and all(is_same(before.fact.relation) for before in path[:i])
        asked = bool(new) or first
        if not (asked and asked_by(step, wanted, direction, having)) and not may_be_passed(step, path[:i]):
            return False
        met |= new
    return True


def words_met(words: frozenset[str], wanted: frozenset[str], before: frozenset[str]) -> frozenset[str]:
    """The wanted words that a step adds; of a word that is wanted several times ("mother", "mother 2") one."""
    found = set()
    for word in words & wanted:
        turn = itertools.chain([word], (f"{word} {n}" for n in itertools.count(2)))
        next_one = next(name for name in turn if name not in before)
        if next_one in wanted:
            found.add(next_one)
    return frozenset(found)


def several_times(words: Sequence[str]) -> frozenset[str]:
    """The words, with a number from the second time on."""
    return frozenset(word if (n := words[:i].count(word)) == 0 else f"{word} {n + 1}" for i, word in enumerate(words))
