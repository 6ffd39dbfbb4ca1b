"""``tickwise run retrieve`` and ``tickwise run ask`` from the command line."""

import json
import subprocess
import sys

import pytest

from tickwise.core import console

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
    assert "b.md, line 3 (Germany), retrieval 0." in out


def test_sentences_need_no_torch(folder):
    code = "import sys; from tickwise.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "run", "ask", "museums", "--documents", folder / "documents"],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, "museums" in done.stdout) == (0, True), done.stderr


def test_not_found(tickwise_cli, folder):
    words = ["run", "ask", "Who invented the telephone?", "--documents", folder / "documents"]
    code, out, _ = tickwise_cli(*words)
    assert (code, out[:9]) == (0, "not found")
    code, out, _ = tickwise_cli(*words, "--json")
    answer = json.loads(out)
    assert (answer["found"], answer["answer"]) == (False, None)


def test_it_is_said_that_no_passage_can_reach_the_threshold(tickwise_cli, folder):
    words = ["run", "ask", "museums of Rome", "--documents", folder / "documents", "--threshold", 0.95]
    code, out, _ = tickwise_cli(*words)
    assert code == 0
    _, shown, _ = tickwise_cli(*words, "--json")
    answer = json.loads(shown)
    assert (answer["found"], answer["score"], answer["support"], answer["candidates"]) == (False, None, None, [])
    most = 0.9 * answer["retrieval_score"] + 0.1
    assert out.startswith("not found: no answer can have a score of 0.95; in the nearest passage, ")
    assert f"a.txt, line 1, at most {most:.2f} (retrieval {answer['retrieval_score']:.2f}); nothing was read" in out


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
    assert (scores["answered"], scores["contains_reference"]) == (1, 1)
    assert 0 < scores["results"]["ask"]["f1,none"] < 1
    _, out, _ = tickwise_cli("run", "retrieve", "--documents", squad, "--index", tmp_path / "i", "--calibrate", squad,
                             "--json")
    threshold = json.loads(out)["threshold"]["value"]
    _, out, _ = tickwise_cli("run", "retrieve", "museums", "--index", tmp_path / "i", "--json")
    assert json.loads(out)["threshold"] == threshold
    code, out, err = tickwise_cli("run", "ask", "--index", tmp_path / "i", "--calibrate", squad, "--json")
    assert code == 0, err
    chosen = json.loads(out)["threshold"]
    assert (chosen["questions"], chosen["passages"]) == (2, 5)
    assert set(chosen["held_out"]) == {"found", "right", "refused"}
    for verb in ("ask", "retrieve"):
        _, out, _ = tickwise_cli("run", verb, "--index", tmp_path / "i", "--calibrate", squad)
        lines = out.splitlines()
        assert "on these 2 questions, on which it was chosen" in lines[0]
        assert lines[3] == "with thresholds that were chosen on the questions of other paragraphs:"
        assert len(lines) == 6
    _, out, _ = tickwise_cli("run", "ask", "museums", "--index", tmp_path / "i", "--json")
    assert json.loads(out)["threshold"] == chosen["value"]
    code, _, err = tickwise_cli("run", "ask", "museums", "--index", tmp_path / "i", "--passages", 2)
    assert (code, "--passages 2: the threshold of this index was chosen with 5; leave it out" in err) == (2, True)


def test_the_weights_of_a_calibration_are_kept_for_later(tickwise_cli, squad, tmp_path):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("3 2\nparis 1 0\nberlin 0 1\ncapital 0.5 0.5\n", encoding="utf-8")
    index = tmp_path / "i"
    code, _, err = tickwise_cli("run", "retrieve", "capital", "--documents", squad, "--embedder", vectors, "--index",
                                index)
    assert code == 0, err
    ask = ("run", "ask", "--index", index, "--json")
    code, out, err = tickwise_cli(*ask, "--calibrate", squad, "--embedding-weight", 0.3, "--reader-weight", 0.2,
                                  "--passages", 2)
    assert code == 0, err
    value = json.loads(out)["threshold"]["value"]
    code, out, err = tickwise_cli(*ask, "Which city is the capital of France?")
    assert code == 0, err
    answer = json.loads(out)
    best = answer["candidates"][0]
    assert answer["threshold"] == value
    assert answer["score"] == pytest.approx(0.8 * best["retrieval_score"] + 0.2 * best["support"])
    passage = answer["passage"]
    assert passage["score"] == pytest.approx(0.7 * passage["bm25"] + 0.3 * max(0, passage["cosine"]))
    # The search's own threshold may be chosen with other weights.
    assert tickwise_cli("run", "retrieve", "--index", index, "--calibrate", squad, "--embedding-weight", 0.5)[0] == 0
    code, out, err = tickwise_cli(*ask, "Which city is the capital of France?")
    assert (code, json.loads(out)) == (0, answer), err
    code, _, err = tickwise_cli(*ask, "museums", "--embedding-weight", 0.5)
    assert (code, "--embedding-weight 0.5: the threshold of this index was chosen with 0.3" in err) == (2, True)


@pytest.mark.parametrize("verb", ["ask", "retrieve"])
def test_rows_are_printed_as_they_come(tickwise_cli, folder, verb, monkeypatch):
    monkeypatch.setattr(console, "_PLAIN_INTERVAL_S", 0.0)
    questions = folder / "questions.txt"
    questions.write_bytes(b"museums of Paris\n" * 300 + b"\xff\n")
    words = ["run", verb, "--input", questions, "--documents", folder / "documents", "--json"]
    code, out, err = tickwise_cli(*words)
    assert (code, "line 301: not UTF-8" in err) == (2, True)
    rows = json.loads(out)["samples"]  # what was there before the mistake
    assert len(rows) == 256
    assert len(out.splitlines()) == 258
    assert ("answer: 85% 256 questions" if verb == "ask" else "retrieve: 85% 256 questions") in err


def test_a_page_of_answers(tickwise_cli, folder):
    questions = folder / "questions.txt"
    questions.write_text("Where does <Berlin> lie?\nWho invented the telephone?\nzebra\n", encoding="utf-8")
    code, out, err = tickwise_cli("run", "ask", "--input", questions, "--documents", folder / "documents", "--html",
                                  folder / "a.html")
    assert (code, len([line for line in out.splitlines() if line.startswith("not found")])) == (0, 2), err
    page = (folder / "a.html").read_text(encoding="utf-8")
    assert "<mark>It lies on the Spree.</mark>" in page
    assert "Where does &lt;Berlin&gt; lie?" in page
    assert "b.md, line 3 (Germany)" in page
    assert page.count("not found") == 2
    assert "<script" not in page


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
        (["ask", "Why?", *documents, "--passages", 0], "at least 1"),
        (["ask", "Why?", *documents, "--reader-weight", 2], "from 0 to 1"),
        (["ask", *documents, "--test", "x", "--html", folder / "a.html"], "--html"),
        (["ask", *documents, "--index", folder / "i", "--calibrate", "x", "--threshold", 0.1], "leave it out"),
        (["ask", "Why?", *documents, "--reader", folder], "config.json"),
    ):
        code, out, err = tickwise_cli("run", *words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1, err
        assert said in err
