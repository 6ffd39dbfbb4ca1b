"""Answer questions from facts: triples of your own, or extracted from English text, with the path to each answer."""

import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.task_flags import STANDARD_INPUT, answer_texts
from tickwise.core.console import say
from tickwise.core.errors import ConfigError
from tickwise.core.paths import check_file_output

if TYPE_CHECKING:
    from tickwise.data.passages import Question
    from tickwise.report.fact_graph import FactPicture
    from tickwise.tasks.graph_answers import GraphAnswer
    from tickwise.tasks.graph_facts import Fact
    from tickwise.tasks.graph_scoring import GraphScores
    from tickwise.tasks.knowledge import KnowledgeGraph


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
    test: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Questions with the answers that they ought to have, to count how many are answered, how many of them right (exact
    match and F1 as SQuAD defines them), and of how many of which nothing is known nothing is said: a question and its
    accepted answers between tabs (none: nothing is known), .jsonl rows with question and answers, or SQuAD's .json."""
    picture: Path | None = None
    """Also draw the path of the answer, or without a question the facts (of many those around the name with the most),
    as a picture (.svg) or a page (.html)."""
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
    _check_test_and_picture(arguments)
    questions = _expected(arguments)
    graph = _graph(arguments)
    if arguments.picture is not None and arguments.text is None:
        _draw_graph(arguments.picture, graph)
    if arguments.show:
        _show(graph, arguments.json)
    elif questions:
        _score(arguments, graph, questions)
    elif arguments.picture is not None and arguments.text is None:
        return 0
    elif arguments.text is not None or arguments.input is not None or sys.stdin.isatty() or arguments.graph is None \
            or not made:
        _answer(arguments, graph)
    return 0


def _check_test_and_picture(arguments: Arguments) -> None:
    if arguments.test and (arguments.text is not None or arguments.input is not None or arguments.show):
        raise ConfigError("--test: brings its own questions; leave out the question, --input and --show")
    if arguments.picture is None:
        return
    from tickwise.report.fact_graph import check_ending

    if arguments.test or arguments.input is not None or arguments.text == STANDARD_INPUT:
        raise ConfigError("--picture: is for one question, given as an argument, or for the facts without any")
    check_ending(arguments.picture)
    check_file_output(arguments.picture)


def _expected(arguments: Arguments) -> "list[Question]":
    if not arguments.test:
        return []
    from tickwise.tasks.graph_scoring import read_expected

    return read_expected(arguments.test)


def _graph(arguments: Arguments) -> "KnowledgeGraph":
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
    from tickwise.tasks.graph_drawing import picture_of_answer

    rows: list[dict[str, object]] = []

    def tell(questions: list[str]) -> None:
        for question in questions:
            answer = graph.ask(question, arguments.hops)
            rows.append(answer.to_json())
            if arguments.picture is not None and answer.answers:
                _draw(arguments.picture, picture_of_answer(answer))
            elif arguments.picture is not None:
                say(f"nothing to draw: {answer.reason}")
            if not arguments.json:
                print(_told(answer), flush=True)

    answer_texts(arguments, tell)
    if arguments.json:
        print(json.dumps(rows[0] if len(rows) == 1 else {"samples": rows}, ensure_ascii=False))


def _draw(path: Path, picture: "FactPicture") -> None:
    from tickwise.report.fact_graph import write_fact_picture

    write_fact_picture(path, picture, shlex.join(["tickwise", *sys.argv[1:]]))
    say(f"drawn: {path}")


def _draw_graph(path: Path, graph: "KnowledgeGraph") -> None:
    from tickwise.tasks.graph_drawing import picture_of_graph

    picture = picture_of_graph(graph, "Facts")
    _draw(path, picture)
    say(picture.text)


def _score(arguments: Arguments, graph: "KnowledgeGraph", questions: "list[Question]") -> None:
    from tickwise.tasks.graph_scoring import score_answers

    scores = score_answers(questions, lambda question: graph.ask(question, arguments.hops))
    print(json.dumps(scores.to_json(), ensure_ascii=False) if arguments.json else _scores_told(scores))


def _scores_told(scores: "GraphScores") -> str:
    counts = scores.counts()

    def share(part: str, whole: str) -> str:
        return f"{counts[part]:>7,}" + (f"   {counts[part] / counts[whole]:.1%} of {counts[whole]:,}" if counts[whole]
                                        else "")

    lines = [f"{'questions':<32}{len(scores.judged):>7,}", f"{'  with an expected answer':<32}{counts['known']:>7,}",
             f"{'    answered':<32}{share('answered', 'known')}",
             f"{'      right':<32}{share('right', 'answered')}",
             f"{'  of which nothing is known':<32}{counts['unknown']:>7,}",
             f"{'    rightly silent':<32}{share('silent', 'unknown')}",
             "", f"{'':<32}{'exact match':>11} {'F1':>7}   95 % interval of F1"]
    names = {"answered": "answered of those with an answer", "known": "with an expected answer", "all": "all"}
    for name, (exact, f1) in scores.scores().items():
        between = f"{f1.interval.low:.4f} to {f1.interval.high:.4f}" if f1.interval else "n/a"
        lines.append(f"{names[name]:<32}{exact.value:>11.4f} {f1.value:>7.4f}   {between}")
    lines += [f"wrong: {one.answer.question}  {', '.join(given.text for given in one.answer.answers)}  "
              f"(expected: {' or '.join(one.expected) or 'nothing'})" for one in scores.wrong()]
    return "\n".join(lines)


def _told(answer: "GraphAnswer") -> str:
    from tickwise.tasks.graph_facts import Step, told

    if not answer.answers:
        return f"not found: {answer.reason}"
    lines = ["the facts contradict each other:"] if answer.contradictory else []
    for one in answer.answers:
        lines.append(f"{one.text}   (score {one.score:.2f})")
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
