"""Facts of a graph: triples of names and a relation, where they come from, and what spellings of a name share."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tickwise.core.errors import DataError
from tickwise.data.passages import read_passages, sentence_spans
from tickwise.data.rows import open_text
from tickwise.text.english_verbs import VERB_OF
from tickwise.text.triples import triples

SINGLE = frozenset({
    "capital", "capital of", "born in", "born on", "died in", "died on", "die in", "die on", "father", "mother",
    "population", "area", "height", "length", "birthplace", "birth date", "date of birth", "death date", "currency",
    "founded in",
})
"""Relations of which a subject has one object of a kind, name or number; two of them contradict each other."""
MUTUAL = frozenset({"marry", "married to", "spouse", "sibling", "brother", "sister", "friend", "border", "borders",
                    "near", "know", "knows", "meet", "same as", "adjacent to", "connected to", "related to"})
"""Relations that hold both ways: there and back is no cycle."""
NUMBER = re.compile(r"^\W*\d|\b\d{4}\b")
WORD = re.compile(r"\w+")


class Fact(NamedTuple):
    """A triple of the graph; ``where`` is the file and line or sentence that says it."""

    id: int
    subject: str
    relation: str
    object: str
    where: str


@dataclass(frozen=True)
class Step:
    """A fact as it is walked: from its subject to its object, or ``backwards``."""

    fact: Fact
    backwards: bool

    @property
    def start(self) -> str:
        return self.fact.object if self.backwards else self.fact.subject

    @property
    def end(self) -> str:
        return self.fact.subject if self.backwards else self.fact.object


def facts_of_documents(sources: Sequence[str], field: str = "text") -> Iterator[tuple[str, str, str, str]]:
    """(subject, relation, object, where) of the sentences of English documents, by rules (``text/triples.py``)."""
    for passage in read_passages(sources, field):
        spans = sentence_spans(passage.text)
        for fact in triples([passage.text[start:end] for start, end in spans]):
            place = passage.place_of(spans[fact.number][0])
            yield fact.subject, fact.relation, fact.object, f"{passage.source}, {place}: {fact.sentence}"


def facts_of_tables(sources: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """(subject, relation, object, where) of tab-separated files with these three columns. A first line that names them
    is no fact. ``DataError`` with the line of one that has not three."""
    for source in sources:
        path = Path(source)
        with open_text(path) as stream:
            try:
                for number, line in enumerate(stream, start=1):
                    cells = [cell.strip() for cell in line.rstrip("\r\n").split("\t")]
                    if not any(cells) or (number == 1 and [c.lower() for c in cells[:3]] == ["subject", "relation",
                                                                                            "object"]):
                        continue
                    if len(cells) != 3 or not all(cells):
                        raise DataError(f"{path}, line {number}: needs three columns between tabs, subject, relation, "
                                        f"object, and has {len([c for c in cells if c])}; mend that line")
                    yield cells[0], cells[1].replace("_", " "), cells[2], f"{path}, line {number}"
            except UnicodeDecodeError:
                raise DataError(f"{path}: not UTF-8; convert it first") from None


def key_of_name(name: str) -> str:
    """What spellings of a name share."""
    return " ".join(WORD.findall(name.casefold()))


def relation_name(name: str) -> str:
    """A relation's spelling in the graph: in lower case, a denial ("is not", "was not born in") as "not …"."""
    words = re.sub(r"n['’]t\b", " not", name.replace("_", " ").lower()).split()
    if not {"not", "never"} & set(words):
        return " ".join(words)
    bare = [word for word in words if word not in ("not", "never", "do", "does", "did")]
    if bare[1:] and bare[0] in ("is", "are", "was", "were") and bare[1] in VERB_OF:
        bare = bare[1:]
    return " ".join(["not", *bare])


def is_denial(relation: str) -> bool:
    return relation.startswith("not ")


def told(step: Step) -> str:
    """A step for people: ``Ada –born in→ London``, ``Hamlet ←write– Shakespeare``."""
    arrow = f" ←{step.fact.relation}– " if step.backwards else f" –{step.fact.relation}→ "
    return f"{step.start}{arrow}{step.end}"
