"""BPE-dropout: other segmentations of the same text."""

import numpy as np
import pytest

from tickwise.core.errors import ConfigError
from tickwise.tokenizers.bpe_dropout import BpeDropout
from tickwise.tokenizers.train import train_tokenizer

TEXTS = ["The lower the newer, the wider: lowest.", "Ein Männchen läuft über Brücken", "我喜欢狗，他也喜欢。",
         "x"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("bpe", iter(TEXTS * 3), vocab_size=400, lowercase=True, prefix_space=True)


def draw(tokenizer, rate, seed=1, epoch=0):
    return BpeDropout(tokenizer, rate, seed, TEXTS).drawn(np.random.default_rng(epoch))


def test_without_dropout_it_is_the_tokenizers_own_segmentation(tokenizer):
    assert draw(tokenizer, 0.0) == tokenizer.encode_batch(TEXTS)


def test_without_merges_every_byte_is_a_token(tokenizer):
    assert [len(ids) for ids in draw(tokenizer, 1.0)] == [len(text.encode()) + 1 for text in TEXTS]


def test_segmentations_differ_and_mean_the_same_text(tokenizer):
    first, second = draw(tokenizer, 0.3), draw(tokenizer, 0.3, epoch=1)
    assert first != second
    for ids in (first, second):
        assert [tokenizer.decode(one) for one in ids] == [tokenizer.decode(tokenizer.encode(text)) for text in TEXTS]
        assert sum(map(len, ids)) > sum(map(len, tokenizer.encode_batch(TEXTS)))


def test_they_depend_on_the_seed_alone(tokenizer):
    assert draw(tokenizer, 0.3) == draw(tokenizer, 0.3)
    assert draw(tokenizer, 0.3) != draw(tokenizer, 0.3, seed=2)


def test_words_of_a_vocabulary_have_one_segmentation():
    with pytest.raises(ConfigError, match="byte-level"):
        BpeDropout(train_tokenizer("word", iter(TEXTS * 3)), 0.1, 1, TEXTS)


def test_a_clause_without_spaces_has_more_segmentations_than_a_word(tokenizer):
    clause = "我喜欢狗他也喜欢" * 6
    dropout = BpeDropout(tokenizer, 0.3, 1, [clause])
    drawn = [dropout.drawn(np.random.default_rng(epoch))[0] for epoch in range(60)]
    assert len(set(map(tuple, drawn))) > 40
    assert {tokenizer.decode(ids).strip() for ids in drawn} == {clause}
    assert BpeDropout(tokenizer, 0.0, 1, [clause]).drawn(np.random.default_rng(0)) == [tokenizer.encode(clause)]
