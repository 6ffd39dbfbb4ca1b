"""Answers from a graph of facts, with the paths to them."""

from dataclasses import dataclass
from typing import Any

from tickwise.tasks.graph_facts import Fact, Step


def fact_json(fact: Fact) -> dict[str, Any]:
    return {"subject": fact.subject, "relation": fact.relation, "object": fact.object, "where": fact.where}


@dataclass(frozen=True)
class PathAnswer:
    """An answer with the facts that lead to it and the score of the path."""

    text: str
    path: tuple[Step, ...]
    score: float

    def to_json(self) -> dict[str, Any]:
        return {"answer": self.text, "score": self.score, "path": [
            {**fact_json(step.fact), "backwards": step.backwards} for step in self.path]}


@dataclass(frozen=True)
class GraphAnswer:
    """``answers``: the best ones, of equal score; empty when nothing was found, and ``reason`` says why. When facts on
    their paths contradict each other or facts that are on none of them (``against``), ``contradictory``."""

    question: str
    answers: tuple[PathAnswer, ...] = ()
    contradictory: bool = False
    reason: str = ""
    against: tuple[Fact, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"question": self.question, "found": bool(self.answers), "contradictory": self.contradictory,
                "answers": [answer.to_json() for answer in self.answers],
                "against": [fact_json(fact) for fact in self.against], "reason": self.reason or None}
