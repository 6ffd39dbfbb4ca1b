"""Pointing into the source: probabilities, their loss, and the model that uses both."""

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.engine.options import EngineOptions
from tickwise.engine.serving import runner_for
from tickwise.interop.directory import load_module, save_model
from tickwise.layers.copying import mixed_log_probabilities, mixed_loss
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.training.text_to_text import pair_loss

SHAPE = EncoderDecoderConfig(
    vocab_size=29, source_length=14, context_length=12, width=32, n_encoder_layers=1, n_decoder_layers=2, n_heads=4,
    n_kv_heads=2, head_dim=8, hidden=48, pad_id=0, start_id=0, eos_id=0, copies=True,
)


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = EncoderDecoder(SHAPE).initialise(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module.eval()


def batch():
    torch.manual_seed(3)
    source_BS, target_BT = torch.randint(1, 29, (3, 9)), torch.randint(1, 29, (3, 6))
    lengths_B, target_lengths_B = torch.tensor([9, 4, 7]), torch.tensor([5, 6, 2])
    for row in range(3):
        source_BS[row, lengths_B[row] - 1 :] = 0
    labels_BT = torch.cat([target_BT[:, 1:], torch.zeros(3, 1, dtype=torch.long)], 1)
    is_token_BT = torch.arange(6) < target_lengths_B[:, None]
    return source_BS, lengths_B, target_BT, target_lengths_B, labels_BT[is_token_BT], is_token_BT


def test_by_hand():
    # The gate is even: half of the probability is written (3 tokens alike), half is copied from tokens 2, 0 and 2.
    chances = mixed_log_probabilities(
        torch.zeros(1, 1, 3), torch.zeros(1, 1, 1), torch.tensor([[[0.5, 0.2, 0.3]]]), torch.tensor([[2, 0, 2]])).exp()
    torch.testing.assert_close(chances, torch.tensor([[[1 / 6 + 0.1, 1 / 6, 1 / 6 + 0.4]]]))
    loss = mixed_loss(torch.zeros(1, 3), torch.zeros(1, 1), torch.tensor([0.8]), torch.tensor([2]), 0.0)
    assert loss.exp().item() == pytest.approx(1 / (1 / 6 + 0.4))


def test_probabilities_add_up_and_padding_is_never_copied(module):
    source_BS, lengths_B, target_BT, *_ = batch()
    with torch.no_grad():
        chances = module(source_BS, lengths_B, target_BT).exp()
        other = source_BS.clone()
        other[1, 4:] = 17
        moved = module(other, lengths_B, target_BT).exp()
    torch.testing.assert_close(chances.sum(-1), torch.ones(3, 6))
    torch.testing.assert_close(chances, moved)


def test_training_loss_is_that_of_the_probabilities(module):
    source_BS, lengths_B, target_BT, target_lengths_B, labels_P, is_token_BT = batch()
    loss = pair_loss(module, (source_BS, lengths_B, target_BT, target_lengths_B, labels_P))
    with torch.no_grad():
        log_p_PV = module(source_BS, lengths_B, target_BT)[is_token_BT]
    torch.testing.assert_close(loss, -log_p_PV.gather(1, labels_P[:, None]).mean())
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_it_is_kept_and_the_engine_says_who_serves_it(module, tmp_path):
    class NoAssets:
        def save(self, folder):
            """Nothing."""

    save_model(tmp_path / "model", module, NoAssets())
    again = load_module(tmp_path / "model", device="cpu")
    source_BS, lengths_B, target_BT, *_ = batch()
    torch.testing.assert_close(again(source_BS, lengths_B, target_BT), module(source_BS, lengths_B, target_BT))
    with pytest.raises(ConfigError, match="run summarise"):
        runner_for(module, EngineOptions())
