"""Attention to all keys against torch's, padding that changes nothing, packing there and back."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tickwise.layers import attention
from tickwise.layers.packed import PackedTokens
from tickwise.layers.positions import RelativeBias, relative_buckets, sinusoidal_table


def gradients(function, *tensors):
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    out = function(*leaves)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def assert_same(a, b):
    for mine, reference in zip(a, b, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-5)


def unmasked(q, k, v, n_kv_heads):
    k, v = (x.repeat_interleave(q.shape[1] // n_kv_heads, 1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize(("n_queries", "n_keys"), [(9, 9), (5, 12), (1, 7), (1, 1), (3, 300)])
@pytest.mark.parametrize("n_kv_heads", [4, 2])
def test_attention_to_all_keys_equals_torch(n_queries, n_keys, n_kv_heads):
    torch.manual_seed(0)
    q = torch.randn(3, 4, n_queries, 16)
    k, v = (torch.randn(3, n_kv_heads, n_keys, 16) for _ in range(2))
    lengths = torch.tensor([n_keys, 1, max(1, n_keys - 2)])
    distances = torch.randn(1, 4, n_queries, n_keys)
    visible = (torch.arange(n_keys) < lengths[:, None])[:, None, None]

    def reference(q, k, v, bias):
        k, v = (x.repeat_interleave(4 // n_kv_heads, 1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias + torch.where(visible, 0.0, -math.inf))

    mine = gradients(
        lambda q, k, v, bias: attention.full_attention(q, k, v, lengths, bias=bias), q, k, v, distances)
    assert_same(mine, gradients(reference, q, k, v, distances))
    assert_same(gradients(attention.full_attention, q, k, v),
                gradients(lambda q, k, v: unmasked(q, k, v, n_kv_heads), q, k, v))


@pytest.mark.parametrize("causal", [False, True])
def test_dropped_weights_keep_the_mean_and_their_gradient_is_of_what_was_computed(causal):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 6, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    function = attention.causal_attention if causal else attention.full_attention

    def drawn(q, k, v):
        torch.manual_seed(1)
        return function(q, k, v, dropout=0.25)

    assert torch.autograd.gradcheck(drawn, (q, k, v))
    with torch.no_grad():
        torch.manual_seed(2)
        mean = sum(function(q, k, v, dropout=0.25) for _ in range(3000)) / 3000
        torch.testing.assert_close(mean, function(q, k, v), atol=0.1, rtol=0)
        assert (drawn(q, k, v) - function(q, k, v)).abs().max() > 0.1


def test_packed_tokens_go_there_and_back_with_their_gradients():
    torch.manual_seed(0)
    lengths = torch.tensor([3, 5, 1])
    packed = PackedTokens(lengths, 5)
    x = torch.randn(3, 5, 4)
    inside = torch.arange(5) < lengths[:, None]
    torch.testing.assert_close(packed.pack(x), x[inside])
    torch.testing.assert_close(packed.pad(packed.pack(x)), x * inside[..., None])
    assert packed.positions_P.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0]
    assert_same(gradients(packed.pack, x), gradients(lambda x: x[inside], x))
    rows = torch.randn(9, 4)
    assert_same(gradients(packed.pad, rows),
                gradients(lambda r: torch.zeros(3, 5, 4).masked_scatter(inside[..., None], r), rows))
    assert packed.has_padding
    assert not PackedTokens(torch.tensor([2, 2]), 2).has_padding


def test_sinusoids_are_those_of_the_paper():
    table = sinusoidal_table(50, 8, torch.device("cpu"))
    for position in (0, 1, 49):
        for i in range(4):
            angle = position / 10_000 ** (2 * i / 8)
            assert table[position, i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 4 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_sinusoids_need_no_float64_where_they_go():
    asked = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            asked.append((result.device.type, result.dtype))
            return result

    with Seen():
        assert sinusoidal_table(5, 8, torch.device("meta")).device.type == "meta"
    assert ("meta", torch.float64) not in asked, "Apple's accelerators have no float64"


def test_near_distances_have_buckets_of_their_own_and_far_ones_share():
    distances = torch.arange(-200, 201)
    both = dict(zip(distances.tolist(), relative_buckets(distances, 32, 128, True).tolist(), strict=True))
    assert len({both[d] for d in range(-7, 8)}) == 15
    assert both[-128] == both[-200] == 15
    assert both[128] == both[200] == 31
    assert both[20] == both[21] != both[40]
    before = dict(zip(distances.tolist(), relative_buckets(distances, 32, 128, False).tolist(), strict=True))
    assert len({before[-d] for d in range(16)}) == 16
    assert {before[d] for d in range(201)} == {0}
    assert before[-128] == before[-200] == 31


def test_a_bias_depends_on_the_distance_alone_and_hides_later_keys():
    torch.manual_seed(0)
    bias = RelativeBias(8, 2, 16, both_ways=False)
    whole = bias(slice(0, 12), 12)
    torch.testing.assert_close(bias(slice(5, 7), 12), whole[:, 5:7])
    torch.testing.assert_close(bias(torch.tensor([9, 3]), 12), whole[:, [9, 3]])
    assert whole[0, 4, 2] == whole[0, 9, 7]
    assert torch.isinf(whole[:, 3, 4:]).all()
    assert not torch.isinf(whole[:, 3, :4]).any()
