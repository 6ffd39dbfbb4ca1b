"""What reading a prompt is predicted to take."""

import pytest

from tickwise.engine import prediction
from tickwise.models.decoder import DecoderConfig
from tickwise.profiling.predict import find_machine

PIECE = 256


def model(context):
    return DecoderConfig(vocab_size=64, context_length=context, width=32, n_layers=1, n_heads=2, n_kv_heads=2,
                         head_dim=16, hidden=64)


@pytest.fixture
def seconds(monkeypatch):
    """Predicts reading so many tokens, and says how many pieces were listed for it."""
    listed = []
    tick_program = prediction.tick_program

    def counted(*arguments):
        listed.append(1)
        return tick_program(*arguments)

    monkeypatch.setattr(prediction, "tick_program", counted)

    def predict(n_tokens):
        listed.clear()
        found = prediction.predict_prefill(model(1 << 20), n_tokens=n_tokens, dtype="fp32",
                                           machine=find_machine("h100"))
        return found, len(listed)

    return predict


def test_of_a_long_prompt_few_pieces_are_listed_and_the_time_is_that_of_all(seconds, monkeypatch):
    n_tokens = 30 * PIECE + 7
    few, n_few = seconds(n_tokens)
    monkeypatch.setattr(prediction, "_LISTED_PIECES", 1000)
    every, n_every = seconds(n_tokens)
    assert (n_every, n_few) == (31, 12)
    assert few == pytest.approx(every, rel=0.002)


@pytest.mark.parametrize(("n", "last"), [(0, []), (1, [0]), (4, [3]), (5, [3, 4]), (400, [316, 399])])
def test_the_first_and_the_last_piece_are_listed(n, last):
    pieces = prediction._listed_pieces(n)
    assert pieces[:4] == list(range(min(n, 4)))
    assert pieces == sorted(set(pieces))
    assert pieces[len(pieces) - len(last):] == last
