"""Questions with expected answers, put to a graph of facts."""

import json

import pytest

from tickwise.core.errors import DataError
from tickwise.tasks.graph_scoring import read_expected, score_answers
from tickwise.tasks.knowledge import build_graph

FACTS = [("Marie Curie", "born in", "Warsaw"), ("Marie Curie", "discover", "radium"),
         ("Marie Curie", "discover", "polonium"), ("army", "destroy", "bridge")]


def scores(*questions, tmp_path):
    path = tmp_path / "questions.tsv"
    path.write_text("".join("\t".join(question) + "\n" for question in questions), encoding="utf-8")
    graph = build_graph([(*fact, "x") for fact in FACTS])
    return score_answers(read_expected([str(path)]), graph.ask)


def test_what_is_right_wrong_and_silent_is_counted(tmp_path):
    found = scores(("question", "answer"), ("Where was Marie Curie born?", "Paris", "Warsaw"),
                   ("Who destroyed the bridge?", "The Army!"), ("Who discovered radium?", "Pierre Curie"),
                   ("Who built the bridge?", "a king"), ("When was Marie Curie born?", ""),
                   ("Who discovered polonium?", ""), tmp_path=tmp_path)
    assert found.counts() == {"known": 4, "answered": 3, "right": 2, "unknown": 2, "silent": 1}
    exact, f1 = found.scores()["known"]
    assert (exact.value, f1.value) == (2 / 4, (1 + 1 + 0.5) / 4)  # "Marie Curie" and "Pierre Curie" share a word
    assert found.scores()["answered"][0].value == 2 / 3
    assert found.scores()["all"][0].value == (2 + 1) / 6
    assert [one.answer.question for one in found.wrong()] == ["Who discovered radium?", "Who discovered polonium?"]


def test_every_name_of_an_answer_must_be_accepted(tmp_path):
    question = "What did Marie Curie discover?"
    assert scores((question, "radium", "polonium"), tmp_path=tmp_path).counts()["right"] == 1
    half = scores((question, "radium"), tmp_path=tmp_path)
    assert half.counts()["right"] == 0
    assert half.scores()["known"][1].value == 0.5


def test_questions_without_expected_answers_have_no_score_of_answers(tmp_path):
    assert set(scores(("Who likes radium?", ""), tmp_path=tmp_path).scores()) == {"all"}


def test_rows_of_json_may_have_one_answer_several_or_none(tmp_path):
    path = tmp_path / "questions.jsonl"
    rows = [{"question": "a?", "answer": "x"}, {"question": "b?", "answers": ["x", "y"]},
            {"question": "c?", "answers": []}, {"question": "d?", "answer": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert [question.answers for question in read_expected([str(path)])] == [("x",), ("x", "y"), (), ()]


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.tsv", "Who?\tx\nWhere is it?\n", "a.tsv, line 2"), ("a.tsv", "\tx\n", "a.tsv, line 1"),
    ("a.tsv", "", "no questions"), ("a.jsonl", '{"question": "Who?"}\n', "row 1: needs either"),
    ("a.jsonl", '{"answer": "x"}\n', "row 1: no text 'question'"),
    ("a.jsonl", '{"question": "Who?", "answers": [1]}\n', "row 1: its answers"), ("a.jsonl", "{\n", "line 1"),
])  # fmt: skip
def test_mistakes_in_a_file_are_told_with_their_line(tmp_path, name, content, said):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_expected([str(tmp_path / name)])
