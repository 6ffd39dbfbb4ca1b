"""What is drawn of a graph of facts: the paths of an answer, or the graph itself, or a part of it."""

from collections.abc import Iterable

from tickwise.report.fact_graph import Arrow, FactPicture
from tickwise.tasks.graph_answers import GraphAnswer
from tickwise.tasks.graph_facts import Fact, told
from tickwise.tasks.knowledge import KnowledgeGraph

MOST_FACTS = 40
"""That a picture has; more cannot be read."""


def picture_of_answer(answer: GraphAnswer) -> FactPicture:
    """The paths to the answers, with their scores, and what contradicts them; empty where nothing was found."""
    steps = [step for one in answer.answers for step in one.path]
    drawn = _facts([*(step.fact for step in steps), *answer.against])
    paths = [(one.text, ", ".join(map(told, one.path)), f"{one.score:.2f}",
              "; ".join(step.fact.where for step in one.path)) for one in answer.answers]
    against = [("against it", " ".join(fact[1:4]), "", fact.where) for fact in answer.against]
    left_out = len(drawn) - MOST_FACTS
    text = "; ".join(f"{text}: score {score}" for text, _, score, _ in paths) or f"not found: {answer.reason}"
    if left_out > 0:
        text = f"{MOST_FACTS} of the {len(drawn):,} facts on the paths are drawn; {text}"
    starts = [step.start for one in answer.answers for step in one.path[:1]]
    return FactPicture(answer.question, text, _arrows(drawn[:MOST_FACTS]), starts[0] if starts else "",
                       frozenset(one.path[-1].end for one in answer.answers), ("answer", "path", "score", "where"),
                       (*paths, *against))


def picture_of_graph(graph: KnowledgeGraph, title: str) -> FactPicture:
    """All facts, or where they are too many those nearest to the name with the most."""
    if graph.n_facts <= MOST_FACTS:
        facts, text = graph.facts(), f"all {graph.n_facts:,} facts"
    else:
        name = graph.largest_name()
        facts = _nearest(graph, name)
        text = (f"{len(facts):,} of {graph.n_facts:,} facts: those nearest to {name}, the name with the most; "
                "a question draws the path of its answer")
    rows = tuple((fact.subject, fact.relation, fact.object, fact.where) for fact in facts)
    return FactPicture(title, text, _arrows(facts), header=("subject", "relation", "object", "where"), rows=rows)


def _nearest(graph: KnowledgeGraph, name: str) -> list[Fact]:
    found: dict[int, Fact] = {}
    names = [name]
    for one in names:  # which grows
        for fact in graph.facts(one):
            if fact.id not in found and len(found) < MOST_FACTS:
                found[fact.id] = fact
                names += [end for end in (fact.subject, fact.object) if end not in names]
        if len(found) == MOST_FACTS:
            break
    return list(found.values())


def _facts(facts: Iterable[Fact]) -> list[Fact]:
    """Each fact once, in their order."""
    return list({fact.id: fact for fact in facts}.values())


def _arrows(facts: Iterable[Fact]) -> list[Arrow]:
    return [Arrow(fact.subject, fact.relation, fact.object) for fact in facts]
