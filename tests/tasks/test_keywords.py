"""Keywords with and without a background."""

import json

import pytest

from tickwise.core.errors import DataError
from tickwise.tasks.keywords import Background, corpus_documents, keywords

ENGLISH = ("Graph coloring assigns colors to the vertices of a graph. Register allocation is solved by graph coloring: "
           "register allocation builds a graph, and each register is a color. The report is long. The report is old.")
CHINESE = "量子计算机利用量子比特进行计算。量子比特可以叠加。传统计算机使用比特。报告很长，报告很旧。"


def test_a_background_makes_common_words_weigh_less():
    background = Background.count(["the report about sales", "a report on staff", "one more report: sales", "staff"])
    found = {k.text.lower() for k in keywords(ENGLISH, 4, background)}
    assert {"graph coloring", "register allocation"} <= found
    assert not {"coloring", "allocation"} & found
    scores = {k.text.lower(): k.score for k in keywords(ENGLISH, 20, background)}
    alone = {k.text.lower(): k.score for k in keywords(ENGLISH, 20, Background(4, {}))}
    assert scores["report"] < 0.5 * alone["report"]


def test_places_are_where_the_keyword_stands():
    for text in (ENGLISH, CHINESE):
        for keyword in keywords(text):
            assert text[slice(*keyword.places[0])] == keyword.text
            assert len(set(keyword.places)) == len(keyword.places)


def test_chinese():
    found = " ".join(k.text for k in keywords(CHINESE, 4))
    assert "量子" in found
    assert "比特" in found


def test_the_same_text_gives_the_same_keywords_in_order():
    assert keywords(ENGLISH) == keywords(ENGLISH)
    scores = [k.score for k in keywords(ENGLISH)]
    assert scores == sorted(scores, reverse=True)


def test_texts_without_words():
    assert keywords("") == []
    assert keywords("😀 12 — the") == []


def test_counts_survive_saving(tmp_path):
    background = Background.count(["red apple", "green apple"])
    background.save(tmp_path / "counts.json")
    assert Background.load(tmp_path / "counts.json") == background
    assert background.documents_with == {"red": 1, "apple": 2, "green": 1}
    with pytest.raises(DataError, match="no documents"):
        Background.count([])


@pytest.mark.parametrize("content", [
    {}, {"n_documents": 3}, {"n_documents": 3, "documents_with": {"a": "x"}},
    {"n_documents": 3, "documents_with": {"a": 1.5}}, {"n_documents": -3, "documents_with": {"a": 1}},
    {"n_documents": 3, "documents_with": {"a": -1}}, {"n_documents": True, "documents_with": {}},
])
def test_what_holds_no_counts_is_refused(tmp_path, content):
    (tmp_path / "other.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="not a file of background counts"):
        Background.load(tmp_path / "other.json")


def test_a_long_file_stays_one_document(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("word and word\n" * 60_000, encoding="utf-8")
    assert len(list(corpus_documents([str(path)], "file"))) == 1
    assert len(list(corpus_documents([str(path)], "line"))) == 60_000
