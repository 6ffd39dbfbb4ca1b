"""The objective of classifiers of bags: learns, resumes exactly, splits evenly; and the learning-rate finder."""

import numpy as np
import pytest
import torch

from tickwise.core.errors import CheckpointError, NumericsError
from tickwise.data.bags import Bags, FeatureIndex
from tickwise.models.bag import Bag, BagConfig
from tickwise.text.ngrams import NgramSettings
from tickwise.training.class_objective import class_losses
from tickwise.training.classification import BagClassification, balanced_weights, classify_bags
from tickwise.training.config import OptimizerOptions
from tickwise.training.lr_finder import find_learning_rate

LABELS = ("animal", "thing")
WORDS = {0: ["cat", "dog", "bird", "horse", "fish"], 1: ["car", "lamp", "house", "road", "spoon"]}


def texts_and_classes(n=400, seed=0):
    chooser = np.random.default_rng(seed)
    classes = chooser.integers(0, 2, n)
    return [" ".join(["the", chooser.choice(WORDS[c]), chooser.choice(["is", "was"]),
                      chooser.choice(WORDS[c if chooser.random() < 0.8 else 1 - c])]) for c in classes], classes


def build(**options):
    texts, classes = texts_and_classes()
    index = FeatureIndex.fit(texts, NgramSettings(2, 2, 4))
    bags, targets = index.encode(texts), torch.from_numpy(classes)
    train, dev = torch.arange(300), torch.arange(300, 400)
    objective = BagClassification(bags.take(train), targets[train], (bags.take(dev), targets[dev]),
                                  **({"batch_size": 32, "seed": 1} | options))
    return Bag(BagConfig(labels=LABELS, n_features=len(index))).initialise(1), objective


def train(module, objective, steps):
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05, weight_decay=0.0)
    for _ in range(steps):
        loss, _ = objective.loss(module, *objective.next_batch().inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module


def test_five_lines_of_training_learn_the_classes():
    module, objective = build(feature_dropout=0.3)
    before = objective.validate(module, torch.device("cpu"), None)
    after = objective.validate(train(module, objective, 60), torch.device("cpu"), None)
    assert before["loss"] == pytest.approx(np.log(2))
    assert after["loss"] < 0.4
    assert after["accuracy"] > 0.9


def test_one_pass_shows_every_text_once():
    _, objective = build(batch_size=50)
    seen = torch.cat([objective.next_batch().inputs[3] for _ in range(objective.steps_per_epoch)])
    assert objective.epochs_done == 1.0
    assert seen.bincount().tolist() == np.bincount(texts_and_classes()[1][:300]).tolist()


def test_a_restored_objective_goes_on_with_the_very_next_batch():
    _, objective = build(feature_dropout=0.4)
    for _ in range(13):
        objective.next_batch()
    state = objective.state()
    expected = [objective.next_batch() for _ in range(9)]
    _, other = build(feature_dropout=0.4)
    other.restore(state, {})
    for batch in expected:
        for a, b in zip(batch.inputs, other.next_batch().inputs, strict=True):
            assert torch.equal(a, b)
    _, smaller = build(batch_size=16)
    with pytest.raises(CheckpointError, match="batch size was 32"):
        smaller.restore(state, {})


def test_micro_batches_add_up_to_the_batch():
    module, objective = build()
    train(module, objective, 5)
    batch = objective.next_batch()
    whole, _ = objective.loss(module, *batch.inputs)
    parts = [objective.loss(module, *part.inputs)[0] for part in objective.split(batch, 4)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
    assert sum(part.n_tokens for part in objective.split(batch, 4)) == batch.n_tokens


def test_balanced_weights_give_every_class_the_same_say():
    classes = torch.tensor([0, 0, 0, 1])
    weights = balanced_weights(classes, 2)
    assert weights[classes == 0].sum() == weights[classes == 1].sum()
    assert weights.mean() == 1
    assert balanced_weights(classes, 2, {1: 3.0}).tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])


def test_logits_of_no_texts():
    module, _ = build()
    nothing = Bags(torch.empty(0, dtype=torch.long), torch.empty(0), torch.zeros(1, dtype=torch.long))
    assert len(classify_bags(module, nothing, torch.device("cpu"))) == 0


def test_the_found_learning_rate_trains_and_leaves_everything_as_it_was():
    module, objective = build()
    before, place = {n: t.clone() for n, t in module.state_dict().items()}, objective.state()
    options = OptimizerOptions(name="adamw", weight_decay=0.0)
    found = find_learning_rate(module, objective, options, torch.device("cpu"))
    assert objective.state() == place
    assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())
    assert 1e-3 < found.lr < 1
    assert list(found.tried) == sorted(found.tried)
    with torch.no_grad():
        module.bias.fill_(float("nan"))
    with pytest.raises(NumericsError, match="not finite"):
        find_learning_rate(module, objective, options, torch.device("cpu"))


def test_the_hinge_loss_wants_a_margin_of_one():
    logits = torch.tensor([[1.0, -1.0, -2.0], [0.5, 0.0, -1.0]])
    losses = class_losses("hinge", logits, torch.tensor([0, 0]))
    assert losses.tolist() == pytest.approx([0.0, 0.25 + 1.0])


def test_with_decay_the_hinge_loss_finds_the_widest_margin():
    """Two texts, one feature each: the weights of least norm with full margins are +1 and -1, biases 0."""
    bags = Bags(torch.tensor([0, 1]), torch.ones(2), torch.tensor([0, 1, 2]))
    objective = BagClassification(bags, torch.tensor([0, 1]), None, batch_size=2, seed=0, loss="hinge")
    module = Bag(BagConfig(labels=LABELS, n_features=2)).initialise(0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=1e-4)
    for _ in range(500):
        optimizer.zero_grad()
        objective.loss(module, *objective.next_batch().inputs)[0].backward()
        optimizer.step()
    assert module.features.detach().numpy() == pytest.approx(np.array([[1, -1], [-1, 1]]), abs=0.01)
