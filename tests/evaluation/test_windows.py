import numpy
import pytest
import torch

from tickwise.core.errors import ConfigError, NumericsError
from tickwise.evaluation import windows as windows_module
from tickwise.evaluation.windows import token_losses, windows


@pytest.mark.parametrize("n_tokens", [2, 3, 16, 17, 18, 33, 100])
@pytest.mark.parametrize(("context", "stride"), [(16, 16), (16, 8), (16, 1), (16, 5), (1, 1)])
def test_every_target_is_scored_exactly_once_with_enough_history(n_tokens, context, stride):
    scored = []
    for window in windows(n_tokens, context, stride):
        assert 0 < window.stop - window.start <= context
        for target in range(window.first_target, window.stop + 1):
            scored.append(target)
            history = target - window.start
            assert history >= min(target, context - stride + 1)
    assert scored == list(range(1, n_tokens))


def naive_losses(model, ids, context, stride):
    """One token at a time, the history of each target written out from the definition of the windows."""
    losses = []
    for target in range(1, len(ids)):
        start = 0
        while start + context < target:
            start += stride
        logits = model.module(torch.tensor([ids[start:target]]))[0, -1]
        losses.append(-float(logits.log_softmax(-1)[ids[target]]))
    return losses


@pytest.mark.parametrize(("context", "stride"), [(16, 16), (16, 4), (8, 8), (8, 3), (1, 1)])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_losses_equal_a_loop_over_single_tokens(model, context, stride, batch_size):
    ids = numpy.random.default_rng(0).integers(0, model.config.vocab_size, size=70)
    losses = token_losses(model.module, ids, context=context, stride=stride, batch_size=batch_size)
    assert losses.tolist() == pytest.approx(naive_losses(model, ids.tolist(), context, stride), abs=1e-4)


def test_small_logit_chunks_change_nothing(model, monkeypatch):
    ids = numpy.random.default_rng(1).integers(0, model.config.vocab_size, size=90)
    whole = token_losses(model.module, ids, context=16, stride=16, batch_size=4)
    monkeypatch.setattr(windows_module, "_LOGITS_AT_ONCE", 5 * model.config.vocab_size)
    chunked = token_losses(model.module, ids, context=16, stride=16, batch_size=4)
    numpy.testing.assert_allclose(chunked, whole, atol=1e-5)


def test_no_forward_pass_makes_all_logits_at_once(model, monkeypatch):
    seen = []
    monkeypatch.setattr(windows_module, "_LOGITS_AT_ONCE", 5 * model.config.vocab_size)
    model.module.lm_head.register_forward_hook(lambda _, args, out: seen.append(out.numel()))
    token_losses(model.module, numpy.zeros(200, dtype=numpy.uint16), context=16, stride=16, batch_size=8)
    assert max(seen) <= 5 * model.config.vocab_size


def test_reports_every_scored_token_to_the_progress_bar(model):
    reported = []
    tokens = numpy.zeros(100, dtype=numpy.uint16)
    token_losses(model.module, tokens, context=16, stride=7, batch_size=2, on_scored=reported.append)
    assert sum(reported) == 99


def test_a_token_outside_the_vocabulary_is_named(model):
    with pytest.raises(ConfigError, match="token 60000"):
        token_losses(model.module, numpy.array([1, 60000], dtype=numpy.uint16), context=16, stride=16, batch_size=1)


def test_a_loss_that_is_not_a_number_is_an_error(model):
    model.module.lm_head.weight.data.fill_(torch.nan)
    with pytest.raises(NumericsError, match="token 1 "):
        token_losses(model.module, numpy.array([1, 2, 3]), context=16, stride=16, batch_size=1)
