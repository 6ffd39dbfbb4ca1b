"""From labelled texts to a classifier that answers, explains, shrinks, and refuses what it cannot learn from."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tickwise.core.errors import CheckpointError, ConfigError, DataError, MemoryLimitError
from tickwise.data.examples import Examples, ReadExamples, read_examples
from tickwise.evaluation.calibration import cross_entropy
from tickwise.models.bag import BagConfig
from tickwise.tasks.classifier import Classifier, class_numbers
from tickwise.tasks.classify import open_examples, train_classifier
from tickwise.tasks.classify_config import ClassifyConfig, FeatureOptions, RecurrentOptions
from tickwise.tasks.classify_models import check_memory
from tickwise.text.augment import AugmentOptions
from tickwise.training.config import OptimizerOptions

WORDS = {"animal": ["cat", "dog", "bird", "horse", "fish", "狐狸"], "thing": ["car", "lamp", "house", "road", "spoon"]}


def write_texts(path, n=300, seed=0, kinds=tuple(WORDS)):
    chooser = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        kind = kinds[chooser.integers(len(kinds))]
        first, second = chooser.choice(WORDS[kind]), chooser.choice(WORDS[kind])
        rows.append(f"{chooser.integers(1000)} I saw a {first} and a {second}\t{kind}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify")
    source = write_texts(folder / "train.tsv")
    config = ClassifyConfig(train=(source,), test=(write_texts(folder / "test.tsv", 80, 1),), out=folder / "run",
                            epochs=6, batch_size=16, max_bytes=100_000)
    return train_classifier(config, "animals")


def test_it_learns_and_says_how_sure_it_is(trained):
    assert trained.test.metrics["acc"].value > 0.95
    prediction = trained.classifier.predict(["I saw a horse"])[0]
    assert (prediction.label, prediction.probability > 0.8) == ("animal", True)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_a_saved_model_answers_the_same(trained):
    texts = ["I saw a spoon", "", "😀 مرحبا", "word " * 40_000, "unseen qqqq"]
    for path in (trained.trained.out, trained.trained.model):
        loaded = Classifier.load(path)
        assert loaded.probabilities(texts) == pytest.approx(trained.classifier.probabilities(texts), abs=1e-6)
        assert loaded.module.config == trained.classifier.module.config
    config = json.loads((trained.trained.model / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["architectures"]) == ("tickwise-bag", ["Bag"])


def test_texts_in_one_call_do_not_depend_on_each_other(trained):
    texts = ["I saw a dog", "", "a lamp", "a dog and a lamp"]
    together = trained.classifier.probabilities(texts)
    alone = np.concatenate([trained.classifier.probabilities([text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-6)
    assert trained.classifier.predict([]) == []


def test_the_small_model_keeps_to_its_size_and_to_the_accuracy(trained):
    small = Classifier.load(trained.trained.out / "small")
    assert trained.small_bytes <= 100_000
    assert trained.small_bytes == sum(f.stat().st_size for f in (trained.trained.out / "small").iterdir())
    assert trained.small.metrics["acc"].value >= trained.test.metrics["acc"].value - 0.05
    assert small.predict(["I saw a horse"])[0].label == "animal"
    tighter = trained.classifier.quantised(25_000)
    assert len(tighter.features) < len(trained.classifier.features)
    with pytest.raises(ConfigError, match="before its first feature"):
        trained.classifier.quantised(100)


def test_the_temperature_is_that_of_the_development_part(trained):
    data = open_examples(ClassifyConfig(train=(trained_source(trained),), out=trained.trained.out))
    classifier = trained.classifier
    logits, classes = classifier.logits(data.dev.texts), class_numbers(data.dev, classifier.labels)
    best = classifier.module.config.temperature
    assert all(cross_entropy(logits, classes, best) <= cross_entropy(logits, classes, best * factor) + 1e-9
               for factor in (0.8, 0.95, 1.05, 1.25) if 0.02 < best * factor < 50)


def trained_source(trained):
    return str(trained.trained.out.parent / "train.tsv")


def test_the_words_that_decided(trained):
    explanation = trained.classifier.explain("I saw a horse and a lamp")
    score = {explanation.text[w.start : w.end]: w.score for w in explanation.words}
    assert list(score) == ["I", "saw", "a", "horse", "and", "lamp"]
    other = trained.classifier.explain("I saw a horse and a lamp", "thing")
    for_animal = score if explanation.label == "animal" else {w: -s for w, s in score.items()}
    assert for_animal["horse"] > 0 > for_animal["lamp"]
    assert {name for name, _ in other.strongest(2)} == {"horse", "lamp"}
    assert other.probability + trained.classifier.explain(other.text, "animal").probability == pytest.approx(1)
    assert trained.classifier.explain("").words == ()


def test_effects_of_words_add_up_to_the_logits(trained):
    text = "I saw a horse and a lamp"
    logits = trained.classifier.logits([text])[0]
    bias = trained.classifier.module.bias.numpy()
    animal = list(trained.classifier.labels).index("animal")
    gap = (logits - bias)[animal] - (logits - bias)[1 - animal]
    total = sum(word.score for word in trained.classifier.explain(text, "animal").words)
    assert total == pytest.approx(gap, rel=0.02, abs=0.03)  # n-grams that span a space leave a little on it


def test_the_size_of_a_small_model_counts_all_of_its_files(tmp_path):
    """Many classes with long names: config.json, run.json and README.md weigh more than what is put by for them."""
    labels = [f"{'类' * 29}{chr(0x4E00 + i)}" for i in range(150)]
    rows = [f"w{i} w{(i * 7) % 60} w{i + k}\t{label}" for k in range(2) for i, label in enumerate(labels)]
    (tmp_path / "a.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    most = 220_000
    result = train_classifier(ClassifyConfig(
        train=(str(tmp_path / "a.tsv"),), out=tmp_path / "x", max_steps=2, refit=False, max_bytes=most))
    files = [file.stat().st_size for file in (tmp_path / "x" / "small").iterdir()]
    assert sum(files) == result.small_bytes <= most
    first = result.classifier.quantised(most)
    first.save(tmp_path / "first", json.loads((tmp_path / "x" / "run.json").read_text(encoding="utf-8")))
    assert sum(file.stat().st_size for file in (tmp_path / "first").iterdir()) > most
    assert len(Classifier.load(tmp_path / "x" / "small").features) < len(first.features)


def test_no_text_is_in_two_parts(tmp_path):
    files = {}
    for name, rows in (("train", ["one a\tx", "two b\ty", "both c\tx", "dev d\ty", "five e\tx", "six f\ty"]),
                       ("dev", ["dev d\ty", "both c\tx", "Dev  D\ty", "dev only\tx"]),
                       ("test", ["both c\tx", "six f\ty"])):
        files[name] = (str(tmp_path / f"{name}.tsv"),)
        (tmp_path / f"{name}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    data = open_examples(ClassifyConfig(**files, text_column="0", label_column="1"))
    assert data.test.texts == ("both c", "six f")
    assert data.dev.texts == ("dev d", "dev only")
    assert data.train.texts == ("one a", "two b", "five e")


def test_labels_that_only_the_test_part_has_are_refused_before_the_training(tmp_path):
    source = write_texts(tmp_path / "a.tsv", 60)
    (tmp_path / "test.tsv").write_text("7 I saw a fern\tplant\n", encoding="utf-8")
    with pytest.raises(DataError, match="'plant'"):
        train_classifier(ClassifyConfig(train=(source,), test=(str(tmp_path / "test.tsv"),), text_column="0",
                                        label_column="1", out=tmp_path / "x"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("options", "said"), [
    ({"architecture": "recurrent", "epochs": 3.0}, "--epochs: has no effect on --architecture recurrent"),
    ({"architecture": "recurrent", "optimizer": OptimizerOptions(name="sgd", lr=0.1)}, "--optimizer"),
    ({"architecture": "recurrent", "ema_decay": None}, "--ema-decay"),
    ({"architecture": "recurrent", "feature_dropout": 0.5}, "--feature-dropout"),
    ({"architecture": "recurrent", "loss": "hinge"}, "--loss"),
    ({"architecture": "recurrent", "max_bytes": 10_000}, "--max-bytes"),
    ({"architecture": "encoder", "encoder": "e", "batch_size": 7}, "--batch-size"),
    ({"recurrent": RecurrentOptions(hidden=7)}, "--recurrent: has no effect on --architecture bag"),
    ({"dropout": 0.1}, "--dropout: has no effect on --architecture bag without a hidden layer"),
], ids=lambda value: value if isinstance(value, str) else "-".join(value))
def test_settings_without_effect_are_refused(tmp_path, options, said):
    config = ClassifyConfig(train=(write_texts(tmp_path / "a.tsv", 30),), out=tmp_path / "x", **options)
    with pytest.raises(ConfigError) as problem:
        train_classifier(config)
    assert said in str(problem.value)
    assert not (tmp_path / "x").exists()


def test_a_hinge_has_no_labels_to_smooth():
    with pytest.raises(ConfigError, match="--label-smoothing: has no effect on --loss hinge"):
        ClassifyConfig(loss="hinge", label_smoothing=0.1)


def test_figures_of_texts_that_the_temperature_was_fitted_to_say_so(trained):
    shown = trained.dev.to_json()
    assert shown["configs"]["animals_dev"]["calibrated_on_these_texts"]
    assert not trained.test.to_json()["configs"]["animals_test"]["calibrated_on_these_texts"]


def test_the_same_seed_gives_the_same_model(tmp_path):
    source = write_texts(tmp_path / "a.tsv", 120)
    results = [train_classifier(ClassifyConfig(train=(source,), out=tmp_path / name, epochs=2, seed=seed))
               for name, seed in (("x", 3), ("y", 3), ("z", 4))]
    logits = [r.classifier.logits(["I saw a cat", "a road"]) for r in results]
    assert (logits[0] == logits[1]).all()
    assert (logits[0] != logits[2]).any()


def test_a_hidden_layer_class_weights_copies_and_the_found_rate(tmp_path):
    source = write_texts(tmp_path / "a.tsv", 200)
    config = ClassifyConfig(train=(source,), out=tmp_path / "x", epochs=10, width=8, hidden=8, find_lr=True,
                            class_weights="animal=2, thing=1", label_smoothing=0.05,
                            features=FeatureOptions(word_ngrams=1, max_characters=0))
    config = dataclasses.replace(config, augment=dataclasses.replace(config.augment, copies=1))
    result = train_classifier(config)
    assert result.dev.metrics["acc"].value > 0.8
    assert Classifier.load(tmp_path / "x").quantised(50_000).predict(["a dog"])[0].label == "animal"
    with pytest.raises(ConfigError, match="--class-weights fish=2"):
        train_classifier(dataclasses.replace(config, out=tmp_path / "y", class_weights="fish=2"))


def test_a_filter_decides_by_its_threshold(tmp_path):
    source = write_texts(tmp_path / "a.tsv", 200)
    result = train_classifier(ClassifyConfig(train=(source,), out=tmp_path / "x", epochs=3, positive="animal",
                                             threshold=0.9))
    classifier = Classifier.load(tmp_path / "x")
    assert classifier.classes(np.array([[0.89, 0.11], [0.91, 0.09]])).tolist() == [1, 0]
    assert result.dev.false_alarms is not None
    with pytest.raises(ConfigError, match="not a class"):
        train_classifier(ClassifyConfig(train=(source,), out=tmp_path / "y", positive="plant"))


def test_the_model_is_trained_anew_on_all_texts(trained, tmp_path, capsys):
    selection = Classifier.load(trained.trained.out / "selection")
    rows = json.loads((trained.trained.out / "run.json").read_text(encoding="utf-8"))["data"]
    first = json.loads((trained.trained.out / "selection" / "run.json").read_text(encoding="utf-8"))["data"]
    assert rows["train_texts"] == first["train_texts"] + first["dev_texts"]
    assert (selection.logits(["I saw a cat"]) != trained.classifier.logits(["I saw a cat"])).any()
    assert f"trained anew on all {rows['train_texts']}" in trained.trained_on
    again = ClassifyConfig(train=(trained_source(trained),), out=tmp_path / "y", epochs=1)
    capsys.readouterr()
    train_classifier(again)
    assert "no validation split" not in capsys.readouterr().err
    kept = train_classifier(ClassifyConfig(train=(trained_source(trained),), out=tmp_path / "x", epochs=1, refit=False))
    assert not (tmp_path / "x" / "selection").exists()
    assert "the best of the run" in kept.trained_on


def test_a_run_that_ended_can_be_resumed_without_change(trained, tmp_path):
    config = ClassifyConfig(train=(trained_source(trained),), out=tmp_path / "x", epochs=2, resume="auto")
    first = train_classifier(config).classifier.logits(["I saw a cat"])
    assert (train_classifier(config).classifier.logits(["I saw a cat"]) == first).all()


def test_a_wrong_label_that_sets_the_threshold_is_named(tmp_path, capsys):
    path = tmp_path / "a.tsv"
    source = write_texts(path, 200)
    other = next(kind for kind in WORDS if kind != "animal")
    wrong = f"I saw a {WORDS['animal'][0]} and a {WORDS['animal'][1]}"
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"{wrong}\t{other}\n")
    train_classifier(ClassifyConfig(train=(source,), out=tmp_path / "x", epochs=3, batch_size=16, positive="animal",
                                    folds=3, max_false_alarms=0.01))
    said = capsys.readouterr().err
    assert "one text sets the threshold at" in said
    assert f"Look at the labels: '{wrong} …' ({other})" in said


def test_cross_validation_sets_the_threshold(tmp_path):
    source = write_texts(tmp_path / "a.tsv", 200)
    config = ClassifyConfig(train=(source,), out=tmp_path / "x", epochs=3, batch_size=16, positive="animal", folds=3,
                            max_false_alarms=0.01)
    result = train_classifier(config)
    assert result.folds.n == 200
    assert result.folds.false_alarms <= 0.01
    assert result.folds.metrics["recall"].value > 0.5
    assert Classifier.load(tmp_path / "x").module.config.threshold == result.classifier.module.config.threshold != 0.5
    with pytest.raises(ConfigError, match="--max-false-alarms: needs --folds"):
        dataclasses.replace(config, folds=0)


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recurrent")
    source = write_texts(folder / "train.tsv", 200)
    config = ClassifyConfig(train=(source,), out=folder / "run", architecture="recurrent", refit=False,
                            recurrent=RecurrentOptions(word_width=8, feature_width=4, hidden=8, batch_size=8, epochs=6,
                                                        lr=0.02, dropout=0.2))
    return train_classifier(config)


def test_a_recurrent_classifier_does_all_that_a_bag_does(recurrent):
    assert recurrent.dev.metrics["acc"].value > 0.9
    loaded = Classifier.load(recurrent.trained.out)
    texts = ["I saw a horse", "", "😀 مرحبا", "lamp " * 40_000, "狐狸"]
    assert loaded.probabilities(texts) == pytest.approx(recurrent.classifier.probabilities(texts), abs=1e-5)
    assert loaded.predict(["I saw a horse"])[0].label == "animal"
    explanation = loaded.explain("I saw a horse and a lamp", "animal")
    score = {explanation.text[w.start : w.end]: w.score for w in explanation.words}
    assert list(score) == ["I", "saw", "a", "horse", "and", "lamp"]
    assert score["horse"] > 0 > score["lamp"]
    assert loaded.explain("").words == ()


def test_two_models_answer_with_the_mean_of_their_probabilities(trained, recurrent):
    texts = ["I saw a horse", "a lamp"]
    both = Classifier.load(trained.trained.out)
    both.also = recurrent.classifier
    mean = (trained.classifier.probabilities(texts) + recurrent.classifier.probabilities(texts)) / 2
    assert both.probabilities(texts) == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("architecture", ["bag", "recurrent"])
@pytest.mark.parametrize("freeze", [False, True])
def test_word_vectors_are_where_the_words_start_from(tmp_path, architecture, freeze):
    source = write_texts(tmp_path / "a.tsv", 60)
    chooser = np.random.default_rng(0)
    side = {word: 1.0 if kind == "animal" else -1.0 for kind, words in WORDS.items() for word in words}
    rows = [f"{word} {s + chooser.normal() * 0.1:.4f} {chooser.normal() * 0.1:.4f} 0" for word, s in side.items()]
    (tmp_path / "vectors.txt").write_text("\n".join([f"{len(rows)} 3", *rows]) + "\n", encoding="utf-8")
    own = {"epochs": 8, "batch_size": 8} if architecture == "bag" else {
        "recurrent": RecurrentOptions(feature_width=4, hidden=8, batch_size=8, epochs=3, lr=0.02)}
    config = ClassifyConfig(
        train=(source,), out=tmp_path / "x", architecture=architecture, vectors=tmp_path / "vectors.txt",
        freeze_vectors=freeze, refit=False, augment=AugmentOptions(copies=1, synonym=0.3), **own)
    classifier = train_classifier(config).classifier
    if architecture == "bag":
        row = classifier.features.word_rows(["horse", "no such word", "zebra"])
        assert row[0] >= 0
        assert row[1:].tolist() == [-1, -1]
        learnt = classifier.module.features[row[0], 2:]
    else:
        learnt = classifier.module.embeddings[0].weight[classifier.words.rows(["horse"])[0]]
    given = torch.tensor([float(x) for x in rows[list(side).index("horse")].split()[1:]])
    alike = torch.nn.functional.cosine_similarity(learnt, given, dim=0).item()
    assert alike > 0.5
    assert (alike > 1 - 1e-6) == freeze


def test_a_matrix_that_does_not_fit_is_refused_in_a_line(tmp_path):
    config = ClassifyConfig(train=("x",), out=tmp_path / "x")
    labels = tuple(map(str, range(10_000)))
    said = r"1,000,000 features × 10,000 numbers \(10,000 classes\) need .*--features.most"
    with pytest.raises(MemoryLimitError, match=said):
        check_memory(BagConfig(labels=labels, n_features=1_000_000), config)
    check_memory(BagConfig(labels=("a", "b"), n_features=1000), config)


def test_a_bag_that_fills_the_memory_names_what_makes_it_smaller(tmp_path, monkeypatch):
    from tickwise.tasks import classify

    def full(*given, **named):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(classify, "train_module", full)
    config = ClassifyConfig(train=(write_texts(tmp_path / "a.tsv"),), out=tmp_path / "x")
    with pytest.raises(MemoryLimitError, match=r"2 classes; say --features.most NUMBER or --features.min-texts NUMBER"):
        train_classifier(config)


def test_a_matrix_that_takes_much_is_announced(tmp_path, monkeypatch, capsys):
    from tickwise.tasks import classify_models

    monkeypatch.setattr(classify_models, "memory_bytes", lambda: (2**40, 2**40))
    config = ClassifyConfig(train=("x",), out=tmp_path / "x")
    check_memory(BagConfig(labels=tuple(map(str, range(10_000))), n_features=23_522), config)
    said = capsys.readouterr().err
    assert "10,000 classes" in said
    assert "--features.most" in said
    check_memory(BagConfig(labels=("a", "b"), n_features=1000), config)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("rows", "message"), [
    (["one text\ta", "two texts\ta", "three\ta"], "only one class, 'a'"),
    (["\ta", "  \tb"], "no row with a text and a label"),
    (["\u200f\ta", "\u200d\tb"], "letter"),
])
def test_what_cannot_be_learnt_from(tmp_path, rows, message):
    path = tmp_path / "a.tsv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        train_classifier(ClassifyConfig(train=(str(path),), text_column="0", label_column="1", out=tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_one_text_per_class_still_makes_a_model(tmp_path, capsys):
    path = tmp_path / "a.tsv"
    path.write_text("a warm cat sleeps\tanimal\na bright lamp shines\tthing\nshe runs home\tact\n", encoding="utf-8")
    result = train_classifier(ClassifyConfig(train=(str(path),), out=tmp_path / "x", epochs=30))
    assert result.classifier.predict(["lamp"])[0].label == "thing"
    assert result.dev is None
    assert result.classifier.module.config.temperature == 1.0
    said = capsys.readouterr().err
    assert "single training text" in said
    assert "uncalibrated" in said


def test_labels_that_the_model_does_not_know(trained):
    with pytest.raises(DataError, match=r"1 rows have labels .*: 'plant'"):
        trained.classifier.evaluate(Examples(("a", "b"), ("Animal", "plant"), "mine"), "t")


def test_another_kind_of_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such model"):
        Classifier.load(tmp_path / "gone")


def test_hotel_reviews_in_chinese(shared_data, tmp_path):
    source = shared_data / "chnsenticorp_htl" / "ChnSentiCorp_htl_all.csv"
    examples = read_examples([str(source)], ReadExamples()).take(range(0, 7700, 6))
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps({"text": t, "label": c}) + "\n" for t, c in
                            zip(examples.texts, examples.labels, strict=True)), encoding="utf-8")
    result = train_classifier(ClassifyConfig(train=(str(path),), test_share=0.3, out=tmp_path / "x", epochs=4))
    assert result.test.metrics["acc"].value > 0.8  # seven in ten are positive
