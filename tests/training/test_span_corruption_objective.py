"""Span corruption as a training objective: batches, their parts, validation, resuming, what does not fit."""

import json

import numpy as np
import pytest
import torch

from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.data.batches import BatchCursor
from tickwise.data.pair_batches import PairTensors
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.training.parallel import Alone
from tickwise.training.span_corruption import SpanCorruption

EOS, LENGTH = 40, 26
SENTINELS = [59, 58, 57, 56]
TOKENS = np.random.default_rng(0).integers(0, EOS, 500)
SHAPE = EncoderDecoderConfig(vocab_size=60, source_length=30, context_length=30, width=16, n_encoder_layers=1,
                             n_decoder_layers=1, n_heads=1, n_kv_heads=1, head_dim=16, hidden=16, pad_id=EOS,
                             start_id=EOS, eos_id=EOS)


def objective(batch_size=5, validation=TOKENS[:200], shape=SHAPE, sentinels=SENTINELS, density=0.15, mean_span=3.0):
    cursor = BatchCursor(TOKENS, batch_size=batch_size, context=LENGTH, seed=3, vocab_size=60)
    return SpanCorruption(cursor, validation, shape, sentinels=sentinels, density=density, mean_span=mean_span)


def rebuilt(source, labels):
    """The window, from a source and what is to be named."""
    spans, found = {}, []
    for token in labels[:-1]:
        if token in SENTINELS:
            own = spans[token] = []
        else:
            own.append(token)
    for token in source[:-1]:
        found += spans[token] if token in SENTINELS else [token]
    return found


def test_a_batch_hides_what_its_targets_name():
    spans = objective()
    windows = spans._cursor.__class__(TOKENS, batch_size=5, context=LENGTH, seed=3).next_batch()[0].tolist()
    batch = spans.next_batch()
    pairs = PairTensors(*batch.inputs)
    assert batch.n_tokens == 5 * LENGTH
    labels = pairs.labels.view(5, -1)
    assert [rebuilt(a, b) for a, b in zip(pairs.source.tolist(), labels.tolist(), strict=True)] == windows
    assert (pairs.source[:, -1] == EOS).all()
    assert (labels[:, -1] == EOS).all()
    assert torch.equal(pairs.target[:, 1:], labels[:, :-1])
    assert (pairs.target[:, 0] == EOS).all()
    assert pairs.source_lengths.tolist() == [pairs.source.shape[1]] * 5
    hidden = (labels < EOS).sum(1)
    assert hidden.tolist() == [round(0.15 * LENGTH)] * 5


@pytest.mark.parametrize("n", [2, 3, 5])
def test_parts_add_up_to_the_batch_also_where_they_are_not_equal(n):
    spans, module = objective(), EncoderDecoder(SHAPE).initialise(1)
    batch = spans.next_batch()
    whole, _ = spans.loss(module, *batch.inputs)
    parts = Alone().parts(spans, batch, n)
    found = sum(spans.loss(module, *part.batch.inputs)[0] / part.divisor for part in parts)
    torch.testing.assert_close(found, whole)
    assert sum(part.batch.n_tokens for part in parts) == batch.n_tokens
    together = [torch.cat(side) for side in zip(*(part.batch.inputs for part in parts), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(together, batch.inputs, strict=True))


def test_resuming_draws_the_very_next_spans():
    first, again = objective(), objective()
    for _ in range(30):  # more than an epoch
        first.next_batch()
    again.restore(json.loads(json.dumps(first.state())), {})
    for _ in range(3):
        a, b = first.next_batch(), again.next_batch()
        assert all(torch.equal(x, y) for x, y in zip(a.inputs, b.inputs, strict=True))
    assert again.epochs_done == first.epochs_done > 1
    other = SpanCorruption(BatchCursor(TOKENS[:300], batch_size=5, context=LENGTH, seed=3), None, SHAPE,
                           sentinels=SENTINELS, density=0.15, mean_span=3.0)
    with pytest.raises(CheckpointError, match="n_tokens"):
        other.restore(first.state(), {})


def test_validation_is_the_same_every_time_and_takes_nothing_from_the_training():
    spans, module = objective(), EncoderDecoder(SHAPE).initialise(1).eval()
    untouched = objective()
    losses = [spans.validate(module, torch.device("cpu"), None)["loss"] for _ in range(2)]
    assert losses[0] == losses[1] > 0
    assert torch.equal(spans.next_batch().inputs[0], untouched.next_batch().inputs[0])
    assert spans.n_validation_tokens == 199
    (batch,) = spans._validation_batches(None)
    assert batch.inputs[0].shape[0] == 199 // LENGTH  # what is left over at the end is not among them
    torch.testing.assert_close(torch.tensor(losses[0]), spans.loss(module, *batch.inputs)[0])


@pytest.mark.parametrize(("changed", "said"), [
    ({"density": 0.9, "mean_span": 2.0, "sentinels": range(41, 60)}, None),
    ({"density": 0.9, "mean_span": 1.0}, "the source has 7 and the target 27, the model takes 30 and 24"),
    ({"density": 0.5, "mean_span": 1.0}, "13 spans, and the tokenizer 4 sentinels"),
])
def test_what_does_not_fit_is_said_at_once(changed, said):
    shape = SHAPE if said is None or "takes" not in said else EncoderDecoderConfig(
        **{**SHAPE.__dict__, "context_length": 24})
    if said is None:
        assert objective(shape=shape, **changed).example().n_tokens == 5 * LENGTH
        return
    with pytest.raises(ConfigError, match=said):
        objective(shape=shape, **changed)
