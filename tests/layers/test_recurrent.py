"""Recurrent layers: against their slow twin, against torch, and what state, lengths and dropout promise."""

import pytest
import torch

from tickwise.layers.recurrent import RecurrentLayers, Weights, locked_dropout, recurrence, recurrence_stepwise

KINDS = ("rnn", "lstm", "gru")
_TORCH = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
_GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def layers_of(kind, n_in=5, hidden=7, **options):
    layers = RecurrentLayers(kind, n_in, hidden, **options)
    layers.initialise(torch.Generator().manual_seed(0))
    return layers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_steps", [1, 6])
def test_fast_recurrence_equals_its_slow_twin(kind, n_steps):
    torch.manual_seed(1)
    gates, batch, hidden, width = _GATES[kind], 3, 4, 5
    leaves = [torch.randn(n_steps, batch, width), torch.randn(gates * hidden, width), torch.randn(gates * hidden),
              torch.randn(gates * hidden, hidden), torch.randn(gates * hidden), torch.randn(batch, hidden),
              torch.randn(batch, hidden)]
    results = []
    for function in (recurrence, recurrence_stepwise):
        x, *weights, h, c = (leaf.double().requires_grad_() for leaf in leaves)
        state = (h, c) if kind == "lstm" else (h,)
        if kind != "gru":
            weights[3] = None
        parts = function(kind, x, Weights(*weights), state)
        loss = sum((part * torch.linspace(-1, 1, part.numel()).view_as(part)).sum() for part in parts)
        used = [x, *(w for w in weights if w is not None), *state]
        results.append([*parts, *torch.autograd.grad(loss, used)])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow)


def as_in_torch(kind, cell):
    """A cell's weights in the order and with the two biases that torch has: (W_input, W_state, b_input, b_state)."""
    order = {"rnn": [0], "lstm": [1, 2, 3, 0], "gru": [0, 1, 2]}[kind]
    arranged = [torch.cat([t.chunk(_GATES[kind])[i] for i in order]).detach()
                for t in (cell.from_input.weight, cell.from_state.weight, cell.from_input.bias)]
    bias = cell.from_state.bias
    return [*arranged, torch.zeros_like(arranged[2]) if bias is None else bias.detach()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_equal_torch(kind, bidirectional):
    torch.manual_seed(2)
    mine = layers_of(kind, n_layers=2, bidirectional=bidirectional)
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.normal_(0, 0.5)
    theirs = _TORCH[kind](5, 7, 2, batch_first=True, bidirectional=bidirectional)
    with torch.no_grad():
        weights = [w for i in range(2) for cell in mine.directions(i) for w in as_in_torch(kind, cell)]
        for target, value in zip(theirs.parameters(), weights, strict=True):
            target.copy_(value)
    x = torch.randn(4, 6, 5)
    lengths = torch.tensor([6, 1, 4, 3])
    outputs, state = mine(x, lengths=lengths)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, last = theirs(packed)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(expected, batch_first=True)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(torch.stack(state[:: 2 if kind == "lstm" else 1]), last[0] if kind == "lstm" else last)
    if kind == "lstm":
        torch.testing.assert_close(torch.stack(state[1::2]), last[1])
    torch.testing.assert_close(mine(x)[0], theirs(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_state_carries_on_where_a_text_was_cut(kind):
    layers = layers_of(kind, n_layers=2).double()
    x = torch.randn(2, 9, 5, dtype=torch.float64)
    whole, end = layers(x)
    first, middle = layers(x[:, :4])
    second, end_of_second = layers(x[:, 4:], middle)
    torch.testing.assert_close(torch.cat((first, second), 1), whole)
    torch.testing.assert_close(end_of_second, end)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_neither_outputs_nor_gradients(kind):
    layers = layers_of(kind, bidirectional=True)
    x = torch.randn(1, 3, 5)
    gradients = []
    for inputs, lengths in ((x, None), (torch.cat((x, torch.full((1, 4, 5), 9.0)), 1), torch.tensor([3]))):
        leaf = inputs.clone().requires_grad_()
        outputs, state = layers(leaf, lengths=lengths)
        gradient = torch.autograd.grad(outputs.square().sum() + sum(part.sum() for part in state), leaf)[0]
        gradients.append(gradient)
    torch.testing.assert_close(gradients[1][:, :3], gradients[0])
    assert not gradients[1][:, 3:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_near_float32(kind):
    torch.manual_seed(3)
    layers = layers_of(kind, 32, 32)
    x = torch.randn(4, 10, 32)
    exact, _ = layers(x)
    rounded, _ = layers.bfloat16()(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.05)
    rounded.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in layers.parameters())


def test_locked_dropout_keeps_its_mask_over_time():
    torch.manual_seed(4)
    y = locked_dropout(torch.ones(20, 4, 64), 0.5, True)
    assert (y == y[:1]).all()
    assert 0.3 < (y == 0).float().mean() < 0.7
    assert not (y[0, 0] == y[0, 1]).all()


def test_weight_drop_acts_on_the_state_and_only_while_training():
    layers = layers_of("lstm", 16, 32, weight_drop=0.5)
    x = torch.randn(2, 5, 16)
    torch.manual_seed(5)
    first, _ = layers(x)
    second, _ = layers(x)
    # The first step starts from zeros, which no weight changes.
    torch.testing.assert_close(first[:, 0], second[:, 0])
    assert not torch.allclose(first[:, 1:], second[:, 1:])
    layers.eval()
    torch.testing.assert_close(layers(x)[0], layers(x)[0], rtol=0, atol=0)
