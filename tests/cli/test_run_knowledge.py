"""``tickwise run knowledge`` and ``tickwise run summarise`` from the command line."""

import json

import pytest


@pytest.fixture
def facts(tmp_path):
    path = tmp_path / "facts.tsv"
    path.write_text("Ada\tborn in\tLondon\nLondon\tlocated in\tEngland\nFrance\tcapital\tParis\nFrance\tcapital\tLyon\n"
                    "A\tpart of\tB\nB\tpart of\tA\n", encoding="utf-8")
    return path


def test_an_answer_shows_its_path(tickwise_cli, facts):
    code, out, err = tickwise_cli("run", "knowledge", "Was Ada born in England?", "--triples", facts)
    assert code == 0
    assert out.splitlines()[0] == "yes   (score 0.86)"
    assert "Ada –born in→ London" in out
    assert f"[{facts}, line 2]" in out
    assert "1 contradiction, 1 cycle" in err


def test_contradictions_are_told(tickwise_cli, facts):
    _, out, _ = tickwise_cli("run", "knowledge", "What is the capital of France?", "--triples", facts)
    assert out.startswith("the facts contradict each other:")
    _, out, _ = tickwise_cli("run", "knowledge", "--triples", facts, "--show", "--json")
    shown = json.loads(out)
    assert (shown["contradictions"], shown["cycles"]) == ([[2, 3]], [[4, 5]])


def test_what_denies_an_answer_is_told(tickwise_cli, tmp_path):
    facts = tmp_path / "facts.tsv"
    facts.write_text("Ada\tborn in\tLondon\nAda\twas not born in\tLondon\n", encoding="utf-8")
    _, out, _ = tickwise_cli("run", "knowledge", "Where was Ada born?", "--triples", facts)
    assert out.startswith("the facts contradict each other:\nLondon   (score 0.98)\n")
    assert f"against it: Ada –not born in→ London   [{facts}, line 2]" in out
    _, out, _ = tickwise_cli("run", "knowledge", "Where was Ada born?", "--triples", facts, "--json")
    assert [fact["relation"] for fact in json.loads(out)["against"]] == ["not born in"]


def test_text_becomes_a_graph_that_is_kept(tickwise_cli, tmp_path):
    text, graph = tmp_path / "a.txt", tmp_path / "graph.duckdb"
    text.write_text("Paris is the capital of France.", encoding="utf-8")
    assert tickwise_cli("run", "knowledge", "--documents", text, "--graph", graph, "--show")[0] == 0
    code, out, _ = tickwise_cli("run", "knowledge", "What is the capital of France?", "--graph", graph, "--json")
    assert code == 0
    assert json.loads(out)["answers"][0]["answer"] == "Paris"


def test_questions_of_a_file_are_scored(tickwise_cli, facts, tmp_path):
    questions = tmp_path / "questions.tsv"
    questions.write_text("Where was Ada born?\tParis\tLondon\nWho is Ada's mother?\t\n"
                         "Is London located in England?\tno\n", encoding="utf-8")
    code, out, _ = tickwise_cli("run", "knowledge", "--triples", facts, "--test", questions)
    assert code == 0
    told = [line.split() for line in out.splitlines()]
    assert ["answered", "2", "100.0%", "of", "2"] in told
    assert ["right", "1", "50.0%", "of", "2"] in told
    assert ["rightly", "silent", "1", "100.0%", "of", "1"] in told
    assert out.splitlines()[-1] == "wrong: Is London located in England?  yes  (expected: no)"
    _, out, _ = tickwise_cli("run", "knowledge", "--triples", facts, "--test", questions, "--json")
    found = json.loads(out)
    assert (found["n"], found["right"], found["silent"]) == (3, 1, 1)
    assert found["scores"]["known"]["exact_match"]["value"] == 0.5
    assert [sample["exact_match"] for sample in found["samples"]] == [True, True, False]


def test_the_path_and_the_facts_are_drawn(tickwise_cli, facts, tmp_path):
    picture, page = tmp_path / "path.svg", tmp_path / "facts.html"
    _, out, err = tickwise_cli("run", "knowledge", "Where was Ada born?", "--triples", facts, "--picture", picture)
    assert out.startswith("London")
    assert f"drawn: {picture}" in err
    drawn = picture.read_text(encoding="utf-8")
    assert drawn.startswith("<svg")
    assert "England" not in drawn
    code, out, err = tickwise_cli("run", "knowledge", "--triples", facts, "--picture", page)
    assert (code, out) == (0, "")
    assert "all 6 facts" in err
    assert "England" in page.read_text(encoding="utf-8")
    none = tmp_path / "none.svg"
    _, out, err = tickwise_cli("run", "knowledge", "Where was Bob born?", "--triples", facts, "--picture", none)
    assert "nothing to draw" in err
    assert not none.exists()


def test_mistakes_of_knowledge_are_one_line(tickwise_cli, facts, tmp_path):
    (tmp_path / "bad.tsv").write_text("a\tb\n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("Nothing to see.", encoding="utf-8")
    (tmp_path / "untold.tsv").write_text("Who is Ada?\n", encoding="utf-8")
    for words, said in (
        (["Why?"], "needs facts"),
        (["", "--triples", facts], "empty"),
        (["x", "--triples", tmp_path / "bad.tsv"], "line 1"),
        (["x", "--triples", tmp_path / "none.tsv"], "cannot read"),
        (["x", "--documents", tmp_path / "empty.txt"], "no facts"),
        (["x", "--graph", tmp_path / "none"], "no such graph"),
        (["x", "--graph", facts], "not a graph"),
        (["x", "--triples", facts, "--graph", "/proc/x.duckdb"], "cannot write"),
        (["x", "--triples", facts, "--hops", 0], "--hops"),
        (["x", "--triples", facts, "--overwrite"], "--overwrite"),
        (["x", "--triples", facts, "--test", facts], "--test"),
        (["--triples", facts, "--test", tmp_path / "none.tsv"], "cannot read"),
        (["--triples", facts, "--test", tmp_path / "untold.tsv"], "line 1"),
        (["--triples", facts, "--picture", tmp_path / "a.png"], ".svg or .html"),
        (["-", "--triples", facts, "--picture", tmp_path / "a.svg"], "--picture"),
    ):
        code, out, err = tickwise_cli("run", "knowledge", *words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1, err
        assert said in err


def test_a_summary(tickwise_cli, tmp_path):
    text = "One is here. Two is there. Three is here and there. Four."
    code, out, _ = tickwise_cli("run", "summarise", text, "--method", "lead", "--sentences", 2)
    assert (code, out) == (0, "One is here.\nTwo is there.\n")
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"dialogue": "#A#: x y\n#B#: y z", "summary": "x y"}) + "\n", encoding="utf-8")
    code, out, _ = tickwise_cli("run", "summarise", "--input", path, "--method", "copy", "--json")
    assert json.loads(out) == {"summary": "#A#: x y\n#B#: y z"}


def test_scores_of_summaries(tickwise_cli, tmp_path):
    pytest.importorskip("rouge_score")
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"dialogue": "x y\ny z", "summary1": "x y", "summary2": "q"}) + "\n", encoding="utf-8")
    code, out, _ = tickwise_cli("run", "summarise", "--test", path, "--method", "lead", "--sentences", 1, "--json")
    assert code == 0
    assert json.loads(out)["results"]["summarise"]["rouge1,none"] == 1


def test_mistakes_of_summarise_are_one_line(tickwise_cli, tmp_path):
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    for words, said in (([""], "empty"), (["x", "--sentences", 0], "--sentences"), (["--input", tmp_path / "empty.txt"],
                        "empty"), (["x", "--test", "y"], "one of"), (["--test", tmp_path / "empty.txt"], "no table")):
        code, out, err = tickwise_cli("run", "summarise", *words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1, err
        assert said in err
