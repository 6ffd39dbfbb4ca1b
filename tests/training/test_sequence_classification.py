"""The objective of recurrent classifiers: learns the order of words, resumes exactly, drops words."""

import numpy as np
import pytest
import torch

from tickwise.core.errors import CheckpointError
from tickwise.data.tag_features import UNKNOWN
from tickwise.data.word_sequences import WordSequences
from tickwise.models.recurrent_classifier import RecurrentClassifier, RecurrentClassifierConfig
from tickwise.training.sequence_classification import SequenceClassification, classify_sequences


def build(n=200, **options):
    """The class is which of two words comes first, which no bag of words can tell."""
    chooser = np.random.default_rng(0)
    classes = chooser.integers(0, 2, n)
    texts = [" ".join([*["so"] * chooser.integers(0, 4), *(("left", "right") if c else ("right", "left"))])
             for c in classes]
    words = WordSequences.fit(texts)
    encoded, targets = words.encode(texts), torch.from_numpy(classes)
    objective = SequenceClassification(encoded[:150], targets[:150], (encoded[150:], targets[150:]), batch_size=16,
                                       seed=1, **options)
    sizes = words.features.sizes
    module = RecurrentClassifier(RecurrentClassifierConfig(
        labels=("right", "left"), feature_sizes=tuple(sizes.values()), feature_widths=tuple(8 for _ in sizes),
        hidden=8, dropout=0.0)).initialise(1)
    return module, objective


def test_it_learns_an_order():
    module, objective = build()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        objective.loss(module, *objective.next_batch().inputs)[0].backward()
        optimizer.step()
    assert objective.validate(module, torch.device("cpu"), None)["accuracy"] == 1.0


def test_a_pass_sees_every_text_once_and_batches_are_of_like_length():
    _, objective = build()
    objective._batch_size = 10
    seen = [objective.next_batch() for _ in range(objective.steps_per_epoch)]
    assert sum(len(batch.inputs[2]) for batch in seen) == 150
    assert sum(batch.n_tokens for batch in seen) == sum(map(len, objective._texts))
    assert max(int(batch.inputs[2].max() - batch.inputs[2].min()) for batch in seen) <= 1


def test_it_resumes_with_the_very_next_batch():
    _, first = build(word_dropout=0.3)
    for _ in range(13):
        first.next_batch()
    _, second = build(word_dropout=0.3)
    second.restore(first.state(), {})
    for _ in range(3):
        pairs = zip(first.next_batch().inputs, second.next_batch().inputs, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    other = SequenceClassification(first._texts, first._classes, None, batch_size=8, seed=1)
    with pytest.raises(CheckpointError, match="batch size was 16"):
        other.restore(first.state(), {})


def test_dropped_words_are_unknown_and_padding_stays():
    _, objective = build(word_dropout=0.5)
    features, characters, lengths = objective.next_batch().inputs[:3]
    inside = torch.arange(features.shape[1]) < lengths[:, None]
    share = (features[inside] == UNKNOWN).all(1).float().mean()
    assert 0.2 < share < 0.8
    assert (features[~inside] == 0).all()
    assert (characters[(features == UNKNOWN).all(2)] == 0).all()


def test_predictions_come_in_order():
    module, objective = build()
    torch.nn.init.normal_(module.head.weight, generator=torch.Generator().manual_seed(2))
    texts = objective._texts[:20]
    together = classify_sequences(module, texts, torch.device("cpu"))
    alone = torch.cat([classify_sequences(module, [text], torch.device("cpu")) for text in texts])
    assert torch.allclose(together, alone, atol=1e-6)
    assert together.std() > 0.01


def test_validation_does_not_mind_how_sure_the_model_is():
    module, objective = build()
    torch.nn.init.normal_(module.head.weight, generator=torch.Generator().manual_seed(2))
    before = objective.validate(module, torch.device("cpu"), None)
    with torch.no_grad():
        module.head.weight *= 1.5
    assert objective.validate(module, torch.device("cpu"), None) == pytest.approx(before, rel=0.01)


def test_texts_that_lose_their_middle_are_counted():
    words = WordSequences.fit(["a b", "b c"], min_count=1)
    encoded = words.encode(["a b", "a " * words.longest, "a " * (words.longest + 1)])
    assert [len(text) for text in encoded] == [2, words.longest, words.longest]
    assert words.n_cut == 1
