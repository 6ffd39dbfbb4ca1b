"""Span questions from files, in windows, made from plain text; and the word-overlap baseline."""

import json

import numpy as np
import pytest

from tickwise.core.errors import DataError
from tickwise.data.cloze import cloze_questions
from tickwise.data.encoder_inputs import with_marks
from tickwise.data.span_windows import PASSAGE, QUESTION, SHARED, SHARED_PAIR, SpanWindows
from tickwise.data.spans import SpanQuestion, read_span_questions
from tickwise.evaluation.answers import f1
from tickwise.evaluation.span_baseline import best_sentence, fit_window, sliding_window
from tickwise.tokenizers.places import placed_ids
from tickwise.tokenizers.train import train_tokenizer

PASSAGE_TEXT = "Ada Lovelace wrote the first program in 1843. She lived in London with her mother."


def squad(path, answers, **more):
    question = {"id": "q1", "question": "Where did Ada live?", "answers": answers, **more}
    paragraph = {"context": PASSAGE_TEXT, "qas": [question]}
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [paragraph]}]}))
    return str(path)


def test_squads_answers_are_places(tmp_path):
    [q] = read_span_questions([squad(tmp_path / "a.json", [{"text": "London", "answer_start": 59}])])
    assert [PASSAGE_TEXT[a:b] for a, b in q.answers] == ["London"]
    assert q.references == ("London",)


def test_an_answer_beside_its_place_is_found_and_a_missing_one_is_said(tmp_path, capfd):
    file = squad(tmp_path / "a.json", [{"text": "London", "answer_start": 3}, {"text": "Paris", "answer_start": 3}])
    [q] = read_span_questions([file])
    assert [PASSAGE_TEXT[a:b] for a, b in q.answers] == ["London"]
    assert q.references == ("London", "Paris")
    assert "1 answers stand nowhere" in capfd.readouterr().err


def test_an_impossible_question_has_no_answer(tmp_path):
    file = squad(tmp_path / "a.json", [{"text": "London", "answer_start": 3}], is_impossible=True)
    assert read_span_questions([file])[0].answers == ()


def test_subjqa_rows(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('question,review,human_ans_spans,human_ans_indices\n'
                    'How is it?,"It is good. ANSWERNOTFOUND",It is good,"(0, 10)"\n'
                    'How is it?,"Bad. ANSWERNOTFOUND",ANSWERNOTFOUND,"(5, 19)"\n')
    first, second = read_span_questions([str(file)])
    assert first.passage[slice(*first.answers[0])] == "It is good"
    assert "ANSWERNOTFOUND" not in first.passage
    assert second.answers == ()
    assert second.references == ()


def test_subjqas_rows_about_one_review_are_answers_to_one_question(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('q_review_id,question,review,human_ans_spans,human_ans_indices\n'
                    'a,How is it?,"It is good and cheap. ANSWERNOTFOUND",It is good,"(0, 10)"\n'
                    'b,How is it?,"Bad. ANSWERNOTFOUND",ANSWERNOTFOUND,"(5, 19)"\n'
                    'a,How is it?,"It is good and cheap. ANSWERNOTFOUND",cheap,"(15, 20)"\n'
                    'a,How is it?,"It is good and cheap. ANSWERNOTFOUND",ANSWERNOTFOUND,"(22, 36)"\n')
    first, second = read_span_questions([str(file)])
    assert (first.id, first.references) == ("a", ("It is good", "cheap"))
    assert [first.passage[a:b] for a, b in first.answers] == ["It is good", "cheap"]
    assert f1("cheap", first.references) == 1  # whatever any of them answered is right
    assert (second.id, second.references) == ("b", ())


def test_the_real_sets_have_their_published_sizes(shared_data):
    rows = read_span_questions([str(shared_data / "subjqa/electronics/test.csv")])
    assert (len(rows), sum(bool(q.references) for q in rows)) == (358, 235)
    assert len(read_span_questions([str(shared_data / "cmrc2018/cmrc2018_trial.json")])) == 1002


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.json", "{", "not valid JSON"), ("a.json", "[1]", "not in SQuAD's format"),
    ("a.csv", "a,b\n1,2\n", "no column 'question'"), ("a.jsonl", '{"question": 1}\n', "row 1: needs the texts"),
    ("a.jsonl", '{"question": "a", "context": "b", "answers": [3]}\n', "its answers are not SQuAD's"),
    ("a.jsonl", '{"question": "a", "context": "b", "answers": 3}\n', "its answers are not SQuAD's"),
    ("a.jsonl", '{"question": "a", "context": "b", "answers": [{"text": null}]}\n', "its answers are not SQuAD's"),
    ("a.jsonl", '{"question": "a", "context": "5", "answers": [{"text": 5}]}\n', "its answers are not SQuAD's"),
    ("a.jsonl", '{"question": "a", "context": "b", "answers": [{"text": "b", "answer_start": 1e999}]}\n', "SQuAD's"),
    ("a.csv", "question,review,human_ans_spans,human_ans_indices\na,b,c,\"(1e999, 2)\"\n", "not two numbers"),
    ("a.csv", "question,review,human_ans_spans,human_ans_indices\n\udcff,b,c,d\n", "not UTF-8"),
])
def test_files_that_are_not_questions(tmp_path, name, content, said):
    (tmp_path / name).write_text(content, errors="surrogateescape")
    with pytest.raises(DataError, match=said):
        read_span_questions([str(tmp_path / name)])


@pytest.fixture(scope="module")
def tokenizer():
    return with_marks(train_tokenizer("bpe", iter([PASSAGE_TEXT * 20]), vocab_size=290))


def test_places_of_tokens_are_their_characters(tokenizer):
    [placed] = placed_ids(tokenizer, ["Ada  naïve 你好!"])
    assert {"Ada  naïve 你好!"[a:b] for a, b in placed.places} >= {"!", "你", "好"}
    assert all(not "Ada  naïve 你好!"[a:b].startswith(" ") for a, b in placed.places)


def test_windows_cover_the_passage_and_point_at_the_answer(tokenizer):
    passage = PASSAGE_TEXT * 3
    start = passage.rindex("London")
    q = SpanQuestion("1", "Where did Ada live?", passage, ((start, start + 6),), ("London",))
    windows = SpanWindows(tokenizer, 48, 16).make([q])
    assert len(windows) > 2
    assert all(len(w) <= 48 for w in windows)
    covered = np.zeros(len(passage), dtype=bool)
    answered = 0
    for window in windows:
        for a, b in window.places[window.places[:, 0] >= 0]:
            covered[a:b] = True
        first, last = (int(np.flatnonzero(row)[0]) for row in window.targets)
        if first:
            assert passage[window.places[first, 0] : window.places[last, 1]] == "London"
            answered += 1
        else:
            assert last == 0
    assert all(covered[i] for i, c in enumerate(passage) if not c.isspace())
    assert 1 <= answered < len(windows)


def test_words_that_the_question_has_are_marked(tokenizer):
    q = SpanQuestion("1", "Who wrote the first program? Ada", PASSAGE_TEXT, (), ())
    [window] = SpanWindows(tokenizer, 200, 50).make([q])
    kinds = {PASSAGE_TEXT[a:b]: kind for kind, (a, b) in zip(window.segments, window.places, strict=True) if a >= 0}
    assert kinds["."] == PASSAGE
    word_of = {}
    for kind, (a, b) in zip(window.segments, window.places, strict=True):
        for word in ("Ada", "wrote", "program", "London"):
            at = PASSAGE_TEXT.index(word)
            if at <= a < b <= at + len(word):
                word_of.setdefault(word, set()).add(int(kind))
    assert word_of == {"Ada": {SHARED}, "wrote": {SHARED_PAIR}, "program": {SHARED_PAIR}, "London": {PASSAGE}}
    assert set(window.segments[: list(window.places[:, 0] >= 0).index(True)].tolist()) == {QUESTION}


def test_questions_made_from_text_hide_their_answer():
    sentences = [f"The {a} {b} walked slowly towards the old {c} near the river {d}."
                 for a, b, c, d in zip(["red", "green", "blue", "white"], ["fox", "horse", "mouse", "crow"],
                                       ["castle", "bridge", "garden", "tower"], ["Thames", "Danube", "Rhine", "Nile"],
                                       strict=True)]
    made = cloze_questions([" ".join(sentences * 10)], 50, passage_words=60, seed=1)
    assert len(made) == 50
    for q in made:
        [(start, end)] = q.answers
        assert q.passage[start:end] == q.references[0]
        assert end - start > 0
        assert len(q.text) < 200
    assert sum(q.references[0] in q.text for q in made) < 10
    assert [q.text for q in cloze_questions([" ".join(sentences * 10)], 50, passage_words=60, seed=1)] == \
        [q.text for q in made]
    with pytest.raises(DataError, match="no text with a sentence"):
        cloze_questions(["short"], 5, passage_words=60, seed=1)


def test_chinese_questions_are_made_of_jiebas_words():
    text = "北京大学位于中国北京市海淀区，是中国最著名的大学之一。清华大学也位于北京市海淀区，以工科闻名世界。" * 5
    made = cloze_questions([text], 10, passage_words=40, seed=2)
    assert all(q.passage[slice(*q.answers[0])] == q.references[0] for q in made)


def test_the_baseline_takes_the_window_that_shares_most():
    q = SpanQuestion("1", "Where did she live with her mother?", PASSAGE_TEXT, (), ("London",))
    assert sliding_window(q, 5).endswith("her mother")
    assert best_sentence(q) == "She lived in London with her mother."
    assert sliding_window(SpanQuestion("1", "x", "", (), ()), 5) == ""


def test_the_baselines_length_is_the_best_on_training_questions():
    at = PASSAGE_TEXT.index("with her mother")
    q = SpanQuestion("1", "with her mother", PASSAGE_TEXT, ((at, at + 15),), ("with her mother",))
    fitted = fit_window([q] * 3, "squad")
    assert (fitted.length, fitted.training_f1) == (3, 1.0)
    assert fitted.answer(q) == "with her mother"
