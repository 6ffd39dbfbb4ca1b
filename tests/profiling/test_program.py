"""Any module: listed without data, equal to what really runs, and to PyTorch's own count where that counts."""

import subprocess
import sys
import time

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tickwise.core.errors import UserError
from tickwise.core.stages import Stage, mark
from tickwise.profiling.program import (
    ATTENTION,
    Cost,
    joined,
    list_call,
    list_program,
    list_training_program,
    stage_costs,
)
from tickwise.profiling.recorder import Recorder, recording


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


def llama(attention="sdpa", layers=3, **options):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=80, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation=attention, **options,
    ))


def by_op(program, op, direction=None):
    return [i for i in program.instructions if i.op == op and direction in (None, i.direction)]


IMAGE = torch.randn(2, 3, 16, 16)
MODULES = {
    "mlp": (nn.Sequential(nn.Linear(7, 11), nn.GELU(), nn.Linear(11, 3)), torch.randn(5, 7)),
    "convolution": (nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ConvTranspose2d(8, 4, 3)), IMAGE),
    "batch norm": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), IMAGE),
    "eager attention": (llama("eager", use_cache=False), torch.randint(0, 96, (2, 12))),
    "values needed": (LooksAtValues(4, 5), torch.rand(3, 4)),
}


@pytest.mark.parametrize("name", MODULES)
def test_forward_and_training_flops_equal_torchs_where_torch_counts(name):
    module, inputs = MODULES[name]

    def output():
        result = module(inputs)
        return result if isinstance(result, torch.Tensor) else result.logits

    with torch.no_grad():
        forward = counted_by_torch(output)
    assert list_program(module, inputs).flops == forward > 0
    counted = list_training_program(module, inputs).flops
    assert all(p.grad is None for p in module.parameters())
    assert counted == counted_by_torch(lambda: output().sum().backward())
    module.zero_grad(set_to_none=True)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_one_instruction_with_the_closed_formula(causal):
    batch, heads, queries, keys, width = 2, 3, 8, 8 if causal else 20, 16
    q = torch.randn(batch, heads, queries, width)
    k, v = torch.randn(2, batch, heads, keys, width).unbind(0)
    (attention,) = by_op(list_program(Attention(causal), q, k, v), ATTENTION)
    assert attention.flops == 4 * batch * heads * queries * keys * width
    assert attention.bytes_read == 4 * (q.numel() + k.numel() + v.numel())
    assert attention.bytes_written == 4 * (q.numel() + batch * heads * queries)


def test_fused_cpu_attention_counts_what_eager_attention_counts_in_both_directions():
    ids = torch.randint(0, 96, (2, 12))
    fused, eager = llama("sdpa"), llama("eager")
    assert list_program(fused, ids).flops == list_program(eager, ids).flops
    assert list_training_program(fused, ids).flops == list_training_program(eager, ids).flops
    with torch.no_grad():
        assert counted_by_torch(lambda: fused(ids)) < list_program(fused, ids).flops


def really_run(module, work):
    recorder = Recorder("real")
    with recording(module, recorder):
        work()
    return recorder.program()


def test_what_is_listed_without_data_is_what_really_runs():
    """Operation by operation: order, shapes, number formats, stages, FLOPs and bytes, forward and backward."""
    model, ids = llama(layers=2), torch.randint(0, 96, (2, 12))

    def loss(output):
        return nn.functional.cross_entropy(output.logits.flatten(0, 1), ids.flatten())

    def work():
        objective = loss(model(ids))
        torch.autograd.grad(objective, list(model.parameters()))

    real = really_run(model, work)
    listed = list_training_program(model, ids, loss=loss)
    constants = len(real.instructions) - len(listed.instructions)
    assert 0 <= constants < 80  # masks and rotary tables, which do not depend on the inputs

    def shown(program):
        return [(i.op, i.shapes, i.outputs, i.dtype, i.flops, i.bytes_read, i.bytes_written, i.direction)
                for i in program.instructions]

    rest = iter(shown(real))
    for row in shown(listed):
        assert row in rest, row


def test_bytes_are_the_sizes_of_the_tensors():
    table, rows = nn.Embedding(1000, 8), torch.randint(0, 1000, (2, 5))
    (look_up,) = by_op(list_program(table, rows), "aten.embedding")
    assert (look_up.bytes_read, look_up.bytes_written) == (8 * 10 + 4 * 80, 4 * 80)

    class Search(nn.Module):
        def forward(self, values, queries):
            return torch.searchsorted(values, queries)

    (search,) = by_op(list_program(Search(), torch.arange(1000), torch.tensor([3, 7])), "aten.searchsorted")
    assert search.bytes_read == 2 * 8 + 2 * 10 * 8, "ten comparisons find a place among a thousand"

    class Several(nn.Module):
        def forward(self, x):
            y = x.t() @ x  # the same elements twice
            y = y + x[:1].expand(3, 3)  # a row that is read once
            y.mul_(2)
            return y.view(-1)

    program = list_program(Several(), torch.ones(2, 3))
    read = {i.op: (i.bytes_read, i.bytes_written) for i in program.instructions}
    assert read["aten.mm"] == (4 * 6, 4 * 9)
    assert read["aten.add"] == (4 * (9 + 3), 4 * 9)
    assert read["aten.mul_"] == (4 * 9, 4 * 9)
    assert read["aten.view"] == read["aten.t"] == read["aten.expand"] == (0, 0)


class Runs(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


TABLE, ROWS, IDS = torch.zeros(100, 8), torch.ones(3, 8), torch.tensor([1, 5, 7])
MOVED = {
    "windows that overlap share elements": ("aten.add", lambda x: x.unfold(0, 50, 1) + 1,
                                            torch.zeros(100), 4 * 100, 4 * 51 * 50),
    "rows are set": ("aten.index_put_", lambda t, i: t.index_put_((i,), torch.tensor(0.0)), (TABLE, IDS),
                     3 * 8 + 4, 4 * 3 * 8),
    "rows are added to": ("aten.index_put_", lambda t, i, v: t.index_put_((i,), v, accumulate=True),
                          (TABLE, IDS, ROWS), 3 * 8 + 2 * 4 * 3 * 8, 4 * 3 * 8),
    "rows are filled": ("aten.index_fill_", lambda t, i: t.index_fill_(0, i, 2.0), (TABLE, IDS), 3 * 8, 4 * 3 * 8),
    "columns are added to": ("aten.index_add_", lambda t, i, v: t.index_add_(1, i, v),
                             (TABLE, IDS, torch.ones(100, 3)), 3 * 8 + 2 * 4 * 300, 4 * 300),
    "pieces are views": ("aten.unsafe_split", lambda x: torch.unsafe_chunk(x, 4, 1)[0] + 1, TABLE, 0, 0),
}


@pytest.mark.parametrize("name", MOVED)
def test_only_what_is_touched_counts(name):
    op, function, inputs, read, written = MOVED[name]
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    (found,) = by_op(list_program(Runs(function), *inputs), op)
    assert (found.bytes_read, found.bytes_written) == (read, written)


def test_a_bag_reads_the_rows_in_it():
    bags = nn.EmbeddingBag(1000, 8)
    (found,) = [i for i in list_program(bags, torch.tensor([1, 2, 3, 4]), torch.tensor([0, 2])).instructions
                if "embedding_bag" in i.op]
    assert found.bytes_read == 4 * 4 * 8 + 8 * (4 + 2)


def test_a_list_that_is_only_overwritten_is_not_read():
    targets, sources = [torch.zeros(10), torch.zeros(20)], [torch.ones(10), torch.ones(20)]
    (copy,) = by_op(list_call(lambda: torch._foreach_copy_(targets, sources)), "aten._foreach_copy_")
    assert (copy.bytes_read, copy.bytes_written) == (120, 120)


def test_products_in_place_are_counted():
    c = torch.zeros(4, 6)
    program = list_call(lambda: c.addmm_(torch.ones(4, 5), torch.ones(5, 6)))
    assert program.flops == 2 * 4 * 5 * 6


@pytest.mark.parametrize("mask", ["none", "bool", "float", "causal"])
@pytest.mark.parametrize("kv_heads", [2, 6])
def test_attention_counts_its_products_whatever_the_mask_and_however_heads_share(mask, kv_heads):
    batch, heads, queries, keys, width = 2, 6, 8, 8, 16
    q, k = torch.randn(batch, heads, queries, width), torch.randn(batch, kv_heads, keys, width)
    masks = {"bool": torch.ones(queries, keys, dtype=torch.bool), "float": torch.zeros(queries, keys)}

    def attend(q, k, v):
        return nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=masks.get(mask), is_causal=mask == "causal", enable_gqa=True)

    program = list_program(Runs(attend), q, k, k)
    assert program.flops == 4 * batch * heads * queries * keys * width


def test_a_module_with_nothing_to_train_is_one_clear_line():
    with pytest.raises(UserError, match="ReLU: no parameter requires a gradient"):
        list_training_program(nn.ReLU(), torch.zeros(3))


def test_torchs_own_layers_are_counted_where_inference_takes_a_fused_kernel():
    width, heads, hidden, tokens = 16, 4, 32, 6
    layer = nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True).eval()
    products = tokens * (4 * width * width + 2 * width * hidden)
    assert list_program(layer, torch.randn(1, tokens, width)).flops == 2 * products + 4 * tokens * tokens * width


def test_totals_and_groups_are_sums_of_the_rows():
    program = list_training_program(llama(), torch.randint(0, 96, (2, 12)))
    assert program.total == Cost(program.flops, program.bytes_read, program.bytes_written)
    assert program.flops == sum(i.flops for i in program.instructions) > 0
    for groups in (program.by_stage(), program.by_layer(), program.by_op(), stage_costs(program),
                   stage_costs(program, backward_as_stage=True)):
        assert sum(groups.values(), Cost()) == program.total
    twice = joined([program, program])
    assert twice.flops == 2 * program.flops


def test_a_ledger_of_training_has_the_backward_pass_as_one_stage():
    program = list_training_program(llama(), torch.randint(0, 96, (2, 12)))
    costs = stage_costs(program, backward_as_stage=True)
    backward = [i for i in program.instructions if i.direction == "backward"]
    assert costs[Stage.BACKWARD, None].flops == sum(i.flops for i in backward) > 0
    forward = [i for i in program.instructions if (i.stage, i.layer) == (Stage.FFN, 1) and i.direction == "forward"]
    assert costs[Stage.FFN, 1].bytes_read == sum(i.bytes_read for i in forward)


class Marked(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens, self.lm_head = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        mark(Stage.QKV, 0)
        x = self.embed_tokens(x)
        mark(Stage.FFN, 7)
        return self.lm_head(x)


def test_marks_win_over_names_and_backward_instructions_follow_their_forward_ones():
    program = list_training_program(Marked(), torch.randn(3, 4), loss=lambda y: y.square().mean())
    products = [(i.stage, i.layer, i.direction, i.module) for i in program.instructions if i.flops]
    assert products == [
        (Stage.QKV, 0, "forward", "embed_tokens"), (Stage.FFN, 7, "forward", "lm_head"),
        (Stage.FFN, 7, "backward", "lm_head"), (Stage.FFN, 7, "backward", "lm_head"),
        (Stage.QKV, 0, "backward", "embed_tokens"),
    ]
    assert {i.stage for i in program.instructions} == {Stage.QKV, Stage.FFN, Stage.LOSS}


def test_without_marks_stages_come_from_the_names_of_submodules():
    program = list_training_program(llama(), torch.randint(0, 96, (2, 12)))
    places = {(i.stage, i.layer) for i in program.instructions if i.flops}
    per_layer = {Stage.QKV, Stage.ATTENTION, Stage.OUT, Stage.FFN}
    assert places >= {(stage, layer) for stage in per_layer for layer in range(3)} | {(Stage.HEAD, None)}
    for direction, times in (("forward", 1), ("backward", 2)):
        for stage in per_layer:
            flops = [sum(i.flops for i in program.instructions
                         if (i.stage, i.layer, i.direction) == (stage, layer, direction)) for layer in range(3)]
            assert flops[0] == flops[1] == flops[2] > 0, (stage, direction)
        head = sum(i.flops for i in program.instructions if i.stage is Stage.HEAD and i.direction == direction)
        assert head == times * 2 * 2 * 12 * 32 * 96


def test_listing_twice_gives_the_same():
    model, ids = llama(), torch.randint(0, 96, (2, 12))
    assert list_training_program(model, ids) == list_training_program(model, ids)


def test_inference_mode_changes_nothing():
    """Compositions such as linear arrive whole there."""
    model, ids = llama(), torch.randint(0, 96, (2, 12))

    def call(module, ids):
        with torch.inference_mode():
            return module(ids)

    def shown(program):
        return [(i.op, i.shapes, i.stage, i.flops, i.bytes_read) for i in program.instructions if i.bytes_written]

    plain = list_program(model, ids)
    assert shown(list_program(model, ids, call=call)) == shown(plain)
    with torch.inference_mode():
        assert shown(list_program(model, ids)) == shown(plain)


def test_a_real_run_counts_fused_cpu_attention_as_one_without_data_does():
    class Peeking(Attention):
        def forward(self, q, k, v):
            assert q.sum().item() == q.sum().item()
            return super().forward(q, k, v)

    q, k = torch.randn(2, 3, 8, 16), torch.randn(2, 3, 20, 16)
    assert list_program(Peeking(), q, k, k).flops == list_program(Attention(), q, k, k).flops


def test_frozen_parameters_save_their_weight_gradients():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    product = 2 * 4 * 8 * 8
    assert list_training_program(model, torch.randn(4, 8)).flops == 5 * product
    model[0].requires_grad_(False)
    assert list_training_program(model, torch.randn(4, 8)).flops == 3 * product


def test_a_recurrent_layer_is_counted_though_torch_leaves_it_out():
    steps, batch, inputs, hidden = 10, 4, 6, 9
    lstm, x = nn.LSTM(inputs, hidden), torch.randn(steps, batch, inputs)
    products = 2 * steps * batch * 4 * hidden * (inputs + hidden)
    assert list_program(lstm, x).flops == products
    assert list_training_program(lstm, x.requires_grad_(), loss=lambda output: output[0].sum()).flops == 3 * products


def test_listing_leaves_random_numbers_statistics_and_gradients_alone():
    model = nn.Sequential(LooksAtValues(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
    inputs = torch.rand(3, 4)
    state, mean = torch.get_rng_state(), model[2].running_mean.clone()
    list_training_program(model, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model[2].running_mean, mean)
    assert model[0].weight.grad is None
    assert not model[0]._forward_hooks


def test_inputs_that_do_not_fit_are_one_clear_line():
    with pytest.raises(UserError, match="Linear cannot be run"):
        list_program(nn.Linear(3, 4), torch.randn(2, 5))
    with torch.device("meta"):
        looks = LooksAtValues(3, 3)
    with pytest.raises(UserError, match="LooksAtValues cannot be run"):
        list_program(looks, torch.randn(2, 3))


def test_an_optimizer_step_is_listed_without_being_taken():
    parameters = [nn.Parameter(torch.ones(20, 30)), nn.Parameter(torch.ones(7))]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=True)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    program = list_call(optimizer.step, stage=Stage.OPTIMIZER)
    assert all(torch.equal(p, torch.ones_like(p)) for p in parameters)
    (step,) = by_op(program, "aten._fused_adamw_")
    n = 607
    assert step.stage is Stage.OPTIMIZER
    # Parameter, gradient and two moments are read; all but the gradient are written; and a step count each.
    assert step.bytes_read == pytest.approx(4 * 4 * n, rel=0.01)
    assert step.bytes_written == 3 * 4 * n


def test_a_call_that_asks_for_a_value_needs_an_answer():
    x = torch.ones(5)

    def clip():
        norm = x.norm().item()
        return x.mul_(1 / norm)

    with pytest.raises(UserError, match="without its values"):
        list_call(clip)
    assert by_op(list_call(clip, item=2.0), "aten.mul_")
    assert torch.equal(x, torch.ones(5))
    list_call(clip, dry=False)
    assert not torch.equal(x, torch.ones(5))


def test_a_twelve_layer_model_is_listed_in_a_moment():
    with torch.device("meta"):
        model = nn.ModuleDict({"layers": nn.ModuleList(
            nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True, dropout=0.0) for _ in range(12))})
    x = torch.zeros(8, 128, 768, device="meta")

    def call(module, x):
        for layer in module["layers"]:
            x = layer(x)
        return x

    model.train()
    start = time.process_time()
    program = list_training_program(model, x, call=call)
    assert time.process_time() - start < 2
    assert program.flops > 3 * 12 * 2 * 8 * 128 * 12 * 768**2


def test_nothing_loads_the_compiler():
    """Loading it takes a second, at the start of every ``tickwise train``."""
    code = """if True:
        import sys
        import torch
        from tickwise.models.decoder import Decoder, DecoderConfig
        from tickwise.profiling.program import list_program, list_training_program
        from tickwise.training.next_token import next_token_loss
        shape = dict(vocab_size=3000, context_length=64, width=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8,
                     hidden=64)
        gpt2 = dict(positions="learned", norm="layernorm", activation="gelu", bias=True, dropout=0.1)
        own = dict(qk_norm=True, value_residual=True, activation="relu2")
        for options in ({}, gpt2, own):
            with torch.device("meta"):
                model = Decoder(DecoderConfig(**(shape | options)))
            ids = torch.zeros(2, 64, dtype=torch.long)
            list_program(model, ids)
            list_training_program(model, ids, ids, call=next_token_loss)
        sys.exit("torch._dynamo" in sys.modules or "sympy" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
