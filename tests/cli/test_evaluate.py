import json

import numpy as np
import pytest

from tickwise.cli.dispatch import dispatch
from tickwise.core import console
from tickwise.engine.language_model import load
from tickwise.evaluation.perplexity import evaluate
from tickwise.interop.directory import save_model
from tickwise.tokenizers.train import train_tokenizer
from tickwise.training.ngram import count_ngrams

TEXT = "a bad cafe.\nhead ache\n" * 60


@pytest.fixture(autouse=True)
def normal_verbosity():
    yield
    console.set_verbosity(console.NORMAL)


@pytest.fixture(scope="module")
def model_path(tiny_model):
    return str(tiny_model)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


def test_the_table_shows_each_metric_with_its_interval(model_path, text_file, capsys):
    assert dispatch(["evaluate", model_path, "--data", text_file]) == 0
    out = capsys.readouterr().out
    result = evaluate(load(model_path), text_file)
    labels = ("loss (nats per token)", "perplexity per token", "perplexity per word", "perplexity per byte",
              "bits per byte")
    for label, metric in zip(labels, result.metrics.values(), strict=True):
        line = next(line for line in out.splitlines() if line.startswith(label))
        assert f"{metric.value:.4f}" in line or f"{metric.value:,.1f}" in line or f"{metric.value:.3g}" in line
        assert " to " in line
    assert f"{len(TEXT):,} bytes" in out


def test_json_stands_alone_on_stdout(model_path, text_file, capsys):
    assert dispatch(["evaluate", model_path, "--data", text_file, "--json", "--stride", "8"]) == 0
    output = json.loads(capsys.readouterr().out)
    (results,) = output["results"].values()
    expected = evaluate(load(model_path), text_file, stride=8)
    assert results["bits_per_byte,none"] == pytest.approx(expected.bits_per_byte.value)
    assert results["word_perplexity_stderr,none"] == pytest.approx(expected.word_perplexity.interval.stderr)


def test_it_says_what_it_evaluates(model_path, text_file, capsys):
    dispatch(["evaluate", model_path, "--data", text_file, "--json"])
    assert f"evaluating on {text_file}: {len(TEXT):,} tokens" in capsys.readouterr().err


def test_words_of_wikitext_lower_the_perplexity_per_word(model_path, text_file, capsys):
    values = []
    for rule in ("whitespace", "wikitext"):
        dispatch(["evaluate", model_path, "--data", text_file, "--json", "--words", rule])
        (results,) = json.loads(capsys.readouterr().out)["results"].values()
        values.append(results["word_perplexity,none"])
    assert values[1] < values[0]


def test_another_model_is_compared_on_the_same_text(model_path, tmp_path, text_file, capsys):
    tokenizer = load(model_path).tokenizer
    other = count_ngrams(np.asarray(tokenizer.encode(TEXT)), tokenizer.vocab_size, order=3)
    save_model(tmp_path / "other", other, tokenizer)
    words = ["evaluate", model_path, "--data", text_file, "--against", str(tmp_path / "other")]
    assert dispatch([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    comparison = shown["comparison"]
    assert (comparison["model"], comparison["against"]) == (str(load(model_path).path), str(tmp_path / "other"))
    assert comparison["nats_per_word"]["interval"][0] > 0
    assert comparison["word_perplexity_ratio"]["value"] > 1
    assert comparison["p"] < 0.01
    assert dispatch(words) == 0
    assert "they differ" in capsys.readouterr().out
    few = train_tokenizer("word", iter([TEXT[: len(TEXT) // 50]]), vocab_size=20)
    save_model(tmp_path / "few", count_ngrams(np.asarray(few.encode(TEXT)), few.vocab_size, order=2), few)
    capsys.readouterr()
    assert dispatch([*words[:-1], str(tmp_path / "few")]) == 2
    said = capsys.readouterr().err
    assert "hides what word it was" in said
    assert "evaluating on" not in said, "it is said before anything is measured"
    assert dispatch([*words, "--context", "100000"]) == 2
    assert "evaluating on" not in capsys.readouterr().err
    assert dispatch([*words, "--task", "blimp"]) == 2
    assert "--against: has no meaning" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "/nothing/here"], "no such file"),
        (["--data", "TEXT", "--stride", "40"], "--stride 40"),
        (["--data", "TEXT", "--context", "33"], "--context 33"),
        (["--data", "FOLDER"], "data description"),
        (["--data", "TEXT", "--split", "validation"], "a text file has no splits; leave --split out"),
        ([], "give --data"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(model_path, text_file, tmp_path, capsys, flags, message):
    places = {"TEXT": text_file, "FOLDER": str(tmp_path)}
    assert dispatch(["evaluate", model_path, *(places.get(flag, flag) for flag in flags)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_the_share_of_unknown_words_stands_beside_the_figures(tmp_path, capsys):
    tokenizer = train_tokenizer("word", iter(["the cat sees the dog\n" * 9]), word_style="spaces", min_frequency=1)
    save_model(tmp_path / "kn2", count_ngrams(np.array(tokenizer.encode("the cat sees the dog\n" * 9)),
                                              tokenizer.vocab_size, order=2), tokenizer)
    text = tmp_path / "text.txt"
    for content, share in (("the cat sees the horse\n" * 30, 30 / 180), ("the cat sees the dog\n" * 30, 0)):
        text.write_text(content)
        assert dispatch(["evaluate", str(tmp_path / "kn2"), "--data", str(text)]) == 0
        assert (f"{share:.1%} of the tokens are <unk>" in capsys.readouterr().out) == (share > 0)
        assert dispatch(["evaluate", str(tmp_path / "kn2"), "--data", str(text), "--json"]) == 0
        (sizes,) = json.loads(capsys.readouterr().out)["n-samples"].values()
        assert sizes["unknown_tokens"] == round(share * sizes["tokens"])
