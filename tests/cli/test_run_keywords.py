"""``tickwise run keywords`` from the command line."""

import io
import json

TEXT = "Graph coloring is hard. Graph coloring of planar maps needs four colors."


def test_a_text(tickwise_cli):
    code, out, _ = tickwise_cli("run", "keywords", TEXT, "--n", 3)
    assert code == 0
    assert "Graph coloring" in out
    assert len(out.strip().splitlines()) == 4


def test_json_of_lines_against_a_background_that_was_saved(tickwise_cli, tmp_path):
    corpus, texts, counts = tmp_path / "corpus.txt", tmp_path / "texts.txt", tmp_path / "counts.json"
    corpus.write_text("red apples\ngreen apples\nblue plums\n", encoding="utf-8")
    texts.write_text("apples and quinces\n东京是日本的首都\n", encoding="utf-8")
    first = tickwise_cli("run", "keywords", "--input", texts, "--each-line", "--json", "--background", corpus,
                         "--save-background", counts)
    again = tickwise_cli("run", "keywords", "--input", texts, "--each-line", "--json", "--background", counts)
    assert first[0] == again[0] == 0
    assert first[1] == again[1]
    english, chinese = (one["keywords"] for one in json.loads(first[1])["samples"])
    assert [k["text"] for k in english] == ["quinces", "apples"]
    assert english[0]["score"] > english[1]["score"]
    assert {"东京", "日本"} & {k["text"] for k in chinese} or any("东京" in k["text"] for k in chinese)


def test_mistakes_are_one_line(tickwise_cli, tmp_path):
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    for words, said in (
        (["--n", 0, "x"], "--n"),
        (["x", "--input", tmp_path / "empty.txt"], "not both"),
        (["--input", tmp_path / "empty.txt"], "empty"),
        ([""], "the text is empty"),
        (["x", "--background", tmp_path / "nowhere.json"], "missing"),
        (["x", "--save-background", tmp_path / "a.json"], "--background"),
    ):
        code, out, err = tickwise_cli("run", "keywords", *words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1
        assert said in err


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_texts_are_typed_at_a_terminal(tickwise_cli, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal(f"{TEXT}\n\n的\nplums\n"))
    code, out, err = tickwise_cli("run", "keywords", "--n", 3)
    assert code == 0
    assert err.startswith("a text per line; end with Ctrl-D\n> ")
    first, last = out.split("no keywords: the text has no content words\n")
    assert "Graph coloring" in first
    assert last.rstrip().endswith("plums")
    assert out.count("score  times  keyword") == 2
    monkeypatch.setattr("sys.stdin", Terminal("plums and apples\n"))
    code, out, _ = tickwise_cli("run", "keywords", "--json")
    assert {keyword["text"] for keyword in json.loads(out)["keywords"]} == {"plums", "apples"}


def test_saving_a_background_at_a_terminal_asks_for_no_text(tickwise_cli, monkeypatch, tmp_path):
    (tmp_path / "corpus.txt").write_text("red apples\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", Terminal("red\n"))
    code, out, err = tickwise_cli("run", "keywords", "--background", tmp_path / "corpus.txt", "--save-background",
                                  tmp_path / "counts.json")
    assert (code, out) == (0, "")
    assert "Ctrl-D" not in err
