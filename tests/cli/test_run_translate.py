"""``tickwise run translate`` from the command line: train, translate texts and files, evaluate, mistakes."""

import io
import json

import pytest

from tickwise.interop.directory import save_model
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.tokenizers.train import train_tokenizer

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
    assert "Cross-attention" in (out / "attention.html").read_text(encoding="utf-8")

    code, printed, _ = tickwise_cli("run", "translate", out, "two one", "--json", "--beam", 2)
    assert code == 0
    assert set(json.loads(printed)) == {"text", "translation", "cut"}
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

    gaps = [tmp_path / "gaps.en", tmp_path / "gaps.de"]
    gaps[0].write_text("two one\n\nthree two\nfour\n", encoding="utf-8")
    gaps[1].write_text("eins\nzwei\ndrei\nvier\n", encoding="utf-8")
    code, printed, _ = tickwise_cli("run", "translate", out, "--test", gaps[0], "--test", gaps[1], "--json", "--write",
                                    hypotheses)
    assert code == 0
    assert len(hypotheses.read_text().split("\n")) == 5
    assert hypotheses.read_text().split("\n")[1] == ""
    assert json.loads(printed)["cut"] in range(4)

    code, _, err = tickwise_cli("run", "translate", "--train", english, "--train", german, "--out", out, *TINY)
    assert code == 2
    assert "holds a run already" in err


def test_a_line_that_is_too_long_loses_no_other(tickwise_cli, files, tmp_path):
    english, german = files
    out, texts = tmp_path / "run", tmp_path / "texts.txt"
    quick = [*TINY[:TINY.index("--options.epochs")], "--options.epochs", 0.2, "--device", "cpu"]
    assert tickwise_cli("run", "translate", "--train", english, "--train", german, "--out", out, *quick)[0] == 0
    lines = ["one"] * 300
    lines[7] = "two one " * 60
    texts.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    words = ["run", "translate", out, "--input", texts, "--max-tokens", 2, "--beam", 1]
    code, printed, err = tickwise_cli(*words)
    assert code == 2
    assert len(printed.split("\n")) == 301
    assert printed.split("\n")[7] == ""
    assert err.strip().splitlines()[-1].startswith(
        "tickwise: 1 of 300 texts have no translation; the first: text 8 ('two one")
    code, printed, _ = tickwise_cli(*words, "--json")
    assert code == 2
    rows = json.loads(printed)["samples"]
    assert [row["text"] for row in rows] == lines
    assert [number for number, row in enumerate(rows) if "error" in row] == [7]
    assert len(printed.splitlines()) == 302
    long = tickwise_cli("run", "translate", out, lines[7], "--json")
    assert long[:2] == (2, "")
    assert "text 1 ('two one" in long[2]


def test_texts_that_are_cut_are_counted_and_marked(tickwise_cli, tmp_path, monkeypatch):
    """Of a model that nobody trained, and that hardly ever ends a text, in every verb that it serves."""
    tokenizer = train_tokenizer("bpe", iter(["a dog runs on the beach"] * 5), vocab_size=300, lowercase=False,
                                prefix_space=True)
    end = tokenizer.eos_id
    module = EncoderDecoder(EncoderDecoderConfig(
        vocab_size=tokenizer.vocab_size, source_length=40, context_length=60, width=32, n_encoder_layers=1,
        n_decoder_layers=1, n_heads=2, n_kv_heads=2, head_dim=16, hidden=64, pad_id=end, start_id=end, eos_id=end,
        logit_bias=True)).initialise(1).requires_grad_(False)
    module.lm_head.bias[end] = -50
    save_model(tmp_path / "model", module, tokenizer)
    (tmp_path / "texts.txt").write_text("a dog\n\nthe beach\n", encoding="utf-8")
    for verb in ("translate", "text-to-text", "summarise"):
        each = ["--each-line"] if verb == "summarise" else []
        code, printed, err = tickwise_cli("run", verb, tmp_path / "model", "--input", tmp_path / "texts.txt", *each,
                                          "--json", "--device", "cpu")
        assert code == 0, err
        marked = [row["cut"] for row in json.loads(printed)["samples"]]
        assert marked == ([True, True] if each else [True, False, True])
        assert f"2 of {len(marked)} texts were cut" in err
        if not each:  # nothing is typed at the prompt but a text that is too long
            typed = io.StringIO("dog " * 60 + "\n")
            typed.isatty = lambda: True
            monkeypatch.setattr("sys.stdin", typed)
            code, printed, err = tickwise_cli("run", verb, tmp_path / "model", "--json", "--device", "cpu")
            assert (code, json.loads(printed)) == (0, {"samples": []})
            assert "text 1 ('dog dog" in err
        lengths = []
        for more in ([], ["--max-tokens", 2], ["--max-tokens", 50]):
            code, printed, err = tickwise_cli("run", verb, tmp_path / "model", "a", *more, "--beam", 1, "--json",
                                              "--device", "cpu")
            found = json.loads(printed)
            assert (code, found["cut"]) == (0, True)
            assert "1 of 1 texts were cut" in err
            lengths.append(len(next(found[name] for name in ("translation", "answer", "summary") if name in found)))
        assert lengths[1] < min(lengths[0], lengths[2])
        assert (lengths[0] > lengths[2]) is (verb == "summarise")  # the others go by the length of the source


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
        ([*train, "--overwrite", "--resume"], "--overwrite and --resume contradict"),
        ([*train, "--options.n-heads", 3], "3 heads do not divide"),
        ([*train, "--options.longest", 2], "no pair has at most 2 tokens"),
        ([*train, "--options.vocab-size", 100], "at least 257"),
        ([tmp_path, "a text"], "not a model directory"),
        ([tmp_path, "a text", "--hold-out", 3], "--hold-out"),
        ([tmp_path, " "], "the text is empty"),
        ([tmp_path, "", "--attention", tmp_path / "a.html"], "the text is empty"),
        ([tmp_path, "a text", "--start", tmp_path], "--start: has a meaning with --train only"),
        ([*train, "--start", tmp_path], "not a model directory"),
        ([*train, "--restarts", 1], "--restarts: means nothing to one process"),
        ([tmp_path, "a text", "--write", tmp_path / "b"], "--write"),
        (["a text"], "no such model directory"),
    ):
        code, out, err = tickwise_cli("run", "translate", *words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1, err
        assert said in err
    assert not (tmp_path / "a").exists()


def test_looking_inside_a_translation(tickwise_cli, files, tmp_path):
    english, german = files
    out = tmp_path / "run"
    quick = [*TINY[:TINY.index("--options.epochs")], "--options.epochs", 0.5, "--device", "cpu"]
    given = tmp_path / "dev.tsv"  # its first sources are longer than the model reads
    given.write_text("".join(f"{'two one ' * 60}\tone two\n" for _ in range(1001)) + "two one\tone two\n")
    code, printed, err = tickwise_cli("run", "translate", "--train", english, "--train", german, "--out", out, *quick,
                                      "--dev", given, "--json")
    assert code == 0, err
    assert json.loads(printed)["development"]["n-samples"]["translation"]["original"] == 1
    assert "not scored, because their sources have more than 39 tokens: 1,001 of the development part" in err
    code, printed, _ = tickwise_cli("run", "translate", out, "two one", "--attention", tmp_path / "a.html", "--trace",
                                    tmp_path / "trace", "--json")
    assert code == 0
    assert json.loads(printed)["attention"] == str(tmp_path / "a.html")
    assert "Cross-attention" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert (tmp_path / "trace" / "ledger.parquet").exists()
    code, printed, _ = tickwise_cli("attention", out, "two one", "--target", "one two", "--out", tmp_path / "b.svg",
                                    "--json")
    assert code == 0
    maps = {one["name"]: one for one in json.loads(printed)["maps"]}
    assert set(maps) == {"cross", "encoder", "decoder", "words"}
    found = json.loads(printed)["alignment"]
    assert (found["source"], found["target"]) == (["two", "one"], ["one", "two"])
    assert found["pairs"] == " ".join(f"{row.index(max(row))}-{n}" for n, row in enumerate(maps["words"]["mean"]))
    assert all(abs(sum(row) - 1) < 1e-3 for one in maps.values() for row in one["mean"])
    assert (tmp_path / "b.svg").stat().st_size > 1000
    long = "two one " * 60
    pairs = tmp_path / "test.tsv"
    pairs.write_text(f"two one\tone two\n{long}\tone two\n", encoding="utf-8")
    code, printed, err = tickwise_cli("run", "translate", out, "--test", pairs, "--json", "--write", tmp_path / "t.txt")
    assert code == 0, err
    assert json.loads(printed)["left_out"] == 1
    assert "1 of 2 texts are not scored" in err
    assert (tmp_path / "t.txt").read_text().split("\n")[1:] == ["", ""]
    for words, message in (
        (["run", "translate", out, "two", "--attention", tmp_path / "a.pdf"], ".html, .svg, .png"),
        (["run", "translate", out, "--input", english, "--attention", tmp_path / "a.html"], "--attention: is for one"),
        (["run", "translate", out, "--test", pairs, "--write", english / "x"], "is a file"),
        (["attention", out, " "], "the text is empty"),
        (["attention", out, "two one", "--target", long, "--out", tmp_path / "c.html"], "the model writes at most 40"),
        (["attention", out, long, "--out", tmp_path / "c.html"], "the model reads at most"),
    ):
        code, printed, err = tickwise_cli(*words)
        assert (code, printed) == (2, ""), words
        assert message in err
        assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "c.html").exists()
