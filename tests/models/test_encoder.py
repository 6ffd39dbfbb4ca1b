"""The encoder family: padding, marks, heads, and the equality of what is computed in two ways."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from tickwise.core.errors import ConfigError
from tickwise.models.encoder import Electra, ElectraConfig, Encoder, EncoderConfig
from tickwise.models.encoder_heads import (
    EncoderClassifier,
    EncoderClassifierConfig,
    SentenceEmbedder,
    SentenceEmbedderConfig,
    SpanReader,
    SpanReaderConfig,
    contrastive_loss,
    partner_scores,
)

SHAPE = {"vocab_size": 60, "context_length": 24, "width": 32, "n_layers": 2, "n_heads": 2, "head_dim": 16, "hidden": 48}
BERT = {"positions": "learned", "norm": "layernorm", "norm_place": "post", "activation": "gelu", "bias": True,
        "n_segments": 2}


def stirred(module, seed=1):
    """Weights that are zero at the start would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


@pytest.mark.parametrize("more", [{}, BERT], ids=["rotary", "bert"])
def test_padding_changes_no_token(more):
    encoder = stirred(Encoder(EncoderConfig(**SHAPE, **more)).initialise(1))
    ids = torch.randint(60, (2, 20), generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([20, 7])
    together = encoder(ids, lengths)
    alone = encoder(ids[1:, :7])
    torch.testing.assert_close(together[1:, :7], alone, atol=1e-5, rtol=1e-4)
    other = ids.clone()
    other[1, 7:] = 3
    torch.testing.assert_close(encoder(other, lengths)[1, :7], together[1, :7], atol=1e-5, rtol=1e-4)


def test_every_token_sees_later_ones():
    encoder = stirred(Encoder(EncoderConfig(**SHAPE)).initialise(1))
    ids = torch.randint(60, (1, 10), generator=torch.Generator().manual_seed(2))
    changed = ids.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 60
    assert (encoder(ids)[0, 0] - encoder(changed)[0, 0]).abs().max() > 1e-4



def test_the_loss_in_chunks_equals_that_of_all_logits():
    config = dataclasses.replace(EncoderConfig(**SHAPE), vocab_size=3000)
    encoder = stirred(Encoder(config).initialise(1)).train()
    states = torch.randn(40, 32, generator=torch.Generator().manual_seed(3))
    words = torch.randint(3000, (40,), generator=torch.Generator().manual_seed(4))
    slow = F.cross_entropy(encoder.mlm_logits(states), words)
    torch.testing.assert_close(encoder.mlm_loss(states, words), slow, atol=1e-5, rtol=1e-5)


def test_a_text_longer_than_the_context_is_refused():
    with pytest.raises(ConfigError, match="past the model's context of 24"):
        Encoder(EncoderConfig(**SHAPE)).initialise(1)(torch.zeros(1, 25, dtype=torch.long))


def test_a_classifier_starts_undecided_and_reads_padded_batches():
    config = EncoderClassifierConfig(**SHAPE, labels=("a", "b", "c"))
    module = EncoderClassifier(config).initialise(1).eval()
    ids, lengths = torch.randint(60, (3, 12)), torch.tensor([12, 5, 1])
    assert module(ids, lengths).tolist() == [[0.0] * 3] * 3
    stirred(module)
    torch.testing.assert_close(module(ids, lengths)[1:2], module(ids[1:2, :5]), atol=1e-5, rtol=1e-4)


def test_a_reader_never_points_into_the_question_or_the_padding():
    module = stirred(SpanReader(SpanReaderConfig(**SHAPE)).initialise(1))
    segments = torch.tensor([[0, 0, 0, 1, 2, 3, 0, 0]])
    scores = module(torch.randint(60, (1, 8)), torch.tensor([7]), segments)
    assert scores.isfinite().tolist() == [[[True, False, False, True, True, True, False, False]] * 2]


def test_embeddings_have_length_one_and_partners_are_found():
    module = stirred(SentenceEmbedder(SentenceEmbedderConfig(**SHAPE)).initialise(1))
    vectors = module(torch.randint(60, (4, 9)), torch.tensor([9, 4, 7, 2]))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    apart = torch.eye(4)
    texts = torch.arange(8).view(4, 2)
    own, others = (contrastive_loss(partner_scores(apart, right, 0.05, texts)) for right in (apart, apart.flip(0)))
    assert own < 1e-6 < others


def test_generator_and_discriminator_share_one_embedding():
    module = Electra(ElectraConfig(**SHAPE)).initialise(1)
    assert module.generator.embed_tokens.weight is module.embed_tokens.weight
    assert module.generator.masked_head is not None
    assert module.masked_head is None
    assert module.replaced_logits(module(torch.zeros(2, 5, dtype=torch.long))).shape == (2, 5)


@pytest.mark.parametrize("wrong", [{"head_dim": 15}, {"dropout": 1.0}, {"n_layers": 0}, {"n_segments": -1}])
def test_contradictory_shapes_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EncoderConfig(**SHAPE | wrong)
