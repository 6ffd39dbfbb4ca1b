"""Whatever a loss is a mean over, that of an update is the same in one piece and in several."""

import numpy as np
import pytest
import torch

from tickwise.data.bags import FeatureIndex
from tickwise.data.sentences import sentences_from_ids
from tickwise.data.word_sequences import WordSequences
from tickwise.models.bag import Bag, BagConfig
from tickwise.models.recurrent import Recurrent, RecurrentConfig
from tickwise.models.recurrent_classifier import RecurrentClassifier, RecurrentClassifierConfig
from tickwise.models.vae import Vae, VaeConfig
from tickwise.text.ngrams import NgramSettings
from tickwise.training.classification import BagClassification
from tickwise.training.parallel import Alone
from tickwise.training.sentence_likelihood import SentenceLikelihood
from tickwise.training.sequence_classification import SequenceClassification
from tickwise.training.vae_objective import KlSchedule, VaeObjective

CHOOSER = np.random.default_rng(0)
SENTENCES = sentences_from_ids([CHOOSER.integers(1, 9, CHOOSER.integers(1, 12)).tolist() for _ in range(40)], 0)
TEXTS = ["a bird", "one two three four five six seven", "a", "a cat and a dog and a bird", "no", "seven birds and cats"]
CLASSES, WEIGHTS = torch.tensor([0, 1, 1, 0, 1, 0]), torch.tensor([0.2, 3.0, 1.0, 0.5, 2.0, 1.0])


def sentence_likelihood():
    module = Recurrent(RecurrentConfig(vocab_size=9, width=8, hidden=8, n_layers=1)).initialise(0)
    return module, SentenceLikelihood(SENTENCES, None, batch_size=10, seed=0)


def vae():
    module = Vae(VaeConfig(vocab_size=9, eos_id=0, latent=2, width=8, hidden=8, encoder_hidden=8)).initialise(0)
    return module, VaeObjective(SENTENCES, None, batch_size=10, seed=0,
                                schedule=KlSchedule(autoencoder_epochs=5))  # its noise would differ


def bag():
    features = FeatureIndex.fit(TEXTS, NgramSettings(1, 2, 3, segment=False), min_texts=1)
    module = Bag(BagConfig(labels=("a", "b"), n_features=len(features))).initialise(0)
    torch.nn.init.normal_(module.features, generator=torch.Generator().manual_seed(1))
    return module, BagClassification(features.encode(TEXTS), CLASSES, None, batch_size=6, seed=0,
                                     example_weights=WEIGHTS)


def sequence():
    words = WordSequences.fit(TEXTS, min_count=1)
    sizes = tuple(words.features.sizes.values())
    module = RecurrentClassifier(RecurrentClassifierConfig(
        labels=("a", "b"), feature_sizes=sizes, feature_widths=(4,) * len(sizes), hidden=4, dropout=0.0)).initialise(0)
    torch.nn.init.normal_(module.head.weight, generator=torch.Generator().manual_seed(1))
    return module, SequenceClassification(words.encode(TEXTS), CLASSES, None, batch_size=6, seed=0,
                                          example_weights=WEIGHTS)


@pytest.mark.parametrize("make", [sentence_likelihood, vae, bag, sequence], ids=lambda make: make.__name__)
def test_the_loss_of_an_update_does_not_depend_on_its_pieces(make):
    module, objective = make()
    batch = objective.next_batch()
    found = []
    for accumulate in (1, 4):
        module.zero_grad()
        loss = sum(objective.loss(module, *part.batch.inputs)[0] / part.divisor
                   for part in Alone().parts(objective, batch, accumulate))
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in module.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
