"""Every fast path against its slow twin: values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from tickwise.layers import attention, norm, rope
from tickwise.layers.feed_forward import FeedForward
from tickwise.layers.linear import StackedLinear
from tickwise.layers.loss import head_and_loss


def gradients(function, *tensors):
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    out = function(*leaves)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out) if out.ndim else None)
    return out.detach(), [leaf.grad for leaf in leaves]


def assert_same(a, b, tolerance=1e-5):
    torch.testing.assert_close(a[0], b[0], atol=tolerance, rtol=tolerance)
    for mine, reference in zip(a[1], b[1], strict=True):
        torch.testing.assert_close(mine, reference, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("shape", [(3, 7, 16), (1, 64), (2, 4, 5, 32)])
def test_rms_norm_equals_torch(shape):
    torch.manual_seed(0)
    x, w = torch.randn(shape) * 3, torch.rand(shape[-1]) + 0.5
    mine = gradients(lambda x, w: norm._RMSNormFunction.apply(x, w, 1e-5), x, w)
    assert_same(mine, gradients(lambda x, w: F.rms_norm(x, (shape[-1],), w, 1e-5), x, w))


def test_rms_norm_of_zeros_is_finite():
    _, (grad, _) = gradients(lambda x, w: norm._RMSNormFunction.apply(x, w, 1e-5), torch.zeros(2, 8), torch.ones(8))
    assert torch.isfinite(grad).all()


def test_rotation_equals_composite_and_keeps_lengths():
    torch.manual_seed(0)
    cos, sin = rope.rope_tables(torch.arange(9), 16, 10_000.0)
    x = torch.randn(2, 3, 9, 16)
    mine = gradients(lambda x: rope.rotate(x, cos, sin), x)
    assert_same(mine, gradients(lambda x: rope.rotate_composite(x, cos, sin), x))
    torch.testing.assert_close(mine[0].norm(dim=-1), x.norm(dim=-1))


def test_rotated_products_depend_on_distance_only():
    cos, sin = rope.rope_tables(torch.arange(32), 16, 10_000.0)
    torch.manual_seed(1)
    q, k = torch.randn(16), torch.randn(16)
    rotated_q, rotated_k = rope.rotate(q.expand(32, 16), cos, sin), rope.rotate(k.expand(32, 16), cos, sin)
    products = rotated_q @ rotated_k.T
    torch.testing.assert_close(products[5, 2], products[25, 22], atol=1e-4, rtol=1e-4)
    assert (products[5, 2] - products[5, 3]).abs() > 1e-3


def test_short_attention_equals_torch():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 33, 16) for _ in range(3))
    mine = gradients(attention.causal_attention, q, k, v)
    reference = gradients(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), q, k, v)
    assert_same(mine, reference)


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("n_new", [1, 3, 8])
def test_attention_with_history_equals_the_tail_of_full_attention(n_heads, n_kv_heads, n_new):
    torch.manual_seed(0)
    length = 8
    q = torch.randn(1, n_heads, length, 16)
    k, v = torch.randn(1, n_kv_heads, length, 16), torch.randn(1, n_kv_heads, length, 16)
    repeat = n_heads // n_kv_heads
    full = F.scaled_dot_product_attention(
        q, k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1), is_causal=True)
    tail = attention.causal_attention(q[:, :, -n_new:], k, v)
    torch.testing.assert_close(tail, full[:, :, -n_new:], atol=1e-5, rtol=1e-5)


def test_squared_relu_equals_composite():
    torch.manual_seed(0)
    block = FeedForward(8, 32, "relu2", bias=False)
    x = torch.randn(5, 8)
    mine = gradients(block, x)
    reference = gradients(lambda x: block.down_proj(F.relu(block.up_proj(x)).square()), x)
    assert_same(mine, reference)


def test_stacked_linear_is_its_parts_side_by_side():
    torch.manual_seed(0)
    layer = StackedLinear(8, (4, 6, 2))
    x = torch.randn(3, 8)
    for part, weight in zip(layer.forward_split(x), layer.weight.split((4, 6, 2)), strict=True):
        torch.testing.assert_close(part, x @ weight.T)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n", [1, 700])
def test_head_and_loss_equals_torch(n, smoothing):
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(n, 16), torch.randn(50, 16), torch.randint(0, 50, (n,))

    def twice(function):  # an upstream gradient other than one must pass through
        return gradients(lambda h, w: 2 * function(h, w), hidden, weight)

    mine = twice(lambda h, w: head_and_loss(h, w, targets, smoothing))
    assert_same(mine, twice(lambda h, w: F.cross_entropy(h @ w.T, targets, label_smoothing=smoothing)))


def assert_as_close(fast, slow, exact):
    """In bf16 the fast path strays from float64's values no further than the slow one and a few roundings more."""
    for mine, reference, truth in zip([fast[0], *fast[1]], [slow[0], *slow[1]], [exact[0], *exact[1]], strict=True):
        assert mine.dtype == torch.bfloat16 or mine.ndim == 0
        scale = truth.abs().amax()
        strays = [(x.double() - truth).abs().amax() / scale for x in (mine, reference)]
        assert strays[0] < strays[1] + 4 * 2**-9, strays  # bf16 rounds by 2⁻⁹ at most


@pytest.mark.parametrize("kind", ["causal", "full", "padded"])
def test_short_attention_in_bf16_is_about_as_exact_as_torch(kind):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 4, 33, 16).bfloat16() for _ in range(3)]
    lengths = torch.tensor([33, 20]) if kind == "padded" else None
    hidden = None if lengths is None else (torch.arange(33) < lengths[:, None])[:, None, None]

    def mine(q, k, v):
        return attention.causal_attention(q, k, v) if kind == "causal" else attention.full_attention(q, k, v, lengths)

    def theirs(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=hidden, is_causal=kind == "causal")

    assert_as_close(gradients(mine, *inputs), gradients(theirs, *inputs),
                    gradients(theirs, *(x.double() for x in inputs)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_head_and_loss_in_bf16_is_about_as_exact_as_torch(smoothing):
    torch.manual_seed(0)
    hidden, weight = torch.randn(700, 16).bfloat16(), torch.randn(50, 16).bfloat16()
    targets = torch.randint(0, 50, (700,))

    def theirs(h, w):
        return F.cross_entropy((h @ w.T).to(torch.promote_types(h.dtype, torch.float32)), targets,
                               label_smoothing=smoothing)

    assert_as_close(gradients(lambda h, w: head_and_loss(h, w, targets, smoothing), hidden, weight),
                    gradients(theirs, hidden, weight), gradients(theirs, hidden.double(), weight.double()))
