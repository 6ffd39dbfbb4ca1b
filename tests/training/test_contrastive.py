"""Which texts count as wrong answers when an embedder learns, and that a batch of them is not taken apart."""

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.data.encoder_inputs import Marks
from tickwise.models.encoder_heads import SentenceEmbedder, SentenceEmbedderConfig, contrastive_loss, partner_scores
from tickwise.training.contrastive import Contrastive
from tickwise.training.parallel import Alone

MARKS = Marks(pad=0, cls=1, sep=2, mask=3)


def rows(*texts):
    """``[CLS] text [SEP]`` of texts of one token each."""
    return [torch.tensor([1, text, 2]).numpy() for text in texts]


def objective(left, right, **more):
    settings = {"batch_size": len(left), "seed": 0, "word_dropout": 0.0} | more
    return Contrastive(rows(*left), rows(*right), (rows(*left), rows(*right)), MARKS, **settings)


@pytest.fixture(scope="module")
def module():
    config = SentenceEmbedderConfig(vocab_size=20, context_length=8, width=16, n_layers=1, n_heads=1, head_dim=16,
                                    hidden=16)
    return SentenceEmbedder(config).initialise(0)


def test_a_text_that_stands_twice_is_no_wrong_answer_to_itself(module):
    figures = objective([5, 5, 6, 6], [5, 5, 6, 6]).validate(module, torch.device("cpu"), None)
    assert figures["recall"] == 1
    assert figures["loss"] < 0.01


def test_pairs_that_share_a_text_are_not_told_apart():
    vectors = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    texts = torch.tensor([[1, 2], [2, 1], [1, 3], [4, 3], [5, 6], [7, 7]])
    scores = partner_scores(vectors, vectors.flip(0), 0.05, texts)
    shared = {(0, 1), (0, 2), (1, 2), (2, 3)}
    for i in range(6):
        for j in range(6):
            closed = (min(i, j), max(i, j)) in shared
            assert scores[i, j].item() == (float("-inf") if closed else
                                           pytest.approx(float(vectors[i] @ vectors.flip(0)[j]) / 0.05, rel=1e-5))


def test_pairs_of_different_texts_are_compared_with_all_others(module):
    batch = objective([5, 6, 7, 8], [9, 10, 11, 12]).example()
    loss, _ = objective([5, 6, 7, 8], [9, 10, 11, 12]).loss(module, *batch.inputs)
    left, right = module(batch.inputs[0], batch.inputs[1]), module(batch.inputs[2], batch.inputs[3])
    expected = contrastive_loss(left @ right.t() / module.config.temperature)
    assert loss.item() == expected.item() > 0


def test_the_words_that_are_dropped_do_not_make_another_text():
    dropped = objective([5, 5, 6], [7, 8, 9], word_dropout=0.9).next_batch().inputs
    assert MARKS.mask in dropped[0]
    scores = partner_scores(torch.eye(3), torch.eye(3), 1.0, dropped[4])
    assert (scores == -torch.inf).sum() == 2


def test_a_batch_is_not_taken_apart():
    whole = objective([5, 6, 7, 8], [9, 10, 11, 12])
    batch = whole.next_batch()
    [alone] = Alone().parts(whole, batch, 1)
    assert (alone.batch, alone.divisor) == (batch, 1)
    assert whole.split(batch, 1) == [batch]
    with pytest.raises(ConfigError, match="whole batches"):
        Alone().parts(whole, batch, 2)
