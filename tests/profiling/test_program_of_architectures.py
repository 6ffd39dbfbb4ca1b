"""Architectures of tickwise and of transformers, against PyTorch's FlopCounterMode on real runs."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
import torch

from tickwise.core.stages import Stage
from tickwise.profiling.program import ATTENTION, list_program, list_training_program
from tickwise.profiling.recorder import Recorder, recording

pytest.importorskip("transformers")
_spec = importlib.util.spec_from_file_location(
    "flop_pairs", Path(__file__).resolve().parents[2] / "bench" / "flop_pairs.py"
)
flop_pairs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(flop_pairs)

CONTEXT = 12


# Tickwise attends in another way to texts of up to 256 tokens on a CPU.
LENGTHS = [(name, 24) for name in flop_pairs.ARCHITECTURES] + [
    (name, 300) for name in flop_pairs.ARCHITECTURES if name.startswith("tickwise")]


@pytest.mark.parametrize(("name", "length"), LENGTHS)
def test_products_equal_torchs_count_and_attention_that_of_its_products(name, length):
    for pair in flop_pairs.pairs(name, length):
        assert pair["products"] == pair["products_by_torch"] > 0, pair
        assert pair["attention"] == pair["attention_by_torch_when_written_out"], pair


@pytest.mark.parametrize(("dtype", "training"), [(torch.float32, False), (torch.bfloat16, True)])
@pytest.mark.parametrize("name", flop_pairs.ARCHITECTURES)
def test_what_is_listed_is_what_really_runs(name, dtype, training):
    """Every listed operation, forward and backward, in the order, with the shapes and bytes of a real step."""
    torch.manual_seed(0)
    module = flop_pairs.ARCHITECTURES[name]().to(dtype).train(training)
    inputs = flop_pairs.inputs_of(module, 24)
    listed = list_training_program(module, call=flop_pairs.training_loss, **inputs)
    recorder = Recorder("real")
    with recording(module, recorder):
        torch.autograd.grad(
            flop_pairs.training_loss(module, **inputs), list(module.parameters()), allow_unused=True
        )

    def shown(program):
        return [(i.op, i.shapes, i.outputs, i.dtype, i.flops, i.bytes_read, i.bytes_written, i.direction)
                for i in program.instructions if i.bytes_written]

    real = shown(recorder.program())
    rest = iter(real)
    for row in shown(listed):
        assert row in rest, row
    assert len(real) - len(shown(listed)) < 60  # constants: masks, positions, rotary tables


@pytest.mark.parametrize("name", flop_pairs.ARCHITECTURES)
def test_pytorchs_profiler_sees_the_same_operations(name):
    """It records a step that nothing intercepts, so listing does not change what runs."""
    module = flop_pairs.ARCHITECTURES[name]().eval()
    inputs = flop_pairs.inputs_of(module, 24)
    flop_pairs.training_loss(module, **inputs)  # constants are made once
    program = list_training_program(module, call=flop_pairs.training_loss, **inputs)
    with torch.profiler.profile() as profile:
        torch.autograd.grad(flop_pairs.training_loss(module, **inputs), list(module.parameters()), allow_unused=True)
    names = ("mm", "addmm", "bmm", "baddbmm", "silu", "silu_backward", "gelu", "gelu_backward", "embedding",
             "embedding_dense_backward", "linalg_vector_norm", "native_layer_norm", "native_layer_norm_backward",
             "_scaled_dot_product_flash_attention_for_cpu")
    seen = Counter(event.name.removeprefix("aten::") for event in profile.events())
    listed = Counter(i.op.removeprefix("aten.") for i in program.instructions)
    listed["_scaled_dot_product_flash_attention_for_cpu"] = listed[ATTENTION]
    assert {n: listed[n] for n in names} == {n: seen[n] for n in names}


@pytest.mark.parametrize("name", flop_pairs.ARCHITECTURES)
def test_stages_and_layers_are_recognised_in_both_directions(name):
    module = flop_pairs.ARCHITECTURES[name]().eval()
    program = list_training_program(module, call=flop_pairs.training_loss, **flop_pairs.inputs_of(module, 24))
    with_flops = [i for i in program.instructions if i.flops]
    known = [i for i in with_flops if i.stage not in (Stage.FORWARD, Stage.BACKWARD)]
    assert len(known) == len(with_flops)
    for direction in ("forward", "backward"):
        places = {(i.stage, i.layer) for i in with_flops if i.direction == direction}
        assert places >= {(stage, layer) for stage in (Stage.QKV, Stage.ATTENTION, Stage.OUT, Stage.FFN)
                          for layer in range(3)}
    assert {i.stage for i in program.instructions} >= {Stage.EMBED, Stage.NORM, Stage.HEAD}
    assert (Stage.CROSS_ATTENTION in program.by_stage()) == ("T5" in name)


def cached(run, inputs):
    """The state after reading ``inputs``."""
    output = run(**inputs, use_cache=True)
    more = {"past_key_values": output.past_key_values}
    if "decoder_input_ids" in inputs:
        more["encoder_outputs"] = (output.encoder_last_hidden_state,)
    return more


@pytest.mark.parametrize("name", ["transformers Llama", "transformers GPT-2", "transformers T5"])
def test_a_decode_tick_reads_the_cache_and_computes_one_token(name):
    module = flop_pairs.ARCHITECTURES[name]().eval()
    inputs = flop_pairs.inputs_of(module, CONTEXT)
    new = {next(reversed(inputs)): torch.zeros(flop_pairs.BATCH, 1, dtype=torch.long)}
    program = list_program(module, prepare=lambda run: cached(run, inputs), **new)

    with torch.no_grad():
        state = cached(module, inputs)
        products = flop_pairs.counted_by_torch(lambda: module(**new, **state))
    assert flop_pairs.split(program)[0] == products > 0
    attended = {i.shapes[1][-2] for i in program.instructions if i.op == ATTENTION}
    n_cached = inputs[next(reversed(inputs))].shape[1]
    assert attended in ({n_cached + 1}, {n_cached + 1, CONTEXT}, set())  # its own tokens; the source's
    assert program.flops < list_program(module, **inputs).flops / 4


def test_experts_cost_what_a_token_uses_of_them():
    from transformers import MixtralConfig, MixtralForCausalLM

    width, hidden, experts, used, layers = 32, 64, 8, 2, 2
    config = MixtralConfig(hidden_size=width, intermediate_size=hidden, num_hidden_layers=layers, vocab_size=96,
                           num_attention_heads=4, num_key_value_heads=2, num_local_experts=experts,
                           num_experts_per_tok=used)
    with torch.device("meta"):
        module = MixtralForCausalLM(config).to(torch.bfloat16).eval()
    program = list_program(module, torch.zeros(1, 1, dtype=torch.long))
    products = [i for i in program.instructions if i.op == "aten._grouped_mm"]
    assert {i.stage for i in products} == {Stage.FFN}
    assert sum(i.flops for i in products) == layers * used * 2 * 3 * width * hidden
    assert sum(i.bytes_read for i in products) < layers * (used + 1) * 2 * 3 * width * hidden


def test_a_program_is_the_same_on_the_meta_device():
    """A model that was never given memory lists as one that was."""
    name = "transformers Llama"
    module = flop_pairs.ARCHITECTURES[name]().eval()
    with torch.device("meta"):
        empty = flop_pairs.ARCHITECTURES[name]().eval()
    inputs = flop_pairs.inputs_of(module, 24)
    real, meta = list_program(module, **inputs), list_program(empty, **inputs)
    assert [i for i in meta.instructions if i.flops] == [i for i in real.instructions if i.flops]
