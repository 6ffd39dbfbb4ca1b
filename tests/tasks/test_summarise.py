"""Summaries by baselines and TextRank, and their scores."""

import json
import math

import pytest

from tickwise.core.errors import ConfigError, DataError
from tickwise.tasks.summarise import (
    Summarised,
    baseline,
    evaluate_summaries,
    extract,
    lead,
    read_summarised,
    sentences,
    text_rank,
)

TEXT = ("Cats sleep a lot. Cats hunt mice at night. It rained. Mice fear cats and hide at night. "
        "The old house has mice and cats. Nobody came.")


def test_sentences_are_those_of_text_or_the_turns_of_a_dialogue():
    assert sentences(TEXT)[2] == "It rained."
    assert sentences("#Person1#: Hi. How are you?\n\n#Person2#: Fine!\n") == [
        "#Person1#: Hi. How are you?", "#Person2#: Fine!"]
    assert sentences(" ") == []
    assert sentences("A: one\u2028two\r\nB: three\x0cfour") == ["A: one\u2028two", "B: three\x0cfour"]


def test_lines_that_are_no_turns_are_cut_into_sentences():
    wrapped = ("The city council met on Tuesday evening to discuss the\nnew bridge over the river. The bridge will "
               "cost twelve\nmillion euros. It was needed, the mayor said: the old one\nis closed.\n")
    assert sentences(wrapped) == [
        "The city council met on Tuesday evening to discuss the new bridge over the river.",
        "The bridge will cost twelve million euros.", "It was needed, the mayor said: the old one is closed."]
    assert sentences("A title\n\nOne is here. Two is there.\nThree\r\nfour\n") == [
        "A title", "One is here.", "Two is there.", "Three", "four"]
    assert sentences("<bob> Hi. You?\n[12:30] Al: Fine. Bye.\n甲：好。再见。\nwell") == [
        "<bob> Hi. You?", "[12:30] Al: Fine. Bye.", "甲：好。再见。", "well"]


@pytest.mark.parametrize("colon", [":", "："])
def test_turns_need_no_space_behind_their_colon(colon):
    turns = ["小明:你好吗？今天我们去看电影", "小红:好的。几点见面呢", "小明:7点钟。在门口见", "Bob:fine. Bye."]
    turns = [turn.replace(":", colon) for turn in turns]
    assert sentences("\n".join(turns)) == turns
    times = ["It ends at 12:30 or so. Come", "at 11:15 then. Thanks."]
    assert sentences("\n".join(times).replace(":", colon)) == [
        part.replace(":", colon) for part in ("It ends at 12:30 or so.", "Come", "at 11:15 then.", "Thanks.")]
    assert sentences("See https://a.org now. Go there\nor http://b.org now. Do.") == [
        "See https://a.org now.", "Go there", "or http://b.org now.", "Do."]


def test_lead_and_copy():
    assert lead(TEXT, 2) == "Cats sleep a lot.\nCats hunt mice at night."
    assert baseline("copy")([TEXT, "x"]) == [TEXT, "x"]
    with pytest.raises(ConfigError, match="--sentences 0"):
        baseline("lead", 0)


def test_extraction_takes_what_is_linked_most_in_order():
    chosen = extract(TEXT, 2).splitlines()
    assert chosen == ["Cats hunt mice at night.", "Mice fear cats and hide at night."]
    assert extract("One.", 3) == "One."
    assert extract("", 3) == ""


def test_text_rank_is_pagerank_of_shared_words():
    # Sentences 0 and 1 share two words, 1 and 2 one; the fixed point of the definition is reached by plain iteration.
    terms = [["a", "b", "c"], ["a", "b", "d"], ["d", "e"], ["z", "y"]]
    w01, w12 = 2 / (2 * math.log(3)), 1 / (math.log(3) + math.log(2))
    ranks = [1.0] * 3
    for _ in range(300):
        ranks = [0.15 + 0.85 * w01 / (w01 + w12) * ranks[1], 0.15 + 0.85 * (ranks[0] + ranks[2]),
                 0.15 + 0.85 * w12 / (w01 + w12) * ranks[1]]
    assert text_rank(terms) == pytest.approx([*ranks, 0.15], abs=1e-3)


def test_chinese():
    text = "猫喜欢睡觉。猫在晚上抓老鼠。下雨了。老鼠怕猫，晚上躲起来。"
    assert extract(text, 2) == "猫在晚上抓老鼠。\n老鼠怕猫，晚上躲起来。"


def test_texts_that_are_too_long():
    with pytest.raises(DataError, match="--method lead"):
        extract("Word here.\n" * 4001)


def test_scores():
    pytest.importorskip("rouge_score")
    rows = [Summarised("a b c.\nd e f.", ("a b c", "x")), Summarised("g h.\ni j.", ("i j",))]
    scores = evaluate_summaries(baseline("lead", 1), rows)
    assert scores["rouge1"].value == 0.5
    assert evaluate_summaries(baseline("lead", 1), rows, "mean")["rouge1"].value == 0.25
    assert 0 < scores["meteor"].value < 0.5


def test_reading(tmp_path, shared_data, monkeypatch):
    monkeypatch.setenv("TICKWISE_DATA", str(shared_data))
    rows = read_summarised(["dialogsum"], "dialogue", "summary")
    assert len(rows) == 500
    assert {len(row.references) for row in rows} == {3}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "x", "sum": "y"}) + "\n")
    assert read_summarised([str(path)], "text", "sum") == [Summarised("x", ("y",))]
    with pytest.raises(DataError, match="row 1: needs a text 'dialogue'"):
        read_summarised([str(path)], "dialogue", "summary")
    path.write_text("[1, 2]\n")
    with pytest.raises(DataError, match="row 1: each row must be an object"):
        read_summarised([str(path)], "dialogue", "summary")
    with pytest.raises(DataError, match="no such file"):
        read_summarised(["nowhere.jsonl"], "text", "sum")
    for name, content in (("x.csv", 'text,sum1,sum2\n"a, b",c,d\n'), ("x.tsv", "text\tsum1\tsum2\na, b\tc\td\n"),
                          ("x.json", '[{"text": "a, b", "sum1": "c", "sum2": "d"}]')):
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert read_summarised([str(tmp_path / name)], "text", "sum") == [Summarised("a, b", ("c", "d"))]
    (tmp_path / "x.txt").write_text("plain\n", encoding="utf-8")
    with pytest.raises(DataError, match="no table"):
        read_summarised([str(tmp_path / "x.txt")], "text", "sum")
