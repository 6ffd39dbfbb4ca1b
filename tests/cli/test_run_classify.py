"""``tickwise run`` for texts: train, evaluate, answer, explain, and mistakes in one line."""

import io
import json

import pytest

from tickwise.profiling.trace_store import open_trace

ROWS = [f"{i} the {word} is {state}\t{label}" for i in range(12) for word, label in
        (("cat", "animal"), ("dog", "animal"), ("lamp", "thing"), ("road", "thing")) for state in ("here", "there")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tickwise.cli import main

    folder = tmp_path_factory.mktemp("run")
    (folder / "train.tsv").write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    (folder / "test.tsv").write_text("99 a cat\tanimal\n98 some lamp\tthing\n97 the dog\tAnimal \n", encoding="utf-8")
    assert main(["run", "topic", "--train", str(folder / "train.tsv"), "--test", str(folder / "test.tsv"), "--out",
                 str(folder / "model"), "--epochs", "4", "--batch-size", "8", "-q"]) == 0
    return folder / "model"


def test_training_writes_a_page_and_figures(model):
    page = (model / "report.html").read_text(encoding="utf-8")
    assert "Confusion matrix" in page
    assert "Reliability" in page
    assert "http" not in page.replace("http-equiv", "")
    figures = json.loads((model / "evaluation.json").read_text(encoding="utf-8"))
    assert figures["results"]["topic_test"]["acc,none"] == 1.0
    assert "ece,none" in figures["results"]["topic_dev"]


def test_one_text(tickwise_cli, model):
    code, out, _ = tickwise_cli("run", "topic", model, "where is the dog")
    label, probability = out.strip().split("\t")
    assert (code, label) == (0, "animal")
    assert float(probability) > 0.5


def test_a_file_and_standard_input(tickwise_cli, model, tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_text("a dog\n\n😀 لمبة\nthe lamp\r\n", encoding="utf-8")
    code, out, _ = tickwise_cli("run", "classify", model, "--input", tmp_path / "texts.txt", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, len(rows)) == (0, 4)
    assert (rows[0]["label"], rows[3]["label"]) == ("animal", "thing")
    assert set(rows[1]["probabilities"]) == {"animal", "thing"}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a cat\na road\n")))
    assert [line.split("\t")[0] for line in tickwise_cli("run", "topic", model, "-")[1].splitlines()] == [
        "animal", "thing"]


def test_progress_on_the_texts_of_a_file_is_shown(tickwise_cli, model, tmp_path, monkeypatch):
    monkeypatch.setattr("tickwise.core.console._PLAIN_INTERVAL_S", 0.0)
    (tmp_path / "texts.txt").write_text("a dog\nthe lamp\n", encoding="utf-8")
    err = tickwise_cli("run", "classify", model, "--input", tmp_path / "texts.txt")[2]
    shown = [line.split(",")[0] for line in err.splitlines()]
    assert shown == ["classifying: 50% 1 texts", "classifying: 100% 2 texts"]
    assert tickwise_cli("run", "classify", model, "a dog")[2] == ""


def test_typed_texts_are_answered_one_by_one(tickwise_cli, model, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal("a cat\n\nthe road\n"))
    code, out, err = tickwise_cli("run", "topic", model)
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == ["animal", "thing"]
    assert "Ctrl-D" in err


def test_an_empty_text_is_refused(tickwise_cli, model):
    code, out, err = tickwise_cli("run", "topic", model, "  ")
    assert (code, out) == (2, "")
    assert "the text is empty" in err


def test_words_that_decided(tickwise_cli, model, tmp_path):
    code, out, _ = tickwise_cli("run", "topic", model, "<b> the dog", "--explain", "--html", tmp_path / "x.html")
    assert code == 0
    assert "dog +" in out
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "&lt;" in page
    assert "<b>" not in page
    assert ">dog</mark>" in page
    words = json.loads(tickwise_cli("run", "topic", model, "the dog", "--explain", "--json")[1])["words"]
    assert [w["text"] for w in words] == ["the", "dog"]


def test_evaluating_and_comparing(tickwise_cli, model, tmp_path):
    test = model.parent / "test.tsv"
    code, out, _ = tickwise_cli("run", "topic", model, "--test", test, "--against", model, "--bootstrap-samples", 50)
    assert code == 0
    assert "3 texts, 2 classes" in out
    assert "McNemar p = 1" in out
    shown = json.loads(tickwise_cli("run", "topic", model, "--test", test, "--against", model, "--json", "--html",
                                    tmp_path / "e.html")[1])
    assert shown["results"]["topic"]["acc,none"] == 1.0
    comparison = shown["comparison"]
    assert [comparison[name] for name in ("only_model", "only_against", "only_first")] == [0, 0, 0]
    assert (comparison["model"], comparison["against"]) == (str(model), str(model))
    assert (tmp_path / "e.html").exists()


@pytest.mark.parametrize(("words", "message"), [
    ([], "give a model directory, or --train"), (["--train", "x.tsv"], "say with --out"),
    (["MODEL", "--dev", "x.tsv"], "--dev: has a meaning with --train only"),
    (["MODEL", "text", "--train", "x", "--out", "y"], "--train makes a model"),
    (["MODEL", "text", "--input", "x"], "give one of the text, --input and --test"),
    (["MODEL", "--input", "gone.txt"], "gone.txt: cannot read it"),
    (["gone", "text"], "no such model directory"), (["MODEL", "x", "--against", "y"], "--against"),
    (["--train", "gone.tsv", "--out", "y"], "gone.tsv: no such file"),
    (["--train", "x", "--out", "y", "--epochs", "0"], "--epochs: must be positive"),
    (["--train", "x", "--out", "y", "--features.word-ngrams", "99"], "--features.word-ngrams: must be from 0 to 8"),
])
def test_mistakes_are_one_line(tickwise_cli, model, words, message):
    code, out, err = tickwise_cli("run", "topic", *(model if word == "MODEL" else word for word in words))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_task_with_settings_for_bags_trains_a_recurrent_model_too(tickwise_cli, tmp_path):
    rows = [f"{i} win a prize now\tspam" if i % 3 == 0 else f"{i} see you at home\tham" for i in range(60)]
    (tmp_path / "train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    flags = ("run", "spam", "--train", tmp_path / "train.tsv", "--out", tmp_path / "model", "--architecture",
             "recurrent", "--recurrent.hidden", 4, "--recurrent.word-width", 8, "--recurrent.epochs", 1, "--folds", 2,
             "-q")
    code, _, error = tickwise_cli(*flags)
    assert code == 0, error
    config = json.loads((tmp_path / "model" / "model" / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["positive"]) == ("tickwise-recurrent-classifier", "spam")
    code, _, error = tickwise_cli(*flags, "--overwrite", "--epochs", 3)
    assert code == 2
    assert "--epochs: has no effect on --architecture recurrent" in error


def test_a_trained_model_decides_by_the_threshold_and_class_that_are_given(tickwise_cli, model):
    text = "qqq"  # nothing known: the model is not sure
    sure = json.loads(tickwise_cli("run", "topic", model, text, "--json")[1])["probabilities"]
    (less, low), (more, high) = sorted(sure.items(), key=lambda item: item[1])
    assert 0.001 < low < high
    for flags, label in (((), more), (("--positive", more, "--threshold", (1 + high) / 2), less),
                         (("--positive", less, "--threshold", low / 2), less), (("--positive", less), more)):
        code, out, error = tickwise_cli("run", "topic", model, text, *flags)
        assert (code, out.split("\t")[0]) == (0, label), (flags, error)
    for flags, said in ((("--threshold", 0.3), "looks for no class"), (("--positive", "plant"), "not a class"),
                        (("--positive", "thing", "--threshold", 1.5), "between 0 and 1"),
                        (("--epochs", 3), "--epochs: has no effect on a trained model"),
                        (("--max-bytes", 9), "--max-bytes: has no effect on a trained model")):
        code, out, error = tickwise_cli("run", "topic", model, text, *flags)
        assert (code, out) == (2, ""), flags
        assert said in error


def test_the_table_says_which_calibration_was_fitted_to_its_own_texts(tickwise_cli, model, tmp_path):
    code, out, _ = tickwise_cli("run", "topic", "--train", model.parent / "train.tsv", "--test",
                                model.parent / "test.tsv", "--out", tmp_path / "x", "--epochs", 1)
    assert code == 0
    own, test = out.split("test part")
    assert "calibrated on these texts" in next(line for line in own.splitlines() if "(ECE)" in line)
    assert "calibrated on these texts" not in test


def test_run_alone_names_the_tasks(tickwise_cli):
    code, _, err = tickwise_cli("run")
    assert code == 2
    assert "topic" in err
    assert "question-type" in err


def test_a_trace_has_the_stages_of_predictions(tickwise_cli, model, tmp_path):
    (tmp_path / "texts.txt").write_text("a dog\nthe lamp\na road\n", encoding="utf-8")
    code, out, _ = tickwise_cli("run", "topic", model, "--input", tmp_path / "texts.txt", "--explain", "--also", model,
                                "--trace", tmp_path / "trace")
    assert (code, out.count("animal\t")) == (0, 1)
    trace = open_trace(tmp_path / "trace")
    rows = {row["stage"]: row for row in trace.rows()}
    assert len(trace.ticks()) == 1, "one pass; explanations and the other model are not of it"
    assert set(rows) == {"host", "embed"}
    assert rows["embed"]["batch"] == 3
    assert rows["embed"]["bytes_read"] > 0
    code, _, err = tickwise_cli("run", "topic", model, "a dog", "--trace", tmp_path / "trace")
    assert code == 2
    assert "trace" in err.strip().splitlines()[-1]


def test_a_trace_has_the_steps_of_the_training_that_the_model_is_from(tickwise_cli, model, tmp_path):
    code, _, _ = tickwise_cli("run", "topic", "--train", model.parent / "train.tsv", "--out", tmp_path / "out",
                              "--max-steps", 5, "--batch-size", 8, "--trace", tmp_path / "trace")
    assert code == 0
    rows = open_trace(tmp_path / "trace").rows()
    assert {row["tick"] for row in rows} == set(range(5))
    assert {"embed", "loss", "backward", "optimizer"} <= {row["stage"] for row in rows}


def test_a_recurrent_classifier_is_traced_too(tickwise_cli, model, tmp_path):
    small = ("--recurrent.word-width", 8, "--recurrent.feature-width", 4, "--recurrent.hidden", 8, "--max-steps", 4)
    assert tickwise_cli("run", "topic", "--train", model.parent / "train.tsv", "--out", tmp_path / "out",
                        "--architecture", "recurrent", *small)[0] == 0
    assert tickwise_cli("run", "topic", tmp_path / "out", "where is the dog", "--trace", tmp_path / "trace")[0] == 0
    rows = {row["stage"]: row for row in open_trace(tmp_path / "trace").rows()}
    assert set(rows) == {"embed", "recurrent", "attention", "head", "host"}
    assert all(rows[stage]["flops"] > 0 for stage in ("recurrent", "attention", "head"))
