import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tickwise.core.errors import UserError
from tickwise.profiling.flops import ATTENTION, count_flops, count_training_flops


class Attention(nn.Module):
    def __init__(self, causal=False):
        super().__init__()
        self.causal = causal

    def forward(self, q, k, v):
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


class LooksAtValues(nn.Linear):
    def forward(self, x):
        return super().forward(x) * x.max().item()


def counted_by_torch(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def llama(attention, layers=3):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=80, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation=attention, use_cache=False,
    ))


IMAGE = torch.randn(2, 3, 16, 16)
MODULES = {
    "mlp": (nn.Sequential(nn.Linear(7, 11), nn.GELU(), nn.Linear(11, 3)), torch.randn(5, 7)),
    "convolution": (nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ConvTranspose2d(8, 4, 3)), IMAGE),
    "batch norm": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), IMAGE),
    "eager attention": (llama("eager"), torch.randint(0, 96, (2, 12))),
    "values needed": (LooksAtValues(4, 5), torch.rand(3, 4)),
}


@pytest.mark.parametrize("name", MODULES)
def test_forward_and_training_counts_equal_torchs_where_torch_counts(name):
    module, inputs = MODULES[name]

    def output():
        result = module(inputs)
        return result if isinstance(result, torch.Tensor) else result.logits

    assert count_flops(module, inputs).total == counted_by_torch(output) > 0
    counted = count_training_flops(module, inputs).total
    assert all(p.grad is None for p in module.parameters())
    assert counted == counted_by_torch(lambda: output().sum().backward())
    module.zero_grad(set_to_none=True)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_the_closed_formula(causal):
    batch, heads, queries, keys, width = 2, 3, 8, 8 if causal else 20, 16
    q = torch.randn(batch, heads, queries, width)
    k = torch.randn(batch, heads, keys, width)
    count = count_flops(Attention(causal), q, k, k)
    assert count.by_op == {ATTENTION: 4 * batch * heads * queries * keys * width}


def test_fused_cpu_attention_counts_what_eager_attention_counts_in_both_directions():
    ids = torch.randint(0, 96, (2, 12))
    fused, eager = llama("sdpa"), llama("eager")
    assert count_flops(fused, ids).total == count_flops(eager, ids).total
    assert count_training_flops(fused, ids).total == count_training_flops(eager, ids).total
    assert counted_by_torch(lambda: fused(ids)) < count_flops(fused, ids).total


def test_a_real_run_counts_fused_cpu_attention_as_a_meta_run_does():
    class Peeking(Attention):
        def forward(self, q, k, v):
            assert q.sum().item() == q.sum().item()
            return super().forward(q, k, v)

    q, k = torch.randn(2, 3, 8, 16), torch.randn(2, 3, 20, 16)
    assert count_flops(Peeking(), q, k, k).total == count_flops(Attention(), q, k, k).total


def test_training_a_decoder_costs_three_times_its_forward_pass():
    ids = torch.randint(0, 96, (2, 12))
    model = llama("sdpa")
    assert count_training_flops(model, ids).total == 3 * count_flops(model, ids).total


def test_frozen_parameters_save_their_weight_gradients():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    product = 2 * 4 * 8 * 8
    assert count_training_flops(model, torch.randn(4, 8)).total == 5 * product
    model[0].requires_grad_(False)
    assert count_training_flops(model, torch.randn(4, 8)).total == 3 * product


def test_a_recurrent_layer_is_counted_though_torch_leaves_it_out():
    steps, batch, inputs, hidden = 10, 4, 6, 9
    lstm = nn.LSTM(inputs, hidden)
    assert count_flops(lstm, torch.randn(steps, batch, inputs)).total == (
        2 * steps * batch * 4 * hidden * (inputs + hidden)
    )


def test_modules_sum_to_the_total():
    model = llama("sdpa")
    count = count_flops(model, torch.randint(0, 96, (2, 12)))
    assert sum(count.by_module.values()) == count.total
    assert count.by_module["lm_head"] == 2 * 2 * 12 * 32 * 96


def test_counting_leaves_random_numbers_statistics_and_gradients_alone():
    model = nn.Sequential(LooksAtValues(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
    inputs = torch.rand(3, 4)
    state, mean = torch.get_rng_state(), model[2].running_mean.clone()
    count_training_flops(model, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model[2].running_mean, mean)
    assert model[0].weight.grad is None
    assert not model[0]._forward_hooks


def test_inputs_that_do_not_fit_are_one_clear_line():
    with pytest.raises(UserError, match="Linear cannot be run"):
        count_flops(nn.Linear(3, 4), torch.randn(2, 5))
