"""Fine-tuning encoders: labelled texts and questions with passages, from the file to the answer."""

import json
import random
import re

import pytest

from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.data.spans import SpanQuestion
from tickwise.tasks.answer import Reader, split_by_passage, without_passages_of
from tickwise.tasks.classifier import Classifier
from tickwise.tasks.encoder_classifier import EncodedClassifier
from tickwise.training.config import OptimizerOptions
from tickwise.training.encoder import EncoderOptions, EncoderTrainConfig, train_encoder
from tickwise.training.run import train_module

ANIMALS, PLACES = ["cat", "dog", "bird", "horse", "fish"], ["barn", "river", "garden", "forest", "field"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    chooser = random.Random(5)
    lines = [f"the {chooser.choice(ANIMALS)} sleeps in the {chooser.choice(PLACES)}. where does it sleep?"
             for _ in range(800)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    result = train_encoder(EncoderTrainConfig(
        data=folder / "text.txt", out=folder / "run", vocab_size=320, depth=2, context=64, batch_size=16, max_steps=60,
        model=EncoderOptions(width=32, n_heads=2), optimizer=OptimizerOptions(embedding_lr_ratio=1.0), dtype="fp32",
        compile="off", device="cpu"))
    return result.out


@pytest.fixture
def labelled(tmp_path):
    """A file to train on, to choose by and to test on; what counts is the place."""
    rows = [(f"the {one} sleeps in the {place}. the {other} sleeps.", "wet" if place in PLACES[1:3] else "dry")
            for one in ANIMALS for other in ANIMALS for place in PLACES]
    random.Random(3).shuffle(rows)
    paths = []
    for name, part in (("train", rows[:75]), ("dev", rows[75:100]), ("test", rows[100:])):
        paths.append(tmp_path / f"{name}.tsv")
        paths[-1].write_text("".join(f"{text}\t{label}\n" for text, label in part), encoding="utf-8")
    return paths


def test_labelled_texts_make_a_classifier(tmp_path, encoder, labelled, tickwise_cli):
    code, out, err = tickwise_cli("adapt", encoder, "--task", "classify", "--train", labelled[0], "--dev", labelled[1],
                                  "--test", labelled[2], "--out", tmp_path / "c", "--tuning.epochs", 40, "--tuning.lr",
                                  "3e-3", "--dtype", "fp32", "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert shown["results"]["classify_test"]["acc,none"] > 0.9
    assert "tensors loaded" in err
    assert "new: classes.weight, classes.bias" in err
    classifier = Classifier.load(tmp_path / "c")
    assert isinstance(classifier, EncodedClassifier)
    text = "the cat sleeps in the river. the dog sleeps."
    assert [p.label for p in classifier.predict([text, text.replace("river", "barn")])] == ["wet", "dry"]
    explanation = classifier.explain(text)
    assert [text[w.start : w.end] for w in explanation.words] == text.replace(".", " .").split()
    against = classifier.explain(text, "dry").words  # with two classes what speaks for one speaks against the other
    assert [w.score for w in explanation.words] == pytest.approx([-w.score for w in against])
    assert any(w.score for w in explanation.words)
    code, out, _ = tickwise_cli("run", "classify", tmp_path / "c", text)
    assert (code, out.split("\t")[0]) == (0, "wet")


def test_fresh_weights_are_told_apart(tmp_path, encoder, labelled, tickwise_cli):
    code, _, err = tickwise_cli("adapt", encoder, "--task", "classify", "--train", labelled[0], "--train-rows", 10,
                                "--out", tmp_path / "c", "--tuning.fresh", "--tuning.epochs", 1, "--json")
    assert code == 0, err
    assert "fresh weights" in err
    assert "tensors loaded" not in err


def write_questions(folder, **sizes):
    """Files of so many questions; no passage is in two of them. Every fourth question has no answer."""
    other = [(one, verb) for one in ANIMALS for verb in ("runs", "eats", "sings", "jumps", "rests")]
    told = [(animal, place, *more) for animal in ANIMALS for place in PLACES for more in other]
    untold = [(animal, None, *more) for animal in ANIMALS for more in other]
    chooser = random.Random(9)
    for passages in (told, untold):
        chooser.shuffle(passages)
    for name, n in sizes.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(n):
                animal, place, one, verb = (untold if number % 4 == 3 else told).pop()
                passage = f"the {animal} sleeps{f' in the {place}' if place else ''}. the {one} {verb}."
                answers = [{"text": place, "answer_start": passage.index(place)}] if place else []
                row = {"id": str(number), "question": "where does it sleep?", "context": passage, "answers": answers}
                file.write(json.dumps(row) + "\n")


def test_questions_with_passages_make_a_reader(tmp_path, encoder, tickwise_cli, capfd):
    write_questions(tmp_path, train=240, dev=40, test=40)
    code, out, err = tickwise_cli("adapt", encoder, "--task", "answer", "--train", tmp_path / "train.jsonl", "--dev",
                                  tmp_path / "dev.jsonl", "--test", tmp_path / "test.jsonl", "--out", tmp_path / "r",
                                  "--tuning.epochs", 10, "--tuning.lr", "3e-3", "--dtype", "fp32", "--json")
    assert code == 0, err
    shown = json.loads(out)["test"]
    assert shown["answerable"]["f1"] > 0.9
    assert shown["answerable"]["n"] == 30
    assert shown["overall"]["f1"] > 0.9
    assert shown["overall"]["n"] == 40
    assert shown["baselines"]["best sentence"]["f1"] < 1
    reader = Reader.load(tmp_path / "r")
    passage = "the horse sleeps in the barn. the cat runs."
    answer = reader.answer("where does it sleep?", passage)
    assert (answer.text, passage[answer.start : answer.end]) == ("barn", "barn")
    assert 0 < answer.probability <= 1
    long = "the dog sleeps. " * 40 + passage
    found = reader.answer("where does it sleep?", long, must_answer=True)
    assert long[found.start : found.end] == found.text != ""
    assert reader.answer("where does it sleep?", "the dog sleeps. the cat runs.").text == ""
    assert reader.answer("where does it sleep?", "the dog sleeps. the cat runs.", must_answer=True).text != ""
    capfd.readouterr()
    asked = "the cat runs. " * 20 + "where does it sleep?"
    assert reader.answer(asked, passage).text == "barn"
    assert "longer than 29 tokens, half of what is read at once; only their end is read" in capfd.readouterr().err
    reader.answer(asked, passage)
    assert capfd.readouterr().err == ""
    with pytest.raises(DataError, match="the passage is empty"):
        reader.answer("where?", " ")
    (tmp_path / "p.txt").write_text(passage)
    code, out, err = tickwise_cli("run", "answer", tmp_path / "r", "where does it sleep?", "--passage",
                                  tmp_path / "p.txt", "--json")
    assert (code, json.loads(out)["text"]) == (0, "barn"), err
    code, out, err = tickwise_cli("run", "answer", tmp_path / "r", "--input", tmp_path / "test.jsonl", "--json")
    assert code == 0, err
    assert len(out.splitlines()) == 40
    assert json.loads(out.splitlines()[0])["id"] == "0"
    code, out, err = tickwise_cli("run", "answer", tmp_path / "r", "--test", tmp_path / "test.jsonl", "--json")
    assert (code, json.loads(out)["answerable"]) == (0, shown["answerable"]), err
    code, out, err = tickwise_cli("run", "answer", tmp_path / "r", "--test", tmp_path / "test.jsonl", "--baselines",
                                  tmp_path / "train.jsonl", "--json")
    assert (code, json.loads(out)["baselines"].keys()) == (0, shown["baselines"].keys()), err
    assert tickwise_cli("run", "answer", tmp_path / "r", "where does it sleep?")[0] == 2
    _ask_documents(tmp_path, tickwise_cli)


def _ask_documents(folder, tickwise_cli):
    """The passage that shares most words with the question has no answer; the reader finds it in another one."""
    passages = ["the dog sleeps. the cat runs.", "the horse sleeps in the barn. the cat runs.",
                "the dog eats. the cat sings."]
    (folder / "d.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in passages))
    words = ["run", "ask", "where does it sleep?", "--documents", folder / "d.jsonl", "--reader", folder / "r",
             "--json", "--threshold", 0]
    found = {}
    for k in (1, 3):
        code, out, err = tickwise_cli(*words, "--passages", k, "--html", folder / "a.html")
        assert code == 0, err
        found[k] = json.loads(out)
    assert (found[1]["found"], found[1]["passage"]["place"]) == (False, "row 1")
    assert (found[3]["answer"], found[3]["passage"]["place"]) == ("barn", "row 2")
    assert 0 < found[3]["probability"] <= 1
    assert found[3]["document"].endswith("d.jsonl")
    assert found[3]["score"] == pytest.approx(0.9 * found[3]["retrieval_score"] + 0.1 * found[3]["support"])
    page = (folder / "a.html").read_text()
    marked = re.search("<mark>(.*?)</mark>", page).group(1)
    assert re.sub("<[^>]*>", "", marked) == "barn"
    begins, ends = map(float, re.search("begins ([0-9.]+), ends ([0-9.]+)", marked).groups())
    assert min(begins, ends) > 0.5
    code, _, err = tickwise_cli(*words, "--device", "cuda:99")
    assert (code, "cuda" in err) == (2, True)


def test_practice_on_plain_text_comes_first(tmp_path, encoder, tickwise_cli):
    write_questions(tmp_path, train=40)
    (tmp_path / "plain.txt").write_text("The old grey cat slept in the warm barn near our house. " * 40)
    code, _, err = tickwise_cli("adapt", encoder, "--task", "answer", "--train", tmp_path / "train.jsonl", "--out",
                                tmp_path / "r", "--answer.cloze", tmp_path / "plain.txt",
                                "--answer.cloze-questions", 60, "--answer.window", 80, "--tuning.epochs", 1,
                                "--dtype", "fp32", "--max-seconds", 60)
    assert code == 0, err
    seconds = {part: json.loads((tmp_path / part / "run.json").read_text())["config"]["max_seconds"]
               for part in ("r", "r/practice")}
    assert seconds["r/practice"] == 30
    assert 30 <= seconds["r"] < 60  # what the practice has left
    assert "practice: 60 questions made from" in err
    assert (tmp_path / "r" / "practice" / "model" / "config.json").exists()
    assert Reader.load(tmp_path / "r").module.config.context_length == 80


def test_a_part_for_development_shares_no_passage():
    made = [SpanQuestion(str(i), "q", f"passage {i // 3}", (), ()) for i in range(30)]
    rest, part = split_by_passage(made, 0.2)
    assert len(part) == 6
    assert not {q.passage for q in rest} & {q.passage for q in part}


def test_what_is_tested_on_is_neither_trained_on_nor_chosen_by():
    made = [SpanQuestion(str(i), f"question {i}", f"passage  {i // 2}", (), ()) for i in range(6)]
    held = [SpanQuestion("x", "another question", "passage 1\n", (), ())]
    assert [q.id for q in without_passages_of(made, held)] == ["0", "1", "4", "5"]


def test_passages_of_two_parts_stay_in_the_one_that_is_measured_on(tmp_path, encoder, tickwise_cli):
    write_questions(tmp_path, train=40, dev=12, test=12)
    lines = {name: (tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("train", "dev", "test")}
    (tmp_path / "train.jsonl").write_text("\n".join(lines["train"] + lines["dev"][:3] + lines["test"][:2]))
    (tmp_path / "dev.jsonl").write_text("\n".join(lines["dev"] + lines["test"][2:3]))
    words = ("adapt", encoder, "--task", "answer", "--train", tmp_path / "train.jsonl", "--dev", tmp_path / "dev.jsonl",
             "--test", tmp_path / "test.jsonl", "--out", tmp_path / "r", "--tuning.epochs", 1, "--dtype", "fp32")
    code, _, err = tickwise_cli(*words)
    assert code == 0, err
    assert "2 training questions are about passages of the test part; left out" in err
    assert "1 development questions are about passages of the test part; left out" in err
    assert "3 training questions are about passages of the development part; left out" in err
    assert json.loads((tmp_path / "r" / "run.json").read_text())["data"]["questions"] == 40
    (tmp_path / "train.jsonl").write_text("\n".join(lines["test"]))
    code, _, err = tickwise_cli(*words, "--overwrite")
    assert (code, "no question with an answer in its passage is left" in err) == (2, True)


def test_questions_whose_answer_stands_nowhere_are_chosen_by_but_not_trained_on(tmp_path, encoder, tickwise_cli):
    write_questions(tmp_path, train=40)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    rows[0]["question"] = "does it sleep in the barn? " * 10 + rows[0]["question"]
    for row in rows[3], rows[-1]:  # the last passage is in the tenth that the model is chosen by
        row["answers"] = [{"text": "on the old sofa", "answer_start": 0}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, err = tickwise_cli("adapt", encoder, "--task", "answer", "--train", tmp_path / "train.jsonl", "--out",
                                  tmp_path / "r", "--tuning.epochs", 1, "--dtype", "fp32", "--json")
    assert code == 0, err
    assert "1 questions are longer than 29 tokens" in err
    assert json.loads(out)["development"]["answerable"]["n"] == 4
    assert json.loads((tmp_path / "r" / "run.json").read_text())["data"]["questions"] == 35


def test_the_leading_rank_alone_evaluates_and_writes(tmp_path, encoder, tickwise_cli, monkeypatch):
    from tickwise.tasks import answer

    write_questions(tmp_path, train=40)
    results = []
    monkeypatch.setattr(answer, "train_module", lambda *a, **k: results.append(train_module(*a, **k)) or results[-1])
    words = ("adapt", encoder, "--task", "answer", "--train", tmp_path / "train.jsonl", "--tuning.epochs", 1, "--dtype",
             "fp32", "--json", "--out")
    code, out, err = tickwise_cli(*words, tmp_path / "first")
    assert code == 0, err
    assert json.loads(out)["development"]
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "first").rglob("*")}
    for name, value in (("TORCHELASTIC_RUN_ID", "1"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(answer, "train_module", lambda *a, **k: results[0])
    code, out, err = tickwise_cli(*words, tmp_path / "second")
    assert (code, out) == (0, ""), err
    assert not (tmp_path / "second").exists()
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "first").rglob("*")} == written


def test_what_is_no_encoder_is_refused(tmp_path, encoder, labelled, tickwise_cli):
    code, _, err = tickwise_cli("adapt", tmp_path, "--task", "classify", "--train", labelled[0],
                                "--out", tmp_path / "c")
    assert code == 2
    assert "not a model directory" in err
    assert tickwise_cli("adapt", encoder, "--task", "classify", "--out", tmp_path / "c")[0] == 2
    with pytest.raises(CheckpointError, match="not a span reader"):
        Reader.load(encoder)
    from tickwise.tasks.classify_config import ClassifyConfig

    with pytest.raises(ConfigError, match="give both"):
        ClassifyConfig(architecture="encoder")
