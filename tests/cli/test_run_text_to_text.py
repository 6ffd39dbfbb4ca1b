"""Text to text from the command line: pre-train on text, fine-tune on tasks, answer, summarise, mistakes."""

import json
import subprocess
import sys

import pytest

SMALL = ("--options.width", 32, "--options.encoder-layers", 1, "--options.decoder-layers", 1, "--options.n-heads", 1,
         "--options.vocab-size", 300, "--options.longest", 64, "--options.epochs", 1, "--device", "cpu", "--json")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    rows = [{"dialogue": f"#A#: I have {n} cats.\n#B#: And I have {n + 1} dogs.", "summary": f"#A# has {n} cats."}
            for n in range(60)]
    (folder / "dialogues.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "plain.txt").write_text("\n".join(row["dialogue"] for row in rows) + "\n", encoding="utf-8")
    (folder / "pairs.tsv").write_text("".join(f"{n} cats\t{n + 1} cats\n" for n in range(60)), encoding="utf-8")
    (folder / "test.tsv").write_text("".join(f"{n} cats\t{n + 1} cats\n" for n in range(20)), encoding="utf-8")
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:20]), encoding="utf-8")
    return folder


def test_pretrain_then_fine_tune_then_answer(tickwise_cli, texts, tmp_path, monkeypatch):
    pretrained, tuned = tmp_path / "pretrained", tmp_path / "tuned"
    code, out, err = tickwise_cli(
        "train", "text-to-text", texts / "plain.txt", "--out", pretrained, "--depth", 1, "--model.width", 32,
        "--context", 24, "--longest", 64, "--vocab-size", 300, "--max-steps", 3, "--device", "cpu", "--json")
    assert code == 0, err
    assert json.loads(out)["step"] == 3
    assert "span corruption, 15% of 26 tokens" in err
    pairs, dialogues = f"next: ={texts / 'pairs.tsv'}", f"summarise: ={texts / 'dialogues.jsonl'}[dialogue,summary]"
    code, out, err = tickwise_cli("run", "text-to-text", "--task", pairs, "--task", dialogues, "--start", pretrained,
                                  "--test", f"next: ={texts / 'test.tsv'}", "--out", tuned, "--mixture.temperature", 2,
                                  "--beam", 1, *SMALL)
    assert code == 0, err
    assert "warm start" in err
    assert "left out of the training 20 whose source is in the test part" in err
    found = json.loads(out)
    assert set(found["results"]) == {"next: "}
    (texts / "sources.txt").write_text("".join(f"next: {n} cats\n" for n in range(20)) + "\n", encoding="utf-8")
    code, out, err = tickwise_cli("run", "text-to-text", tuned, "--input", texts / "sources.txt", "--beam", 1, "--json")
    assert code == 0, err
    *written, blank = [row["answer"] for row in json.loads(out)["samples"]]
    assert blank == ""
    right = [text == f"{n + 1} cats" for n, text in enumerate(written)]
    assert found["results"]["next: "]["exact_match,none"] == sum(right) / 20
    assert found["left_out"] == {"next: ": 0}
    assert found["cut"] == {"next: ": sum(row["cut"] for row in json.loads(out)["samples"])}
    assert found["translation"] == {}  # of two words each
    sentences = tmp_path / "sentences.tsv"
    sentences.write_text("dialogue\tsummary\n" + "".join(f"I have {n}\tHe has {n} cats.\n" for n in range(5)))
    code, out, err = tickwise_cli("run", "text-to-text", tuned, "--test", f"summarise: ={sentences}[dialogue,summary]",
                                  "--beam", 1, "--json")
    assert code == 0, err
    (sentence,) = json.loads(out)["translation"].values()
    assert sentence["n"] == 5
    assert "tok:13a" in sentence["signatures"]["bleu"]
    (texts / "mixed.txt").write_text("next: 3 cats\nbefore: 3 cats\nnext:\nnext: 4 cats\n", encoding="utf-8")
    monkeypatch.setattr("tickwise.core.console._PLAIN_INTERVAL_S", 0.0)
    code, out, err = tickwise_cli("run", "text-to-text", tuned, "--input", texts / "mixed.txt", "--json")
    assert code == 2
    assert "answering: 50% 2 texts" in err
    assert "answering: 100% 4 texts" in err
    assert [row.get("error", "")[:6] for row in json.loads(out)["samples"]] == ["", "text 2", "text 3", ""]
    assert "2 of 4 texts have no answer; the first: text 2 ('before: 3 cats" in err
    code, out, _ = tickwise_cli("run", "text-to-text", tuned, "next: 4 cats", "--json")
    assert code == 0
    assert isinstance(json.loads(out)["answer"], str)
    code, _, err = tickwise_cli("run", "text-to-text", tuned, "before: 4 cats")
    assert code == 2
    assert "known are 'next: ', 'summarise: '" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = tickwise_cli("generate", tuned, "--prompt", "before: 4 cats", "--max-tokens", 2)
    assert code == 0, err
    assert "1 of 1 prompts begin with none of the prefixes that the model was trained with ('next: ', 'summar" in err
    assert "prefixes" not in tickwise_cli("generate", tuned, "--prompt", "next: 4 cats", "--max-tokens", 2)[2]
    code, _, err = tickwise_cli("run", "summarise", tuned, "a text")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "use it with tickwise run text-to-text" in err


def test_what_cannot_be_scored_is_said_before_the_training(tickwise_cli, texts, tmp_path):
    for words, said in (
            (("summarise", "--train", texts / "dialogues.jsonl", "--test", tmp_path / "x.jsonl"), "no such file"),
            (("summarise", "--train", texts / "dialogues.jsonl", "--test", texts / "pairs.tsv"), "needs a text"),
            (("text-to-text", "--task", f"a: ={texts / 'pairs.tsv'}", "--test", "a: =nothing.tsv"), "no such file")):
        code, _, err = tickwise_cli("run", *words, "--out", tmp_path / "out", *SMALL)
        assert (code, len(err.strip().splitlines())) == (2, 1), err
        assert said in err
        assert not (tmp_path / "out").exists()


def test_learned_summaries(tickwise_cli, texts, tmp_path, monkeypatch):
    pytest.importorskip("rouge_score")
    out_dir = tmp_path / "summaries"
    code, out, err = tickwise_cli(
        "run", "summarise", "--train", texts / "dialogues.jsonl", "--test", texts / "test.jsonl", "--out", out_dir,
        "--options.whole", "#A#", "#B#", "--max-tokens", 8, "--beam", 1, *SMALL)
    assert code == 0, err
    found = json.loads(out)
    assert (found["n-samples"]["summarise"]["original"], found["left_out"]) == (20, 0)
    assert 0 <= found["cut"] <= 20
    assert "left out of the training 20 whose source is in the test part" in err
    rows = [{"dialogue": text, "summary": "s"} for text in ("#A#: Hello.", "word " * 300)]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, out, err = tickwise_cli("run", "summarise", out_dir, "--test", tmp_path / "long.jsonl", "--beam", 1,
                                  "--max-tokens", 8, "--json")
    assert code == 0, err
    assert json.loads(out)["left_out"] == 1
    assert "1 of 2 texts are not scored" in err
    code, out, err = tickwise_cli("run", "summarise", out_dir, "#A#: Hello.", "--max-tokens", 5, "--json")
    assert code == 0, err
    assert isinstance(json.loads(out)["summary"], str)
    lines = tmp_path / "lines.txt"
    lines.write_text("#A#: Hello.\n" + "word " * 300 + "\n#A#: I have 3 cats.\n", encoding="utf-8")
    monkeypatch.setattr("tickwise.core.console._PLAIN_INTERVAL_S", 0.0)
    code, out, err = tickwise_cli("run", "summarise", out_dir, "--input", lines, "--each-line", "--max-tokens", 4,
                                  "--json")
    assert code == 2
    assert "summarising: 100% 3 texts" in err
    assert ["error" in row for row in json.loads(out)["samples"]] == [False, True, False]
    assert "1 of 3 texts have no summary; the first: text 2 ('word" in err
    code, out, err = tickwise_cli("run", "summarise", out_dir, "word " * 300)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "the model reads at most 63" in err


def test_help_needs_no_torch():
    found = subprocess.run([sys.executable, "-c", "import sys, tickwise.cli.train_text_to_text, tickwise.cli.adapt, "
                            "tickwise.cli.run_translate; print('torch' in sys.modules)"],
                           capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(("words", "said"), [
    (["text-to-text"], "give a model directory"),
    (["text-to-text", "--task", "x: =y"], "--out"),
    (["text-to-text", "--task", "x: =nothing.tsv", "--out", "o"], "no such file"),
    (["text-to-text", "nowhere", "x", "--out", "o"], "--out: has a meaning with --task only"),
    (["summarise", "nowhere", "a text"], "nowhere: no such model directory"),
    (["summarise", "a", "b", "c"], "quotes"),
    (["summarise", "--train", "x"], "--out"),
    (["summarise", "x", "--out", "o"], "--out: has a meaning with --train only"),
    (["summarise", "--train", "x", "--out", "o", "--beam", 0], "--beam: must be at least 1"),
    (["text-to-text", "x", "y", "--max-tokens", 0], "--max-tokens: must be at least 1"),
    (["text-to-text", "--task", "x: =x.tsv", "--out", "o", "--test", "y: =y.tsv"], "known are 'x: '"),
    (["text-to-text", "nowhere", " "], "the text is empty"),
])
def test_mistakes_are_one_line(tickwise_cli, words, said):
    code, out, err = tickwise_cli("run", *words)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert said in err
