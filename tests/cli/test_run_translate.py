"""``tickwise run translate`` from the command line: train, translate texts and files, evaluate, mistakes."""

import json

import pytest

TINY = ("--options.width", 32, "--options.encoder-layers", 1, "--options.decoder-layers", 1, "--options.n-heads", 2,
        "--options.vocab-size", 300, "--options.longest", 40, "--options.epochs", 2, "--device", "cpu")


@pytest.fixture
def files(tmp_path):
    english, german = tmp_path / "x.en", tmp_path / "x.de"
    names = ["one", "two", "three", "four", "five", "six"]
    pairs = [(f"{a} {b}", f"{b} {a}") for a in names for b in names if a != b]
    english.write_text("".join(f"{a}\n" for a, _ in pairs), encoding="utf-8")
    german.write_text("".join(f"{b}\n" for _, b in pairs), encoding="utf-8")
    return english, german


def test_train_then_translate_then_evaluate(tickwise_cli, files, tmp_path):
    english, german = files
    out = tmp_path / "run"
    code, printed, err = tickwise_cli("run", "translate", "--train", english, "--train", german, "--out", out,
                                      "--hold-out", 4, "--lowercase", "--json", *TINY)
    assert code == 0, err
    result = json.loads(printed)
    assert result["n-samples"]["translation"]["original"] == 4
    assert "case:lc" in result["signatures"]["bleu"]
    assert result["development"]["results"]["translation"]["perplexity,none"] > 1
    for name in ("config.json", "model.safetensors", "tokenizer.json", "run.json"):
        assert (out / "model" / name).exists()
    assert len((out / "held-out.jsonl").read_text().splitlines()) == 4

    code, printed, _ = tickwise_cli("run", "translate", out, "two one", "--json", "--beam", 2)
    assert code == 0
    assert set(json.loads(printed)) == {"text", "translation"}
    texts = tmp_path / "texts.txt"
    texts.write_text("two one\n\nthree\n", encoding="utf-8")
    code, printed, err = tickwise_cli("run", "translate", out, "--input", texts)
    assert code == 0
    assert len(printed.split("\n")) == 4
    assert printed.split("\n")[1] == ""

    hypotheses = tmp_path / "hypotheses.txt"
    code, printed, _ = tickwise_cli("run", "translate", out, "--test", out / "held-out.jsonl", "--write", hypotheses)
    assert code == 0
    assert "BLEU" in printed
    assert "version:" in printed
    assert len(hypotheses.read_text().splitlines()) == 4

    code, _, err = tickwise_cli("run", "translate", "--train", english, "--train", german, "--out", out, *TINY)
    assert code == 2
    assert "holds a run already" in err


def test_mistakes_are_one_line(tickwise_cli, files, tmp_path):
    english, german = files
    short = tmp_path / "short.de"
    short.write_text("eins\nzwei\n", encoding="utf-8")
    train = ["--train", english, "--train", german, "--out", tmp_path / "a"]
    for words, said in (
        (["--train", english, "--train", short, "--out", tmp_path / "a"], "30 lines and"),
        (["--train", english, "--out", tmp_path / "a"], "name the other one after it"),
        (["--train", tmp_path / "nowhere", "--out", tmp_path / "a"], "no such file"),
        ([*train, "--hold-out", 400], "cannot hold out 400"),
        ([*train, "--hold-out", 4, "--test", english], "--hold-out or --test"),
        ([*train, "--beam", 0], "--beam"),
        ([*train, "--options.n-heads", 3], "3 heads do not divide"),
        ([*train, "--options.longest", 2], "no pair has at most 2 tokens"),
        ([*train, "--options.vocab-size", 100], "at least 257"),
        ([tmp_path, "a text"], "not a model directory"),
        ([tmp_path, "a text", "--hold-out", 3], "--hold-out"),
        ([tmp_path, "a text", "--write", tmp_path / "b"], "--write"),
        (["a text"], "no such model directory"),
    ):
        code, out, err = tickwise_cli("run", "translate", *words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1, err
        assert said in err
    assert not (tmp_path / "a").exists()
