"""What a classifier's training is given: features of altered copies too."""

from pathlib import Path

import pytest
import torch

from tickwise.data.examples import Examples
from tickwise.data.tag_features import UNKNOWN
from tickwise.models.word_vectors import NamedVectors, WordVectors, WordVectorsConfig
from tickwise.tasks.classify_config import ClassifyConfig, FeatureOptions
from tickwise.tasks.classify_models import make_job, synonyms_from
from tickwise.text.augment import AugmentOptions, augmented

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
