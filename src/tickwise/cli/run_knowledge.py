"""Answer questions from facts: triples of your own, or extracted from English text, with the path to each answer."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.task_flags import answer_texts
from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    from tickwise.tasks.graph_facts import Fact
    from tickwise.tasks.knowledge import GraphAnswer, KnowledgeGraph


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    text: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="QUESTION")] = None
    """The question; - reads standard input, a question per line. Without one and --input, a prompt asks for it."""
    input: Path | None = None
    """File with a question per line."""
    documents: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """English text to take facts from: file or folder (text, Markdown, .jsonl, .csv …); several times for several."""
    triples: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Facts as a tab-separated file: subject, relation, object."""
    field: str = "text"
    """Key or column of the text in documents of rows."""
    graph: Path | None = None
    """File of the graph (DuckDB): made from --documents and --triples if they are given, else used as it is."""
    overwrite: bool = False
    """Make the graph anew."""
    single: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Relation of which a subject has one object: two of them contradict each other."""
    hops: int = 3
    """Most facts on the way to an answer."""
    show: bool = False
    """Print all facts, and what does not fit together: contradictions and cycles."""


def run(arguments: Arguments) -> int:
    made = bool(arguments.documents or arguments.triples)
    if not made and arguments.graph is None:
        raise ConfigError("a question needs facts: give --triples FILE, --documents FILE or --graph FILE")
    if arguments.text is not None and arguments.input is not None:
        raise ConfigError("give the question or --input, not both")
    if arguments.text is not None and not arguments.text.strip():
        raise ConfigError("the question is empty")
    if arguments.overwrite and (arguments.graph is None or not made):
        raise ConfigError("--overwrite: has a meaning with --graph and --documents or --triples only")
    if arguments.hops < 1:
        raise ConfigError(f"--hops {arguments.hops}: must be at least 1")
    graph = _graph(arguments)
    if arguments.show:
        _show(graph, arguments.json)
    elif arguments.text is not None or arguments.input is not None or sys.stdin.isatty() or arguments.graph is None \
            or not made:
        _answer(arguments, graph)
    return 0


def _graph(arguments: Arguments) -> "KnowledgeGraph":
    from tickwise.core.console import say
    from tickwise.tasks.graph_facts import facts_of_documents, facts_of_tables
    from tickwise.tasks.knowledge import KnowledgeGraph, build_graph

    if not arguments.documents and not arguments.triples:
        assert arguments.graph is not None
        return KnowledgeGraph.open(arguments.graph, arguments.single)

    def facts() -> Iterator[tuple[str, str, str, str]]:
        yield from facts_of_tables(arguments.triples)
        if arguments.documents:
            yield from facts_of_documents(arguments.documents, arguments.field)

    graph = build_graph(facts(), arguments.graph, single=arguments.single, overwrite=arguments.overwrite)
    problems = graph.problems()
    counts = {"fact": graph.n_facts, "contradiction": len(problems.contradictions), "cycle": len(problems.cycles)}
    told = [f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count]
    say(", ".join(told) + ("; --show tells which" if len(told) > 1 and not arguments.show else ""))
    return graph


def _answer(arguments: Arguments, graph: "KnowledgeGraph") -> None:
    rows: list[dict[str, object]] = []

    def tell(questions: list[str]) -> None:
        for question in questions:
            answer = graph.ask(question, arguments.hops)
            rows.append(answer.to_json())
            if not arguments.json:
                print(_told(answer), flush=True)

    answer_texts(arguments, tell)
    if arguments.json:
        print(json.dumps(rows[0] if len(rows) == 1 else {"samples": rows}, ensure_ascii=False))


def _told(answer: "GraphAnswer") -> str:
    from tickwise.tasks.graph_facts import Step, told

    if not answer.answers:
        return f"not found: {answer.reason}"
    lines = ["the facts contradict each other:"] if answer.contradictory else []
    for one in answer.answers:
        lines.append(one.text)
        lines += [f"      {told(step)}   [{step.fact.where}]" for step in one.path]
    lines += [f"against it: {told(Step(fact, False))}   [{fact.where}]" for fact in answer.against]
    return "\n".join(lines)


def _show(graph: "KnowledgeGraph", as_json: bool) -> None:
    facts, problems = graph.facts(), graph.problems()
    if as_json:
        print(json.dumps({"facts": [fact._asdict() for fact in facts],
                          "contradictions": [[fact.id for fact in group] for group in problems.contradictions],
                          "cycles": [[fact.id for fact in cycle] for cycle in problems.cycles]}, ensure_ascii=False))
        return
    for fact in facts:
        print(_line(fact))
    for group in problems.contradictions:
        print("contradiction:\n" + "\n".join(f"  {_line(fact)}   [{fact.where}]" for fact in group))
    for cycle in problems.cycles:
        print("cycle:\n" + "\n".join(f"  {_line(fact)}   [{fact.where}]" for fact in cycle))


def _line(fact: "Fact") -> str:
    return f"{fact.subject}\t{fact.relation}\t{fact.object}"
