"""What a classifier's training is given: features of altered copies too."""

import json
from pathlib import Path

import pytest
import torch

from tickwise.data.encoder_inputs import with_marks
from tickwise.data.examples import Examples
from tickwise.data.tag_features import UNKNOWN
from tickwise.models.encoder_heads import EncoderClassifier, EncoderClassifierConfig
from tickwise.models.word_vectors import NamedVectors, WordVectors, WordVectorsConfig
from tickwise.tasks.classifier import SequenceClassifier
from tickwise.tasks.classify import train_classifier
from tickwise.tasks.classify_config import ClassifyConfig, FeatureOptions
from tickwise.tasks.classify_models import make_job, synonyms_from
from tickwise.tasks.encoder_classifier import EncodedClassifier
from tickwise.text.augment import AugmentOptions, augmented
from tickwise.tokenizers.train import train_tokenizer

VECTORS = {"good": [1.0, 0.1], "bad": [-1.0, 0.1], "excellent": [1.0, 0.12], "terrible": [-1.0, 0.12]}
TRAIN = Examples(("good film", "bad film") * 5, ("p", "n") * 5, "films")


def vectors():
    module = WordVectors(WordVectorsConfig(vocab_size=len(VECTORS), width=2))
    module.weight.data = torch.tensor(list(VECTORS.values()))
    return NamedVectors(list(VECTORS), module)


def config(**settings):
    return ClassifyConfig(train=("films",), out=Path("unused"), vectors=Path("unused"), **settings)


@pytest.mark.parametrize("architecture", ["bag", "recurrent"])
def test_altered_copies_have_as_many_known_words_as_their_texts(architecture):
    options = AugmentOptions(copies=2, swap=0.0, delete=0.0, synonym=1.0)
    own = {"features": FeatureOptions(word_ngrams=1, max_characters=0)} if architecture == "bag" else {}
    job = make_job(config(architecture=architecture, augment=options, **own), ("n", "p"), TRAIN, None, vectors())
    texts, _, sources = augmented(TRAIN.texts, TRAIN.labels, options, 1, synonyms_from(vectors()))
    assert len(texts) == 30
    assert all("excellent" in text or "terrible" in text for text in texts[10:])
    encoded = job.assets.encode(texts)
    known = encoded.offsets.diff().tolist() if architecture == "bag" else [
        int((text.features[:, 0] != UNKNOWN).sum()) for text in encoded]
    assert known == [known[source] for source in sources] == [2] * 30


def test_frozen_vectors_leave_words_without_one_unread():
    train = Examples(("good strange film", "bad strange film") * 5, ("p", "n") * 5, "films")
    job = make_job(config(architecture="recurrent", freeze_vectors=True), ("n", "p"), train, None, vectors())
    table, words = job.module.embeddings[0].weight, ["good", "bad", "strange", "film", "never seen"]
    assert [bool(row.any()) for row in table[job.assets.rows(words)]] == [True, True, False, False, False]
    assert int(table.any(1).sum()) == 2


def test_texts_that_are_not_read_whole_are_told_once(capsys):
    job = make_job(config(architecture="recurrent"), ("n", "p"), TRAIN, None, vectors())
    classifier = SequenceClassifier(job.module, job.assets)
    capsys.readouterr()
    texts = ["good film " * 400, "good film " * 900, "a" * 2000]
    assert [prediction.cut for prediction in classifier.predict(texts)] == [False, True, False]
    assert "1 of 3 texts are longer than 1,000 words: their middle is not read" in capsys.readouterr().err
    classifier.predict(texts)
    assert capsys.readouterr().err == ""


def test_a_text_longer_than_its_encoder_is_told_of(capsys):
    tokenizer = with_marks(train_tokenizer("bpe", iter(["good film bad film " * 20]), vocab_size=270))
    module = EncoderClassifier(EncoderClassifierConfig(
        vocab_size=tokenizer.vocab_size, context_length=16, width=16, n_layers=1, n_heads=2, head_dim=8, hidden=16,
        labels=("n", "p"))).initialise(1)
    classifier = EncodedClassifier(module, tokenizer)
    assert [prediction.cut for prediction in classifier.predict(["good film", "bad film " * 20])] == [False, True]
    assert "1 of 2 texts are longer than the encoder's 16 tokens: their end is not read" in capsys.readouterr().err


def test_a_found_rate_is_that_of_all_trainings(tmp_path, capsys):
    rows = [f"{i} I saw a {'cat' if i % 2 else 'lamp'}\t{'animal' if i % 2 else 'thing'}" for i in range(80)]
    (tmp_path / "a.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    train_classifier(ClassifyConfig(train=(str(tmp_path / "a.tsv"),), out=tmp_path / "x", epochs=1, batch_size=16,
                                    find_lr=True, folds=2))
    assert capsys.readouterr().err.count("the loss fell fastest there") == 1
    rates = {json.loads((tmp_path / "x" / part / "run.json").read_text())["config"]["optimizer"]["lr"]
             for part in (".", "selection", "folds/1", "folds/2")}
    assert len(rates) == 1
