"""Sentences of a token stream and batches of them."""

import numpy as np
import pytest

from tickwise.core.errors import CheckpointError, DataError
from tickwise.data.sentences import SentenceBatches, sentences_from_ids, split_sentences


def stream():
    return np.array([5, 6, 9, 9, 7, 9, 1, 2, 3, 4, 9, 8], dtype=np.uint16)


def test_sentences_are_the_runs_between_end_tokens():
    found = split_sentences(stream(), 9, 10)
    assert [found.ids(i) for i in range(len(found))] == [[5, 6], [7], [1, 2, 3, 4], [8]]


def test_long_sentences_are_left_out():
    found = split_sentences(stream(), 9, 4)
    assert [found.ids(i) for i in range(len(found))] == [[5, 6], [7], [8]]


def test_padded_sentences_end_with_the_end_token():
    found = split_sentences(stream(), 9, 10)
    ids_BT, lengths_B = found.padded(np.array([3, 2, 1]))
    assert ids_BT.tolist() == [[8, 9, 9, 9, 9], [1, 2, 3, 4, 9], [7, 9, 9, 9, 9]]
    assert lengths_B.tolist() == [2, 5, 2]


def test_a_text_without_sentences_is_refused():
    with pytest.raises(DataError, match="end-of-text"):
        split_sentences(stream(), None, 10)
    with pytest.raises(DataError, match="--documents line"):
        split_sentences(np.arange(8), 9, 5)
    with pytest.raises(DataError, match="empty"):
        split_sentences(np.array([9, 9]), 9, 5)


def many(n=200):
    chooser = np.random.default_rng(0)
    return sentences_from_ids([[1] * int(length) for length in chooser.integers(1, 40, n)], 0)


def test_an_epoch_has_every_sentence_once_in_batches_of_like_length():
    sentences = many()
    batches = SentenceBatches(sentences, batch_size=10, seed=1)
    epoch = [batches.next_batch() for _ in range(batches.batches_per_epoch)]
    assert sorted(np.concatenate(epoch)) == list(range(200))
    spread = np.mean([np.ptp(sentences.lengths[batch]) for batch in epoch])
    assert spread < 0.2 * np.ptp(sentences.lengths)
    assert batches.epochs_done == 1.0
    following = [batches.next_batch() for _ in range(batches.batches_per_epoch)]
    assert not all(np.array_equal(a, b) for a, b in zip(epoch, following, strict=True))


@pytest.mark.parametrize("batch_size", [32, 64])
def test_what_fills_no_batch_is_other_sentences_in_every_epoch(batch_size):
    lengths = range(1, 101)
    batches = SentenceBatches(sentences_from_ids([[1] * n for n in lengths], 0), batch_size=batch_size, seed=1)
    epochs = [np.concatenate([batches.next_batch() for _ in range(batches.batches_per_epoch)]) for _ in range(20)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == 100 // batch_size * batch_size
    assert set(np.concatenate(epochs)) == set(range(100))


def test_restoring_goes_on_with_the_very_next_batch():
    batches, resumed = (SentenceBatches(many(), batch_size=16, seed=3) for _ in range(2))
    for _ in range(17):
        batches.next_batch()
    resumed.restore(batches.state())
    for _ in range(20):
        assert np.array_equal(batches.next_batch(), resumed.next_batch())
    with pytest.raises(CheckpointError, match="batch_size"):
        SentenceBatches(many(), batch_size=8, seed=3).restore(batches.state())
