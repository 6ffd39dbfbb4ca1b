"""What operations return on tensors without data, against what the CPU's kernels return."""

import pytest
import torch
import torch.nn.functional as F

from tickwise.profiling.stand_ins import _RULES as RULES
from tickwise.profiling.stand_ins import NeedsValuesError, StandIn, result_of

aten = torch.ops.aten
CPU = torch.device("cpu")
torch.manual_seed(0)
X = torch.randn(2, 4, 6)
PERMUTED = torch.randn(2, 3, 5, 4).transpose(1, 2)  # (B, H, T, D) as attention has it
IDS = torch.randint(0, 4, (2, 3))
NORM = (X, [6], torch.ones(6), torch.zeros(6), 1e-5)
NORMED = aten.native_layer_norm(*NORM)
Q = torch.randn(2, 3, 7, 8)
ATTENDED = aten._scaled_dot_product_flash_attention_for_cpu(Q, Q, Q)
TARGETS = torch.tensor([0, 3, 1])
SCORES = F.log_softmax(torch.randn(3, 5), -1)

CASES = [
    (aten.add.Tensor, X, X[:, :1]), (aten.mul.Tensor, PERMUTED, torch.randn(3, 2, 4)[:, 0]),
    (aten.mul.Tensor, X, 2.5), (aten.mul.Tensor, IDS, 2.5), (aten.add.Tensor, X.bfloat16(), X),
    (aten.add.Tensor, X.bfloat16(), torch.tensor(1.0)), (aten.div.Tensor, IDS, 3), (aten.gt.Scalar, X, 0.0),
    (aten.where.self, X > 0, X, torch.tensor(0.0)), (aten.silu_backward.default, PERMUTED, PERMUTED),
    (aten.addcmul.default, PERMUTED, PERMUTED.contiguous(), torch.ones(4)), (aten.pow.Tensor_Scalar, IDS, 2),
    (aten.logical_not.default, X), (aten.masked_fill.Scalar, X, X > 0, -1.0),
    (aten._grouped_mm.default, torch.randn(8, 16).bfloat16(), torch.randn(2, 16, 8).bfloat16(),
     torch.tensor([4, 8], dtype=torch.int32)),
    (aten.arange.default, 7), (aten.arange.start, 2, 9), (aten.arange.start_step, 9.0, 2.5, -2),
    (aten.sum.default, X), (aten.sum.dim_IntList, X, [1], True), (aten.sum.dim_IntList, IDS, [-1]),
    (aten.mean.dim, X, [0, 2]), (aten.amax.default, X, [-1]), (aten.argmax.default, X, -1),
    (aten.linalg_vector_norm.default, X.bfloat16(), 2, [-1], True, torch.float32), (aten.any.dim, X > 0, 1),
    (aten._softmax.default, PERMUTED, -1, False), (aten._log_softmax.default, X, 1, False),
    (aten.cumsum.default, IDS, 1), (aten.roll.default, PERMUTED, [2], [-1]), (aten.tril.default, X),
    (aten._softmax_backward_data.default, X, X, -1, torch.float32),
    (aten.zeros_like.default, PERMUTED), (aten.empty_like.default, PERMUTED[:, :2]),
    (aten.ones_like.default, IDS), (aten.new_zeros.default, X, [3, 1]),
    (aten.slice_backward.default, X, [2, 9, 6], 1, 0, 4, 1), (aten.select_backward.default, X[0], [2, 4, 6], 0, 0),
    (aten.mm.default, X[0], X[0].t()), (aten.addmm.default, torch.ones(4), X[0], X[0].t()),
    (aten.bmm.default, X, X.mT), (aten.baddbmm.default, torch.zeros(4, 4), X, X.mT),
    (aten.embedding.default, X[0], IDS),
    (aten.embedding_dense_backward.default, torch.ones(2, 3, 6), IDS, 4, -1, False),
    (aten.index_select.default, X, 1, IDS[0]), (aten.gather.default, X[0], 1, torch.zeros(4, 2, dtype=torch.long)),
    (aten.index.Tensor, X, [None, IDS]), (aten.index.Tensor, X, [IDS[0] % 2, None, IDS]),
    (aten.index.Tensor, X, [None, IDS[:, :1], IDS[:1]]), (aten.cat.default, [X, X[:, :1]], 1),
    (aten.cat.default, [PERMUTED, PERMUTED], -2), (aten.stack.default, [X, X], -1),
    (aten.native_layer_norm.default, *NORM),
    (aten.native_layer_norm.default, X.bfloat16(), [6], torch.ones(6), None, 1e-5),
    (aten.native_layer_norm_backward.default, X, X, [6], NORMED[1], NORMED[2], NORM[2], None, [True, True, False]),
    (aten.nll_loss_forward.default, SCORES, TARGETS, None, 1, -100),
    (aten.nll_loss_forward.default, SCORES, TARGETS, None, 0, -100),
    (aten.nll_loss_backward.default, torch.ones(()), SCORES, TARGETS, None, 1, -100, torch.tensor(3.0)),
    (aten._scaled_dot_product_flash_attention_for_cpu.default, Q, Q, Q),
    (aten._scaled_dot_product_flash_attention_for_cpu.default, PERMUTED, PERMUTED, PERMUTED),
    (aten._scaled_dot_product_flash_attention_for_cpu.default, PERMUTED[:, :2], PERMUTED[:, 1:3], PERMUTED[:, 2:4]),
    (aten._scaled_dot_product_flash_attention_for_cpu_backward.default, Q, Q, Q, Q, *ATTENDED, 0.0, False),
]


def layout(result):
    """Shape, number format, and the order of the dimensions in memory (of those that have more than one element)."""
    if result is None or isinstance(result, (bool, int, float)):
        return result
    if isinstance(result, (tuple, list)):
        return [layout(part) for part in result]
    return (tuple(result.shape), result.dtype,
            [stride for length, stride in zip(result.shape, result.stride(), strict=True) if length > 1])


def without_data(value):
    if isinstance(value, torch.Tensor):
        meta = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return StandIn(meta, CPU)
    return [without_data(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[0]))
def test_results_are_laid_out_as_the_cpus(case):
    func, *args = case
    kwargs = {"dtype": args.pop()} if func is aten.linalg_vector_norm.default else {}
    expected = func(*args, **kwargs)
    found = result_of(func, tuple(map(without_data, args)), kwargs, CPU)
    assert layout(found) == layout(expected)


def test_every_rule_is_compared():
    compared = {str(case[0]._overloadpacket) for case in CASES}
    families = {rule for name, rule in RULES.items() if name in compared}
    assert families == set(RULES.values())


def test_a_stand_in_says_where_it_is_and_refuses_to_be_read():
    x = without_data(X)
    assert (x.device, x.shape, x.dtype) == (CPU, X.shape, X.dtype)
    with pytest.raises(NeedsValuesError):
        x.sum()
    for func, args in ((aten._local_scalar_dense.default, (x,)), (aten.nonzero.default, (x,)),
                       (aten.index.Tensor, (x, [without_data(X[0, 0] > 0)]))):
        with pytest.raises(NeedsValuesError):
            result_of(func, args, {}, CPU)


def test_what_is_written_in_place_comes_back_itself():
    x, y = without_data(X), without_data(X)
    assert result_of(aten.add_.Tensor, (x, y), {}, CPU) is x
    assert result_of(aten.mm.out, (y, y), {"out": x}, CPU) is x
    assert result_of(aten._foreach_add_.Scalar, ([x, y], 1), {}, CPU) is None
