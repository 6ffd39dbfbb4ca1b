"""The cursor: every token once an epoch, exact resume, windows that cover validation once."""

import numpy as np
import pytest

from tickwise.core.errors import CheckpointError, DataError
from tickwise.data.batches import BatchCursor, evaluation_windows

TOKENS = np.arange(1000, dtype=np.uint16)


def test_targets_are_the_inputs_moved_on_by_one():
    inputs, targets = BatchCursor(TOKENS, batch_size=4, context=16, seed=1).next_batch()
    assert inputs.shape == targets.shape == (4, 16)
    assert (targets == inputs + 1).all()


def test_an_epoch_uses_no_target_twice_and_nearly_all():
    cursor = BatchCursor(TOKENS, batch_size=1, context=16, seed=1)
    seen = []
    while cursor.epoch == 0 and cursor.position < len(cursor._order):
        seen += cursor.next_batch()[1].flatten().tolist()
    assert len(seen) == len(set(seen))
    assert len(seen) > 1000 - 2 * 16


def test_window_borders_move_from_epoch_to_epoch():
    cursor = BatchCursor(TOKENS, batch_size=1, context=16, seed=1)
    offsets = {int(cursor._permutation(epoch).min()) for epoch in range(20)}
    assert len(offsets) > 5


@pytest.mark.parametrize("n_before", [0, 3, 17, 40])
def test_resume_gives_the_same_batches(n_before):
    first = BatchCursor(TOKENS, batch_size=7, context=16, seed=3)
    for _ in range(n_before):
        first.next_batch()
    second = BatchCursor(TOKENS, batch_size=7, context=16, seed=3)
    second.restore(first.state())
    for _ in range(30):
        a, b = first.next_batch(), second.next_batch()
        assert (a[0] == b[0]).all()
        assert first.epochs_done == second.epochs_done


def test_resume_refuses_another_stream():
    state = BatchCursor(TOKENS, batch_size=7, context=16, seed=3).state()
    with pytest.raises(CheckpointError, match="n_tokens"):
        BatchCursor(TOKENS[:900], batch_size=7, context=16, seed=3).restore(state)


@pytest.mark.parametrize("length", [17, 18, 33, 40])
def test_short_streams_work_and_too_short_ones_say_so(length):
    cursor = BatchCursor(TOKENS[:length], batch_size=5, context=16, seed=0)
    for _ in range(5):
        inputs, targets = cursor.next_batch()
        assert (targets == inputs + 1).all()
    with pytest.raises(DataError, match="context"):
        BatchCursor(TOKENS[:16], batch_size=5, context=16, seed=0)


@pytest.mark.parametrize("length", [2, 16, 17, 18, 100, 161])
def test_evaluation_windows_hold_every_target_once(length):
    targets = [t for _, window in evaluation_windows(TOKENS[:length], 16) for t in window.flatten().tolist()]
    assert sorted(targets) == list(range(1, length))


def test_bounded_evaluation_spreads_over_the_stream():
    ((_, targets),) = evaluation_windows(TOKENS, 16, max_tokens=160)
    assert targets.shape == (10, 16)
    assert targets[0, 0] == 1
    assert targets[-1, -1] > 950


def test_an_id_outside_the_vocabulary_is_one_line_that_names_both():
    tokens = TOKENS.copy()
    tokens[500] = 1000
    cursor = BatchCursor(tokens, batch_size=100, context=16, seed=0, vocab_size=1000)
    with pytest.raises(DataError, match=r"token id 1000, outside the vocabulary of 1000.*prepare the data again"):
        cursor.next_batch()
    with pytest.raises(DataError, match="token id 1000"):
        evaluation_windows(tokens, 16, vocab_size=1000)
    with pytest.raises(DataError, match="token id 1000"):  # in the short window at the end
        evaluation_windows(tokens[:501], 16, vocab_size=1000)


def test_every_id_of_the_vocabulary_is_accepted():
    BatchCursor(TOKENS, batch_size=100, context=16, seed=0, vocab_size=1000).next_batch()
    assert evaluation_windows(TOKENS, 16, vocab_size=1000)
