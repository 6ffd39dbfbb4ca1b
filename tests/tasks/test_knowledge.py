"""Questions to a graph of facts: paths, cycles, contradictions."""

import time
import tracemalloc

import pytest

from tickwise.core.errors import ConfigError, DataError, OutputError
from tickwise.tasks.graph_facts import facts_of_documents, facts_of_tables, told
from tickwise.tasks.knowledge import KnowledgeGraph, build_graph

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


SENTENCES = """Paris is the capital of France. Socrates taught Plato. Plato was the teacher of Aristotle.
Shakespeare is the author of Hamlet. Mary is the mother of John. Tom lives in Rome. Jobs founded Apple.
Ada was born in London."""


@pytest.fixture(scope="module")
def of_sentences(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_text(SENTENCES, encoding="utf-8")
    return build_graph(facts_of_documents([str(path)]))


@pytest.mark.parametrize(("question", "expected"), [
    ("Is Paris the capital of France?", ["yes"]), ("Is France the capital of Paris?", []),
    ("Is the capital of France Paris?", ["yes"]), ("Is France's capital Paris?", ["yes"]),
    ("Is Mary the mother of John?", ["yes"]), ("Is John the mother of Mary?", []),
    ("Is Mary John's mother?", ["yes"]), ("Is John Mary's mother?", []),
    ("Is Shakespeare the author of Hamlet?", ["yes"]), ("Is Hamlet the author of Shakespeare?", []),
    ("Did Shakespeare write Hamlet?", ["yes"]), ("Was Hamlet written by Shakespeare?", ["yes"]),
    ("Is Plato the teacher of Aristotle?", ["yes"]), ("Is Aristotle the teacher of Plato?", []),
    ("Did Plato teach Aristotle?", ["yes"]), ("Was Socrates taught by Plato?", []),
    ("Is Tom in Rome?", ["yes"]), ("Is France Paris?", []),
    ("Who is the teacher of Plato?", ["Socrates"]), ("Who is the teacher of Socrates?", []),
    ("Who taught Plato?", ["Socrates"]), ("Who did Plato teach?", ["Aristotle"]),
    ("Who was taught by Plato?", ["Aristotle"]), ("Who taught the teacher of Aristotle?", ["Socrates"]),
    ("Who is the mother of Mary?", []), ("Whose mother is Mary?", ["John"]), ("Who is John's mother?", ["Mary"]),
    ("What is the capital of Paris?", []), ("By whom was Hamlet written?", ["Shakespeare"]),
    ("Who was born in London?", ["Ada"]), ("Where was London born?", []), ("Where does Tom live?", ["Rome"]),
    ("Who founded Apple?", ["Jobs"]), ("Who is the founder of Apple?", ["Jobs"]), ("What did Apple found?", []),
])  # fmt: skip
def test_facts_are_read_in_the_direction_of_the_question(question, expected, of_sentences):
    assert [answer.text for answer in of_sentences.ask(question).answers] == expected


CLAUSES = """Einstein, who was born in Ulm, received the Nobel Prize in 1921.
Einstein received the Copley Medal in 1925. Steve Jobs co-founded Apple.
Marie Curie discovered polonium and radium.
The bridge was destroyed in 1945 by the army.
The fleet destroyed the harbour in 1807. Marie Curie won the Nobel Prize in 1903.
Planck won the Nobel Prize in 1918. England is a country in Europe."""


@pytest.fixture(scope="module")
def of_clauses(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_text(CLAUSES, encoding="utf-8")
    return build_graph(facts_of_documents([str(path)]))


@pytest.mark.parametrize(("question", "expected"), [
    ("When was Einstein born?", []), ("Where was Einstein born?", ["Ulm"]),
    ("When did Marie Curie win the Copley Medal?", []),
    ("When did Einstein receive the Nobel Prize?", ["1921"]), ("When did Einstein receive the Copley Medal?", ["1925"]),
    ("When is Einstein?", ["1921", "1925"]), ("What did Einstein receive in 1925?", ["Copley Medal"]),
    ("Who received the Nobel Prize?", ["Einstein"]),
    ("What did Einstein receive?", ["Nobel Prize", "Copley Medal"]),
    ("Who founded Apple?", ["Steve Jobs"]), ("Who co-founded Apple?", ["Steve Jobs"]),
    ("What did Steve Jobs found?", ["Apple"]), ("Did Steve Jobs found Apple?", ["yes"]),
    ("Who discovered radium?", ["Marie Curie"]), ("Who discovered polonium?", ["Marie Curie"]),
    ("What did Marie Curie discover?", ["polonium", "radium"]),
    ("Who destroyed the bridge?", ["army"]), ("When was the bridge destroyed?", ["1945"]),
    ("Who destroyed the harbour?", ["fleet"]), ("When was the harbour destroyed?", ["1807"]),
    ("When did the fleet destroy the harbour?", ["1807"]), ("What did the fleet destroy?", ["harbour"]),
    ("Who won the Nobel Prize in 1903?", ["Marie Curie"]), ("Who won the Nobel Prize?", ["Marie Curie", "Planck"]),
    ("Who won the Nobel Prize in 1950?", []), ("Is England a country?", ["yes"]), ("Is England in Europe?", ["yes"]),
    ("Which country is in Europe?", ["England"]), ("Did Einstein invent it?", []),
])  # fmt: skip
def test_questions_about_sentences_of_several_clauses(question, expected, of_clauses):
    assert [answer.text for answer in of_clauses.ask(question).answers] == expected


@pytest.mark.parametrize(("question", "expected"), [
    ("What is the capital of France?", ["Paris"]), ("Is France the capital of Paris?", []),
    ("Is Paris the capital of France?", ["yes"]), ("Who likes Bob?", ["Tom"]), ("What does Tom like?", ["Bob"]),
    ("Does Bob like Tom?", []), ("Who wrote Emma?", ["Austen"]), ("What did Austen write?", ["Emma"]),
    ("Is Sue the wife of Tom?", ["yes"]), ("Is Tom the wife of Sue?", []), ("Who is the husband of Sue?", ["Tom"]),
])  # fmt: skip
def test_relations_of_tables_have_a_direction_too(question, expected):
    facts = [("Paris", "capital of", "France"), ("Tom", "likes", "Bob"), ("Emma", "written by", "Austen"),
             ("Tom", "wife", "Sue"), ("→", "←", "x")]
    assert answers(question, facts) == expected


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
    ("Who is Napoleon?", "no name"), ("Who painted Hamlet?", "no path"), (" ", "is empty"), ("Hamlet?", "no words"),
    ("Is England located in London?", "no path"),
])  # fmt: skip
def test_what_the_facts_do_not_say_is_not_answered(question, reason):
    answer = graph(*FACTS).ask(question)
    assert answer.answers == ()
    assert reason in answer.reason


def test_a_not_in_a_name_denies_nothing():
    facts = [("Never Let Me Go", "directed by", "Mark Romanek"), ("Don't Look Now", "directed by", "Nicolas Roeg"),
             ("Can't Buy Me Love", "written by", "Paul McCartney"),
             ("Ada Brown", "does not like", "Don’t Look Now"), ("Ada Brown", "like", "Hamlet")]
    assert answers("Who directed Don't Look Now?", facts) == ["Nicolas Roeg"]
    assert answers("Who directed Don’t Look Now?", facts) == ["Nicolas Roeg"]
    assert answers("Who directed Never Let Me Go?", facts) == ["Mark Romanek"]
    assert answers("Who wrote Can't Buy Me Love?", facts) == ["Paul McCartney"]
    assert answers("Who doesn't like Don't Look Now?", facts) == ["Ada Brown"]
    assert answers("What doesn't Ada Brown like?", facts) == ["Don’t Look Now"]
    assert answers("Who does n't like Don't Look Now?", facts) == ["Ada Brown"]


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


class _Counting:
    """A connection that counts its queries."""

    def __init__(self, connection):
        self._connection, self.n = connection, 0

    def execute(self, *query):
        self.n += 1
        return self._connection.execute(*query)


def test_more_answers_need_no_more_queries():
    n_queries = []
    for n in (1, 300):
        made = graph(*[(f"P{i}", "works for", "Acme") for i in range(n)], ("P0", "does not work for", "Acme"),
                     *[(f"P{i}", "capital of", "France") for i in range(n)], ("France", "capital", "Lyon"))
        made._connection = counting = _Counting(made._connection)
        answer = made.ask("Who works for Acme?")
        assert (len(answer.answers), [fact.id for fact in answer.against]) == (n, [n])
        assert made.ask("What is the capital of France?").contradictory
        n_queries.append(counting.n)
    assert n_queries[0] == n_queries[1]


def test_a_denial_is_told_with_what_it_denies():
    made = graph(("Ada", "born in", "London"), ("Ada", "was not born in", "London"),
                 ("London", "located in", "England"), ("Bob", "is", "dead"), ("Bob", "is not", "dead"),
                 ("Tom", "likes", "Bob"), ("Tom", "does not like", "Bob"), ("Eve", "never lived in", "Rome"))
    assert [[f.id for f in group] for group in made.problems().contradictions] == [[0, 1], [3, 4], [5, 6]]
    for question, texts, against in (("Where was Ada born?", ["London"], [1]),
                                     ("Was Ada born in England?", ["yes"], [1]), ("Is Bob dead?", ["yes", "no"], []),
                                     ("Who likes Bob?", ["Tom"], [6]), ("Who does not like Bob?", ["Tom"], [5])):
        answer = made.ask(question)
        assert [one.text for one in answer.answers] == texts, question
        assert answer.contradictory, question
        assert [fact.id for fact in answer.against] == against, question
    assert answers("Did Eve live in Rome?", [fact[1:4] for fact in made.facts()]) == ["no"]
    assert made.ask("Where did Eve live?").answers == ()


def test_two_holders_of_one_role_contradict_each_other():
    made = graph(("Paris", "capital of", "France"), ("Lyon", "capital of", "France"), ("Italy", "capital", "Milan"),
                 ("Rome", "capital of", "Italy"), ("Hal", "father of", "Kim"), ("Hal", "father of", "Lea"))
    assert [[f.id for f in group] for group in made.problems().contradictions] == [[0, 1], [2, 3]]
    assert made.ask("What is the capital of France?").contradictory
    (answer, other), against = (found := made.ask("What is the capital of Italy?")).answers, found.against
    assert {answer.text, other.text} == {"Rome", "Milan"}
    assert against == ()
    assert not made.ask("Who is the father of Lea?").contradictory


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


def test_only_a_graph_is_replaced(tmp_path):
    path = tmp_path / "graph.duckdb"
    facts = [("Paris", "capital of", "France", "x")]
    build_graph(facts, path)
    build_graph([*facts, ("Seine", "is a", "river", "x")], path, overwrite=True)
    assert KnowledgeGraph.open(path).n_facts == 2
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("four years of work")
    for taken in (thesis, tmp_path):
        with pytest.raises(OutputError, match="no graph; give another file"):
            build_graph(facts, taken, overwrite=True)
    assert thesis.read_text() == "four years of work"
    import duckdb

    with duckdb.connect(str(tmp_path / "other.duckdb")) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 1 AS x")
    with pytest.raises(OutputError, match="no graph"):
        build_graph(facts, tmp_path / "other.duckdb", overwrite=True)


def test_facts_of_a_document_say_where_they_stand(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("Nothing here.\n\nParis is the capital of France. It lies on the Seine.\n", encoding="utf-8")
    found = list(facts_of_documents([str(text)]))
    assert [fact[:3] for fact in found] == [("France", "capital", "Paris"), ("Paris", "lie on", "Seine")]
    assert "a.txt" in found[0][3]
    assert "Paris is the capital of France." in found[0][3]


def test_a_fact_has_its_own_line(tmp_path):
    text, notes, rows = tmp_path / "a.txt", tmp_path / "b.md", tmp_path / "c.jsonl"
    text.write_text("Paris is the capital of France.\n\n\nBob lives in Rome, not in London. Ada lived\n"
                    "in London. Eve lives in Oslo.\nTom lives in Bonn.\n", encoding="utf-8")
    notes.write_text("# Places\nnothing yet.\nKim lives in Kyiv.\n", encoding="utf-8")
    rows.write_text('{"text": "Nothing.\\nJan lives in Graz."}\n', encoding="utf-8")
    found = facts_of_documents([str(text), str(notes), str(rows)])
    assert {fact[0]: fact[3].removeprefix(f"{tmp_path}/").split(":")[0] for fact in found} == {
        "France": "a.txt, line 1", "Bob": "a.txt, line 4", "Ada": "a.txt, line 4", "Eve": "a.txt, line 5",
        "Tom": "a.txt, line 6", "Kim": "b.md, line 3", "Jan": "c.jsonl, row 1"}


def test_names_with_very_many_facts_do_not_stop_an_answer():
    facts = [(f"person {i}", "is a", "human") for i in range(20_000)]
    facts += [("person 7", "mother", "person 8"), ("person 8", "mother", "person 9")]
    made = graph(*facts)
    started = time.perf_counter()
    assert [a.text for a in made.ask("Who is the mother of the mother of person 7?").answers] == ["person 9"]
    assert time.perf_counter() - started < 10


def test_walks_through_a_hub_are_not_all_kept():
    facts = [("Start", "like", f"name {i}") for i in range(200)] + [(f"name {i}", "visit", "Hub") for i in range(1500)]
    made = graph(*facts, ("name 3", "paint", "picture 9"))
    tracemalloc.start()
    answer = made.ask("Who painted what the name liked by Start visits?", hops=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15e6
    assert answer.question
    assert [a.text for a in made.ask("What did the name that Start likes paint?").answers] == ["picture 9"]


def test_a_long_chain_and_many_denials_take_little_time():
    chain = [(f"part {i}", "part of", f"part {i + 1}") for i in range(10_000)]
    denied = [(f"thing {i}", "not is", "fish") for i in range(500)] + [("thing 7", "is", "fish")]
    made = graph(*chain, ("part 10000", "part of", "part 9998"), *denied)
    started = time.perf_counter()
    problems = made.problems()
    assert time.perf_counter() - started < 5
    assert [len(cycle) for cycle in problems.cycles] == [3]
    assert [[fact.relation for fact in pair] for pair in problems.contradictions] == [["is", "not is"]]
