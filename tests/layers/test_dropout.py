"""Dropout keeps the mean, drops at its rate, and its gradient passes where its value did."""

import pytest
import torch

from tickwise.layers.dropout import dropout


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rate_and_mean(rate, dtype):
    torch.manual_seed(0)
    out = dropout(torch.ones(1000, 1003, dtype=dtype), rate, True).float()
    assert (out == 0).float().mean().item() == pytest.approx(rate, abs=1 / 256)
    assert out.mean().item() == pytest.approx(1.0, abs=0.006 if dtype == torch.bfloat16 else 0.003)
    assert len(out.unique()) == 2


def test_every_position_is_dropped_equally_often():
    torch.manual_seed(0)
    dropped = sum((dropout(torch.ones(64), 0.25, True) == 0).float() for _ in range(4000)) / 4000
    assert (dropped - 0.25).abs().max() < 0.04  # a biased byte of the 64-bit draw would stand out


def test_gradient_passes_where_the_value_did():
    x = torch.randn(64, 64, requires_grad=True)
    out = dropout(x, 0.3, True)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), out.detach())


def test_same_generator_state_same_mask_and_off_is_identity():
    x = torch.randn(100)
    torch.manual_seed(3)
    first = dropout(x, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.5, True))
    assert dropout(x, 0.5, False) is x
    assert dropout(x, 0.0, True) is x
