"""Passages of documents and questions about them."""

import json

import pytest

from tickwise.core.errors import DataError
from tickwise.data.passages import read_passages, read_questions, sentence_spans

SQUAD = {"data": [{"title": "Normans", "paragraphs": [
    {"context": "The Normans gave their name to Normandy.", "qas": [
        {"id": "q1", "question": "Who?", "answers": [{"text": "The Normans", "answer_start": 0}]},
        {"id": "q2", "question": "When?", "answers": []}]},
    {"context": "They were descended from Norse raiders."}]}]}  # fmt: skip


def passages(path, **settings):
    return list(read_passages([str(path)], **settings))


def test_paragraphs_of_text_say_their_line(tmp_path):
    path = tmp_path / "a.txt"
    long_enough = "word " * 50
    path.write_text(f"Short.\n\n{long_enough}\n\n\nAgain\n\n{long_enough}", encoding="utf-8")
    found = passages(path)
    assert [p.place for p in found] == ["line 1", "line 6"]
    assert found[0].text.startswith("Short.\nword")
    assert {p.source for p in found} == {str(path)}


def test_headings_of_markdown_are_titles(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("intro\n\n# One\n\nfirst text\n\n## Two\nsecond text\n", encoding="utf-8")
    assert [(p.title, p.text) for p in passages(path)] == [("", "intro"), ("One", "first text"), ("Two", "second text")]


def test_long_paragraphs_are_cut_between_sentences(tmp_path):
    path = tmp_path / "a.txt"
    sentences = [f"Number {i} has exactly seven words here." for i in range(200)]
    path.write_text(" ".join(sentences), encoding="utf-8")
    found = passages(path)
    assert len(found) > 3
    assert all(len(p.text.split()) <= 300 for p in found)
    assert " ".join(p.text for p in found) == " ".join(sentences)


def test_a_file_without_line_ends_is_cut_too(tmp_path):
    path = tmp_path / "zh.txt"
    path.write_text("量子计算机利用量子比特进行计算。" * 12_000, encoding="utf-8")
    found = passages(path)
    assert sum(len(p.text) for p in found) == 16 * 12_000
    assert max(len(p.text) for p in found) <= 300


def test_rows_and_squad_paragraphs_are_passages(tmp_path):
    rows, squad = tmp_path / "a.jsonl", tmp_path / "b.json"
    rows.write_text('{"body": "one"}\n{"body": "two\\n\\nthree"}\n', encoding="utf-8")
    squad.write_text(json.dumps(SQUAD), encoding="utf-8")
    assert [(p.place, p.text) for p in passages(rows, field="body")] == [("row 1", "one"), ("row 2", "two\n\nthree")]
    assert [(p.place, p.title) for p in passages(squad)] == [("paragraph 1", "Normans"), ("paragraph 2", "Normans")]


def test_questions(tmp_path):
    squad, rows = tmp_path / "a.json", tmp_path / "b.jsonl"
    squad.write_text(json.dumps(SQUAD), encoding="utf-8")
    rows.write_text('{"question": "Why?", "context": "Because.", "answers": ["Because"]}\n', encoding="utf-8")
    first, second, third = read_questions([str(squad), str(rows)])
    assert (first.text, first.answers, first.id) == ("Who?", ("The Normans",), "q1")
    assert first.context == "The Normans gave their name to Normandy."
    assert second.answers == ()
    assert (third.text, third.context, third.answers) == ("Why?", "Because.", ("Because",))


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.json", "{", "not valid JSON"), ("a.json", '{"data": [{}]}', "SQuAD"),
    ("a.json", '{"data": []}', "no paragraphs"),
    ("a.txt", "", "empty"), ("b.jsonl", '{"x": 1}\n', "no field 'text'"),
])  # fmt: skip
def test_bad_documents(tmp_path, name, content, said):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        passages(tmp_path / name)


def test_an_answer_may_be_one_text_and_what_is_not_known_null(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "Who?", "context": null, "answers": "Ada"}\n'
                    '{"question": "Who?", "answers": {"text": "Ada"}}\n'
                    '{"question": "Who?", "answers": null}\n', encoding="utf-8")
    assert [(q.context, q.answers) for q in read_questions([str(rows)])] == [("", ("Ada",)), ("", ("Ada",)), ("", ())]


@pytest.mark.parametrize(("paragraph", "said"), [
    ({"context": None, "qas": []}, "not in SQuAD's format"), ({"context": "x", "qas": ["y"]}, "not in SQuAD's format")])
def test_paragraphs_that_are_none(tmp_path, paragraph, said):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"data": [{"title": None, "paragraphs": [paragraph]}]}), encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_questions([str(file)])


def test_bad_questions(tmp_path):
    path = tmp_path / "q.jsonl"
    for content, said in (('{"context": "x"}\n', "no text 'question'"), ("", "no questions"),
                          ('{"question": "x", "answers": [1]}\n', "no texts"),
                          ('{"question": "x", "answers": 1}\n', "no texts"),
                          ('{"question": "x", "context": 1}\n', "context is no text"), ("nonsense\n", "line 1")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=said):
            read_questions([str(path)])


def test_sentences():
    text = "One is here. Two is, e.g., there! 三在这里。四呢？"
    assert [text[a:b] for a, b in sentence_spans(text)] == [
        "One is here.", "Two is, e.g., there!", "三在这里。", "四呢？"]
