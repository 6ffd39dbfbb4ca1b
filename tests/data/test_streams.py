"""Streams: a row goes on where it ended, an epoch covers the text, and a restored cursor goes on exactly."""

import numpy as np
import pytest
import torch

from tickwise.core.errors import CheckpointError, DataError
from tickwise.data.streams import StreamCursor

TEXT = np.arange(103, dtype=np.uint16)


def cursor(**changes):
    return StreamCursor(TEXT, **{"batch_size": 4, "context": 5, "seed": 3, "vocab_size": 200, **changes})


def test_every_row_goes_on_in_the_next_batch_and_targets_are_one_ahead():
    stream = cursor()
    inputs, targets = stream.next_batch()
    assert inputs.shape == targets.shape == (4, 5)
    assert torch.equal(targets, (inputs + 1) % 103)
    following, _ = stream.next_batch()
    assert torch.equal(following[:, 0], targets[:, -1])


def test_an_epoch_reads_nearly_all_of_the_text_once_and_the_next_one_cuts_it_elsewhere():
    stream = cursor()
    epochs = []
    for _ in range(2):
        batches = [stream.next_batch()[0] for _ in range(stream.batches_per_epoch)]
        seen = torch.cat([b.flatten() for b in batches])
        assert len(seen.unique()) == len(seen) >= 103 - 4 * (5 + 1) - 3
        epochs.append(batches[0][:, 0])
    assert not torch.equal(*epochs)
    assert stream.epochs_done == 2.0


def test_a_restored_cursor_goes_on_with_the_next_batch():
    stream, again = cursor(), cursor()
    for _ in range(7):
        stream.next_batch()
    again.restore(stream.state())
    for _ in range(5):
        assert torch.equal(stream.next_batch()[0], again.next_batch()[0])


def test_other_settings_are_refused():
    with pytest.raises(CheckpointError, match="context"):
        cursor(context=4).restore(cursor().state())
    with pytest.raises(DataError, match="smaller --batch-size"):
        cursor(batch_size=40)
    with pytest.raises(DataError, match="outside the vocabulary"):
        cursor(vocab_size=50).next_batch()
