"""Truncated backpropagation: the state is carried, split, resumed; the loss falls."""

import numpy as np
import pytest
import torch

from tickwise.models.recurrent import Recurrent, RecurrentConfig
from tickwise.training.recurrent_objective import RecurrentObjective, RecurrentPenalties


def text(n=4000):
    """Each token follows from the two before it: a state is needed."""
    tokens = [1, 2]
    for _ in range(n - 2):
        tokens.append((3 * tokens[-1] + tokens[-2] + 1) % 11)
    return np.array(tokens, dtype=np.uint16)


def job(**changes):
    options = {"vocab_size": 11, "batch_size": 4, "context": 10, "seed": 1, **changes}
    return RecurrentObjective(text(), text()[:1001], **options)


def tiny(**changes):
    options = {"vocab_size": 11, "width": 16, "hidden": 32, "n_layers": 1, **changes}
    return Recurrent(RecurrentConfig(**options)).initialise(0)


def train(module, objective, steps):
    """The five lines that the loop is."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss, state = objective.loss(module, *objective.next_batch().inputs)
        loss.backward()
        objective.carry(state, 0)
        optimizer.step()


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_training_lowers_the_validation_loss(cell):
    torch.manual_seed(0)
    module, objective = tiny(cell=cell), job()
    before = objective.validate(module, torch.device("cpu"), None)["loss"]
    train(module, objective, 150)
    assert objective.validate(module, torch.device("cpu"), None)["loss"] < 0.5 * before
    assert module.training


def test_the_next_batch_starts_from_the_state_the_last_one_ended_with():
    module, objective = tiny(), job()
    batch = objective.next_batch()
    assert len(batch.inputs) == 2
    assert batch.n_tokens == 40
    _, state = objective.loss(module, *batch.inputs)
    objective.carry(state, 0)
    following = objective.next_batch()
    for carried, part in zip(following.inputs[2:], state, strict=True):
        assert torch.equal(carried, part)
        assert not carried.requires_grad


def test_micro_batches_carry_their_streams():
    module, whole, split = tiny(), job(), job()
    for _ in range(3):
        batch = whole.next_batch()
        expected, state = whole.loss(module, *batch.inputs)
        whole.carry(state, 0)
        losses = []
        for index, part in enumerate(split.split(split.next_batch(), 2)):
            loss, state = split.loss(module, *part.inputs)
            split.carry(state, index)
            losses.append(loss)
        torch.testing.assert_close(sum(losses) / 2, expected)


def test_a_resumed_job_goes_on_bit_for_bit():
    torch.manual_seed(0)
    module, objective, resumed = tiny(), job(), job()
    train(module, objective, 5)
    resumed.restore(objective.state(), objective.state_tensors())
    for _ in range(3):
        a, b = objective.next_batch(), resumed.next_batch()
        assert all(torch.equal(x, y) for x, y in zip(a.inputs, b.inputs, strict=True))
        for each, batch in ((objective, a), (resumed, b)):
            each.carry(each.loss(module, *batch.inputs)[1], 0)


def test_a_new_epoch_begins_without_a_state():
    module, objective = tiny(), job()
    batches = []
    for _ in range(objective.cursor.batches_per_epoch + 1):
        batches.append(objective.next_batch())
        objective.carry(objective.loss(module, *batches[-1].inputs)[1], 0)
    assert len(batches[-2].inputs) > len(batches[-1].inputs) == 2


def test_penalties_are_in_the_training_loss_only():
    module = tiny()
    plain, punished = job(), job(penalties=RecurrentPenalties(activation=2.0, slowness=1.0))
    batch = plain.next_batch()
    assert punished.loss(module, *batch.inputs)[0] > plain.loss(module, *batch.inputs)[0] + 1e-3
    module.eval()
    torch.testing.assert_close(punished.loss(module, *batch.inputs)[0], plain.loss(module, *batch.inputs)[0])


@pytest.mark.parametrize("changes", [{}, {"width": 8}], ids=["tied", "projected"])
def test_the_activation_penalty_is_on_what_dropout_left_of_the_last_layer(changes):
    """Not on what a projection makes of it (Merity et al. 2017, equation 4)."""
    module = tiny(**{"width": 32, "output_dropout": 0.5, **changes}).train()
    batch = job().next_batch()
    losses = []
    for weight in (0.0, 1.0):
        torch.manual_seed(3)
        losses.append(job(penalties=RecurrentPenalties(activation=weight)).loss(module, *batch.inputs)[0])
    torch.manual_seed(3)
    outputs, _ = module.layer_outputs(batch.inputs[0])
    expected = module.dropped(outputs).square().mean()
    assert (module.dropped(outputs) == 0).float().mean() == pytest.approx(0.5, abs=0.2)
    torch.testing.assert_close(losses[1] - losses[0], expected, rtol=1e-3, atol=1e-5)


def test_validation_on_some_tokens_is_spread_over_the_text():
    """The text's second half is noise; a validation that saw its beginning only would not know."""
    noise = np.random.default_rng(0).integers(0, 11, 8000)
    objective = RecurrentObjective(text(), np.concatenate([text(8000), noise]), vocab_size=11, batch_size=4, context=10,
                                   seed=1)
    module = tiny()
    torch.manual_seed(0)
    train(module, objective, 150)
    whole, some = (objective.validate(module, torch.device("cpu"), most)["loss"] for most in (None, 4000))
    assert some == pytest.approx(whole, rel=0.1)
