"""``tickwise run retrieve`` and ``tickwise run ask`` from the command line."""

import json

import pytest

FRANCE = "Paris is the capital of France. It lies on the Seine. " + "The city has many museums. " * 8
GERMANY = "Berlin is the capital of Germany. It lies on the Spree. " + "The city has many lakes. " * 8


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.txt").write_text(FRANCE, encoding="utf-8")
    (tmp_path / "documents" / "b.md").write_text(f"# Germany\n\n{GERMANY}", encoding="utf-8")
    return tmp_path


@pytest.fixture
def squad(tmp_path):
    content = {"data": [{"title": "x", "paragraphs": [
        {"context": FRANCE, "qas": [{"id": "1", "question": "Which city is the capital of France?",
                                     "answers": [{"text": "Paris", "answer_start": 0}]}]},
        {"context": GERMANY, "qas": [{"id": "2", "question": "Where does Berlin lie?",
                                      "answers": [{"text": "on the Spree", "answer_start": 43}]}]}]}]}
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_an_answer_has_its_passage_and_score(tickwise_cli, folder):
    code, out, _ = tickwise_cli("run", "ask", "Which river does the capital of Germany lie on?", "--documents",
                                folder / "documents", "--threshold", 0.1)
    assert code == 0
    assert out.startswith("Berlin is the capital of Germany.")
    assert "b.md, line 3 (Germany)" in out


def test_not_found(tickwise_cli, folder):
    words = ["run", "ask", "Who invented the telephone?", "--documents", folder / "documents"]
    code, out, _ = tickwise_cli(*words)
    assert (code, out[:9]) == (0, "not found")
    code, out, _ = tickwise_cli(*words, "--json")
    answer = json.loads(out)
    assert (answer["found"], answer["answer"]) == (False, None)


def test_an_index_is_made_once_and_used_again(tickwise_cli, folder):
    index = folder / "index"
    made = tickwise_cli("run", "retrieve", "museums", "--documents", folder / "documents", "--index", index, "--json")
    again = tickwise_cli("run", "retrieve", "museums", "--index", index, "--json", "-k", 1)
    assert made[0] == again[0] == 0
    first, second = json.loads(made[1]), json.loads(again[1])
    assert first["passages"][0] == second["passages"][0]
    assert first["passages"][0]["source"].endswith("a.txt")
    code, _, err = tickwise_cli("run", "retrieve", "x", "--documents", folder / "documents", "--index", index)
    assert code == 2
    assert "--overwrite" in err


def test_questions_of_a_file_keep_their_order(tickwise_cli, folder):
    questions = folder / "questions.txt"
    questions.write_text("museums\n\nlakes of Germany\n", encoding="utf-8")
    _, out, _ = tickwise_cli("run", "ask", "--input", questions, "--documents", folder / "documents", "--json",
                             "--threshold", 0.1)
    samples = json.loads(out)["samples"]
    assert [one["question"] for one in samples] == ["museums", "", "lakes of Germany"]
    assert [one["found"] for one in samples] == [True, False, True]
    for verb in ("ask", "retrieve"):
        _, out, _ = tickwise_cli("run", verb, "--input", questions, "--documents", folder / "documents")
        assert "not found: the question is empty" in out


def test_evaluation_and_calibration(tickwise_cli, squad, tmp_path):
    code, out, _ = tickwise_cli("run", "retrieve", "--documents", squad, "--test", squad, "--json")
    assert code == 0
    assert json.loads(out)["results"]["retrieve"]["recall@1,none"] == 1
    assert json.loads(out)["results"]["retrieve"]["mrr@10,none"] == 1
    assert json.loads(out)["config"]["model_args"] == {"path": str(squad)}
    code, out, _ = tickwise_cli("run", "ask", "--documents", squad, "--test", squad, "--json", "--threshold", 0)
    scores = json.loads(out)
    # "It lies on the Spree" shares as much with the second question as the sentence before it.
    assert (scores["answered"], scores["contains_reference"]) == (1, 0.5)
    assert 0 < scores["results"]["ask"]["f1,none"] < 1
    _, out, _ = tickwise_cli("run", "retrieve", "--documents", squad, "--index", tmp_path / "i", "--calibrate", squad,
                             "--json")
    threshold = json.loads(out)["threshold"]["value"]
    _, out, _ = tickwise_cli("run", "retrieve", "museums", "--index", tmp_path / "i", "--json")
    assert json.loads(out)["threshold"] == threshold


def test_mistakes_are_one_line(tickwise_cli, folder):
    documents = ["--documents", folder / "documents"]
    for words, said in (
        (["ask", "Why?"], "needs documents"),
        (["ask", "", *documents], "empty"),
        (["ask", "Why?", "--documents", folder / "nowhere"], "no such file"),
        (["ask", "Why?", *documents, "--input", "x"], "one of"),
        (["ask", "Why?", *documents, "--threshold", 2], "from 0 to 1"),
        (["ask", "Why?", "--index", folder], "missing"),
        (["ask", "Why?", *documents, "--embedder", folder / "documents"], "config"),
        (["retrieve", "Why?", *documents, "--calibrate", "x"], "one of"),
        (["retrieve", *documents, "--calibrate", "x"], "--index"),
        (["retrieve", "Why?", *documents, "-k", 0], "at least 1"),
    ):
        code, out, err = tickwise_cli("run", *words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1, err
        assert said in err
