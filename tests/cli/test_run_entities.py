"""``tickwise run entities`` from the command line: train on a file, resume, read texts, evaluate, mistakes."""

import io
import json

import pytest

from tickwise.profiling.trace_store import open_trace

SENTENCES = "Ada B-PER\nvisits O\nNew B-LOC\nYork I-LOC\n. O\n\nKurt B-PER\nlikes O\nBonn B-LOC\n. O\n\n"
TINY = ("--options.word-width", 8, "--options.hidden", 8, "--options.min-count", 1, "--options.lr", 0.02)


@pytest.fixture
def tagged(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text(SENTENCES * 10, encoding="utf-8")
    return path


def test_train_then_read_texts_then_evaluate(tickwise_cli, tagged, tmp_path):
    out = tmp_path / "run"
    code, printed, _ = tickwise_cli("run", "entities", "--train", tagged, "--dev", tagged, "--test", tagged,
                                    "--out", out, "--json", *TINY)
    assert code == 0
    result = json.loads(printed)
    assert result["results"]["entities"]["f1,none"] > 0.9
    assert result["parameters"] > 0
    assert result["n-samples"]["entities"] == {"original": 20, "effective": 20}
    assert result["config"]["model_args"]["path"] == str(out / "model")
    assert 0 <= result["results"]["entities"]["ece,none"] < 0.5
    assert set(result["types"]["entities"]) == {"PER", "LOC"}
    for name in ("config.json", "model.safetensors", "tag_features.json", "run.json"):
        assert (out / "model" / name).exists()
    assert json.loads((out / "model" / "config.json").read_text())["model_type"] == "tickwise-tagger"

    text = "Ada visits New York."
    code, printed, _ = tickwise_cli("run", "entities", out, text, "--json", "--html", tmp_path / "page.html")
    assert code == 0
    answer = json.loads(printed)
    assert [(e["text"], e["type"]) for e in answer["entities"]] == [("Ada", "PER"), ("New York", "LOC")]
    assert "<small>LOC</small>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    texts = tmp_path / "texts.txt"
    texts.write_text(f"{text}\n\nKurt likes Bonn.\n", encoding="utf-8")
    code, printed, _ = tickwise_cli("run", "entities", out, "--input", texts)
    assert printed.splitlines() == ["[Ada]/PER visits [New York]/LOC.", "", "[Kurt]/PER likes [Bonn]/LOC."]
    code, printed, _ = tickwise_cli("run", "entities", out, "--tokenized", "Ada visits New York .")
    assert printed.splitlines() == ["[Ada]/PER visits [New York]/LOC ."]
    assert (out / "model" / "word_habits.json").exists()
    code, printed, _ = tickwise_cli("run", "entities", out, "--test", tagged, "--html", tmp_path / "scores.html")
    assert code == 0
    assert "all" in printed
    page = (tmp_path / "scores.html").read_text(encoding="utf-8")
    assert page.count("<tr>") == 1 + 3
    assert '<th scope="row">LOC</th>' in page
    assert "<h2>Reliability</h2>" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")

    code, printed, _ = tickwise_cli("run", "entities", out, "--test", tagged, "--against", out, "--json")
    comparison = json.loads(printed)["comparison"]
    assert (code, comparison["model"], comparison["p"]) == (0, str(out), 1)
    assert comparison["f1"] == [result["results"]["entities"]["f1,none"]] * 2
    code, printed, _ = tickwise_cli("run", "entities", out, "--test", tagged, "--against", out)
    assert "p = 1: they do not differ" in printed

    code, _, err = tickwise_cli("run", "entities", "--train", tagged, "--out", out, *TINY)
    assert code == 2
    assert "holds a run already" in err
    (out / "model" / "tag_features.json").write_text("{", encoding="utf-8")
    code, _, err = tickwise_cli("run", "entities", out, text)
    assert code == 2
    assert "not valid JSON" in err


def test_mistakes_are_one_line(tickwise_cli, tagged, tmp_path):
    wrong = tmp_path / "wrong.conll"
    wrong.write_text(SENTENCES + "Rome I-LOC\n", encoding="utf-8")
    for words, said in (
        (["--train", wrong, "--out", tmp_path / "a"], "line 12: I-LOC follows the start of a sentence"),
        (["--train", tmp_path / "nowhere", "--out", tmp_path / "a"], "no such file"),
        (["--train", tagged], "--out"),
        (["--train", tagged, "--out", tmp_path / "a", "--options.hidden", 0], "hidden"),
        (["--train", tagged, "--out", tmp_path / "a", "--html", "x.html"], "--html"),
        ([tmp_path, "a text", "--against", tmp_path], "--against"),
        ([tmp_path, " "], "the text is empty"),
        ([tmp_path, "a text", "--patience", 2], "--patience: has a meaning with --train only"),
        (["--train", tagged, "--out", tmp_path / "a", "--patience", 0], "--patience: must be positive"),
        ([tmp_path, "a text"], "not a model directory"),
    ):
        code, out, err = tickwise_cli("run", "entities", *words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1, err
        assert said in err
    assert not (tmp_path / "a").exists()


def test_texts_are_typed_at_a_terminal_and_patience_ends_a_training(tickwise_cli, tagged, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = tmp_path / "run"
    code, _, err = tickwise_cli("run", "entities", "--train", tagged, "--dev", tagged, "--out", out, "--patience", 2,
                                *TINY)
    assert code == 0, err
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert losses[-3] == min(losses) == losses[-2] == losses[-1], "two validations without a better one"
    assert "2 validations without a new best" in err
    assert rows[-1]["step"] < 300

    monkeypatch.setattr("sys.stdin", Terminal("Ada visits New York.\n\nKurt likes Bonn.\n"))
    code, printed, err = tickwise_cli("run", "entities", out)
    assert (code, printed.splitlines()) == (0, ["[Ada]/PER visits [New York]/LOC.", "[Kurt]/PER likes [Bonn]/LOC."])
    assert "end with Ctrl-D" in err


def test_traces_have_the_stages_of_training_and_of_tagging(tickwise_cli, tagged, tmp_path):
    code, _, _ = tickwise_cli("run", "entities", "--train", tagged, "--out", tmp_path / "run", *TINY, "--max-seconds",
                              1, "--trace", tmp_path / "training")
    assert code == 0
    assert {"recurrent", "backward", "optimizer"} <= {row["stage"] for row in open_trace(tmp_path / "training").rows()}
    code, _, _ = tickwise_cli("run", "entities", tmp_path / "run", "Ada visits New York.", "--trace",
                              tmp_path / "tagging")
    assert code == 0
    rows = {row["stage"]: row for row in open_trace(tmp_path / "tagging").rows()}
    assert {"embed", "recurrent", "head", "host"} <= set(rows)
    assert rows["recurrent"]["flops"] > 0
