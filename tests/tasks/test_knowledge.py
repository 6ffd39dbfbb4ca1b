"""Questions to a graph of facts: paths, cycles, contradictions."""

import time

import pytest

from tickwise.core.errors import ConfigError, DataError, OutputError
from tickwise.tasks.knowledge import (
    KnowledgeGraph,
    build_graph,
    facts_of_documents,
    facts_of_tables,
    told,
)

FACTS = [
    ("Ada Lovelace", "born in", "London"), ("London", "located in", "England"), ("England", "is a", "country"),
    ("England", "capital", "London"), ("William Shakespeare", "write", "Hamlet"), ("Hamlet", "written in", "1600"),
    ("William Shakespeare", "born in", "Stratford"), ("William Shakespeare", "born in", "1564"),
    ("England", "population", "56 million"), ("Ada Lovelace", "mother", "Lady Byron"),
    ("Whales", "not is", "fish"), ("A", "part of", "B"),
]  # fmt: skip


def graph(*facts, **settings):
    return build_graph([(*fact, f"line {i}") for i, fact in enumerate(facts)], **settings)


def answers(question, facts=FACTS, hops=3):
    return [answer.text for answer in graph(*facts).ask(question, hops).answers]


@pytest.mark.parametrize(("question", "expected"), [
    ("Who wrote Hamlet?", ["William Shakespeare"]),
    ("Who is the author of Hamlet?", ["William Shakespeare"]),
    ("What is the capital of England?", ["London"]),
    ("Who is Ada Lovelace's mother?", ["Lady Byron"]),
    ("Where was the author of Hamlet born?", ["Stratford"]),
    ("When was the author of Hamlet born?", ["1564"]),
    ("In which year was Hamlet written?", ["1600"]),
    ("What is the population of the country where Ada Lovelace was born?", ["56 million"]),
    ("What is the capital of the country where Ada Lovelace was born?", ["London"]),
    ("Is London located in England?", ["yes"]),
    ("Was Hamlet written by William Shakespeare?", ["yes"]),
    ("Are whales fish?", ["no"]),
    ("How are Ada Lovelace and England related?", ["England"]),
])  # fmt: skip
def test_questions(question, expected):
    assert answers(question) == expected


def test_the_path_is_told():
    (answer,) = graph(*FACTS).ask("What is the population of the country where Ada Lovelace was born?").answers
    assert [told(step) for step in answer.path] == [
        "Ada Lovelace –born in→ London", "London –located in→ England", "England –population→ 56 million"]
    assert [step.fact.where for step in answer.path] == ["line 0", "line 1", "line 8"]
    (author,) = graph(*FACTS).ask("Who wrote Hamlet?").answers
    assert told(author.path[0]) == "Hamlet ←write– William Shakespeare"


def test_a_path_needs_enough_hops():
    question = "What is the population of the country where Ada Lovelace was born?"
    assert answers(question, hops=2) == []
    with pytest.raises(ConfigError, match="--hops 0"):
        graph(*FACTS).ask(question, 0)


@pytest.mark.parametrize(("question", "reason"), [
    ("Who is Napoleon?", "no name"), ("Who painted Hamlet?", "no path"), ("", "no name"), ("Hamlet?", "no words"),
    ("Is England located in London?", "no path"),
])  # fmt: skip
def test_what_the_facts_do_not_say_is_not_answered(question, reason):
    answer = graph(*FACTS).ask(question)
    assert answer.answers == ()
    assert reason in answer.reason


def test_cycles_end_and_are_told():
    ring = [("A", "part of", "B"), ("B", "part of", "C"), ("C", "part of", "A"), ("C", "part of", "D"),
            ("E", "part of", "E"), ("A", "marry", "B"), ("B", "marry", "A")]
    made = graph(*ring)
    assert [[f.id for f in cycle] for cycle in made.problems().cycles] == [[0, 1, 2], [4]]
    assert [a.text for a in made.ask("Is A part of D?", hops=5).answers] == ["yes"]
    assert made.ask("Is D part of A?", hops=6).answers == ()


def test_contradictions_are_told_with_the_answers():
    facts = [("France", "capital", "Paris"), ("France", "capital", "Lyon"), ("Ada", "born in", "London"),
             ("Ada", "born in", "1815"), ("whale", "is a", "fish"), ("whale", "not is a", "fish"),
             ("Paul", "wears", "hat"), ("Paul", "wears", "coat")]
    made = graph(*facts)
    assert [[f.id for f in group] for group in made.problems().contradictions] == [[0, 1], [4, 5]]
    answer = made.ask("What is the capital of France?")
    assert answer.contradictory
    assert {one.text for one in answer.answers} == {"Paris", "Lyon"}
    assert not made.ask("Where was Ada born?").contradictory
    declared = graph(*facts, single=["wears"])
    assert [[f.id for f in group] for group in declared.problems().contradictions][1] == [6, 7]


def test_names_of_different_case_are_one_and_facts_are_kept_once():
    made = graph(("Paris", "located in", "France"), ("PARIS", "Located_In", "france"), ("paris", "river", "Seine"))
    assert made.n_facts == 2
    assert len(made.facts("Paris")) == 2


def test_files(tmp_path):
    table = tmp_path / "facts.tsv"
    table.write_text("subject\trelation\tobject\nParis\tcapital_of\tFrance\n\n", encoding="utf-8")
    path = tmp_path / "graph.duckdb"
    build_graph(facts_of_tables([str(table)]), path)
    kept = KnowledgeGraph.open(path)
    assert kept.facts()[0][1:] == ("Paris", "capital of", "France", f"{table}, line 2")
    with pytest.raises(OutputError, match="--overwrite"):
        build_graph(facts_of_tables([str(table)]), path)
    table.write_text("Paris\tcapital_of\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 1: needs three columns"):
        build_graph(facts_of_tables([str(table)]), path, overwrite=True)
    assert KnowledgeGraph.open(path).n_facts == 1
    with pytest.raises(DataError, match="no such graph"):
        KnowledgeGraph.open(tmp_path / "none")
    with pytest.raises(DataError, match="not a graph"):
        KnowledgeGraph.open(table)
    with pytest.raises(DataError, match="no facts"):
        build_graph([])


def test_facts_of_a_document_say_where_they_stand(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("Nothing here.\n\nParis is the capital of France. It lies on the Seine.\n", encoding="utf-8")
    found = list(facts_of_documents([str(text)]))
    assert [fact[:3] for fact in found] == [("France", "capital", "Paris"), ("Paris", "lie on", "Seine")]
    assert "a.txt" in found[0][3]
    assert "Paris is the capital of France." in found[0][3]


def test_names_with_very_many_facts_do_not_stop_an_answer():
    facts = [(f"person {i}", "is a", "human") for i in range(20_000)]
    facts += [("person 7", "mother", "person 8"), ("person 8", "mother", "person 9")]
    made = graph(*facts)
    started = time.perf_counter()
    assert [a.text for a in made.ask("Who is the mother of the mother of person 7?").answers] == ["person 9"]
    assert time.perf_counter() - started < 10
