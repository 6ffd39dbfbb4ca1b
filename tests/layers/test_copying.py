"""Pointing into the source: probabilities, their loss, and the model that uses both."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tickwise.interop.directory import load_module, save_model
from tickwise.layers.copying import head_and_mixed_loss, mixed_log_probabilities, mixed_loss
from tickwise.layers.loss import LARGE_VOCABULARY, LOSS_CHUNK
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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_head_and_loss_in_one_equal_their_slow_twin(smoothing, dtype, off):
    torch.manual_seed(5)
    n = 2 * LOSS_CHUNK + 7
    copied, labels = torch.rand(n), torch.randint(0, 40, (n,))
    copied[::3] = 0.0
    inputs = [*(numbers.to(dtype) for numbers in (torch.randn(n, 16), torch.randn(40, 16), torch.randn(n, 1))), copied]
    found = []
    for together in (True, False):
        hidden, weight, gate, pointed = leaves = [one.clone().requires_grad_() for one in inputs]
        loss = (head_and_mixed_loss(hidden, weight, gate, pointed, labels, smoothing) if together else
                mixed_loss(hidden @ weight.T, gate, pointed, labels, smoothing))
        (3 * loss).backward()
        with torch.no_grad():
            torch.testing.assert_close(head_and_mixed_loss(hidden, weight, gate, pointed, labels, smoothing), loss,
                                       rtol=1e-4, atol=1e-4)
        found.append([loss, *(leaf.grad for leaf in leaves)])
    for ours, twins in zip(*found, strict=True):
        torch.testing.assert_close(ours, twins, rtol=off, atol=off * float(twins.detach().float().abs().max()))


class LargestTensor(TorchDispatchMode):
    """Watches how many numbers the largest tensor holds that is made."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        return out


@pytest.mark.parametrize("grad", [True, False])
def test_the_logits_of_a_large_vocabulary_never_all_exist(grad):
    config = dataclasses.replace(SHAPE, vocab_size=LARGE_VOCABULARY, source_length=40, context_length=40)
    module = EncoderDecoder(config).initialise(1)
    n_pairs, length = 60, 40
    ids, lengths = torch.randint(0, LARGE_VOCABULARY, (n_pairs, length)), torch.full((n_pairs,), length)
    with torch.set_grad_enabled(grad), LargestTensor() as watched:
        loss = module.copying_loss(ids, lengths, ids, lengths, ids.flatten(), 0.1)
        if grad:
            loss.backward()
    assert watched.largest <= LOSS_CHUNK * LARGE_VOCABULARY < n_pairs * length * LARGE_VOCABULARY


def test_it_is_kept(module, tmp_path):
    class NoAssets:
        def save(self, folder):
            """Nothing."""

    save_model(tmp_path / "model", module, NoAssets())
    again = load_module(tmp_path / "model", device="cpu")
    source_BS, lengths_B, target_BT, *_ = batch()
    torch.testing.assert_close(again(source_BS, lengths_B, target_BT), module(source_BS, lengths_B, target_BT))
