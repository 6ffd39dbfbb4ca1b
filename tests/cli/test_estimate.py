"""tickwise estimate: what it answers, and how it refuses. On hardware that is not here, so nothing is measured."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tickwise.core.console import format_bytes
from tickwise.profiling import overheads, reference
from tickwise.training import compilation_memory
from tickwise.training.config import TrainConfig

PLAN = ("--depth", 2, "--width", 128, "--vocab-size", 512, "--context", 64)


@pytest.fixture
def estimate(tickwise_cli):
    def call(*words):
        code, out, err = tickwise_cli("estimate", *words, "--json", "--quiet")
        assert (code, err) == (0, "")
        return json.loads(out)

    return call


@pytest.fixture
def refusal(tickwise_cli):
    def call(*words):
        code, out, err = tickwise_cli("estimate", *words)
        assert (code, out) == (2, "")
        assert len(err.strip().splitlines()) == 1
        return err

    return call


def test_json_has_the_promised_keys_and_the_parts_add_up(estimate):
    for purpose, stages in (("train", {"ffn", "loss", "optimizer"}), ("serve", {"ffn", "attention", "head"})):
        found = estimate(*PLAN, "--for", purpose, "--hardware", "h100", "--dtype", "bf16")
        memory, times = found["memory_bytes"], found["time_s"]
        assert {"weights", "activations", "kv_cache", "total"} <= set(memory)
        assert ("optimizer" in memory) == (purpose == "train")
        assert memory["fragmentation"] is memory["process"] is None, "nobody knows them of another machine"
        assert memory["total"] == sum(size or 0 for name, size in memory.items() if name != "total")
        assert stages <= set(times)
        assert times["total"] == pytest.approx(sum(spent for stage, spent in times.items() if stage != "total"))
        tokens = found["batch"] * (found["context"] if purpose == "train" else 1)
        assert found["tokens_per_s"] == pytest.approx(tokens / times["total"])
        assert found["energy_j"] == pytest.approx(700 * times["total"])
        assert (found["kind"], found["hardware_kind"]) == ("modelled", "data-sheet")
        assert "at best" in found["time_is"]
    assert found["cost"] is None


def test_the_table_says_what_is_modelled_and_from_where(tickwise_cli):
    code, out, _ = tickwise_cli("estimate", *PLAN, "--hardware", "rtx4090", "--price-per-hour", 0.5)
    assert code == 0
    flat = " ".join(out.split())
    for text in ("Memory, modelled", "data-sheet: NVIDIA", "at best", "fits into 24 GB", "per million tokens",
                 "fragmentation n/a", "not in the total: fragmentation, process"):
        assert text in flat
    assert "backward" not in flat
    of_training = tickwise_cli("estimate", *PLAN, "--for", "train", "--hardware", "rtx4090")[1]
    assert "each stage with its backward pass" in of_training


def test_cost_follows_from_the_price(estimate):
    found = estimate(*PLAN, "--hardware", "h100", "--price-per-hour", 3.6)
    assert found["cost"] == pytest.approx(found["time_s"]["total"] * 0.001)
    assert found["cost_per_million_tokens"] == pytest.approx(1e6 * found["cost"] / found["batch"])


def test_a_recipe_is_trained_as_it_says(estimate, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("depth: 2\ncontext: 32\nbatch_size: 6\nmax_steps: 50\nmodel: {width: 64}\n"
                      "optimizer: {name: sgd}\n")
    found = estimate(recipe, "--for", "train", "--vocab-size", 300, "--hardware", "a100", "--price-per-hour", 2)
    assert (found["batch"], found["context"], found["model"]["width"], found["model"]["vocab_size"]) == (6, 32, 64, 300)
    assert found["memory_bytes"]["optimizer"] == pytest.approx(found["memory_bytes"]["gradients"], rel=0.01)
    assert found["run"]["steps"] == 50
    assert found["run"]["seconds"] == pytest.approx(50 * found["time_s"]["total"])


def test_a_model_directory_and_its_config_have_their_own_shape(estimate, refusal, tiny_model):
    for path in (tiny_model, tiny_model / "config.json"):
        found = estimate(path, "--hardware", "h100", "--batch", 3)
        assert (found["model"]["width"], found["context"], found["batch"]) == (16, 32, 3)
    assert "has its shape already" in refusal(tiny_model, "--depth", 3, "--hardware", "h100")
    assert "positions for 32 tokens" in refusal(tiny_model, "--context", 33, "--hardware", "h100")
    assert "has its depth already" in refusal(tiny_model, "--fit", "model", "--hardware", "h100")


def hardware_file(tmp_path, **changes):
    path = tmp_path / "box.json"
    path.write_text(json.dumps({"memory_bytes": 200_000_000, "read_bandwidth_bytes_per_s": 1e10,
                                "flops_per_s": {"fp32": 1e11}} | changes))
    return path


@pytest.mark.parametrize("purpose", ["train", "serve"])
def test_the_largest_batch_that_fits_fits_and_much_more_does_not(estimate, tmp_path, purpose):
    words = (*PLAN, "--for", purpose, "--hardware", hardware_file(tmp_path), "--dtype", "fp32")
    found = estimate(*words, "--fit", "batch")
    assert found["batch"] > 8
    assert found["memory_bytes"]["total"] <= 200_000_000
    more = estimate(*words, "--batch", found["batch"] * 11 // 10)
    assert more["memory_bytes"]["total"] > 200_000_000
    assert found["energy_j"] is None  # the file gives no power


def test_the_largest_model_and_context_that_fit(estimate, tmp_path):
    hardware = hardware_file(tmp_path)
    words = ("--width", 128, "--vocab-size", 512, "--hardware", hardware, "--dtype", "fp32", "--for", "train")
    found = estimate(*words, "--context", 64, "--fit", "model")
    assert found["memory_bytes"]["total"] <= 200_000_000
    deeper = estimate(*words, "--context", 64, "--depth", found["model"]["n_layers"] + 1)
    assert deeper["memory_bytes"]["total"] > 200_000_000
    hardware = hardware_file(tmp_path, memory_bytes=20_000_000)
    longest = estimate("--width", 128, "--depth", 2, "--vocab-size", 512, "--hardware", hardware, "--fit", "context")
    assert longest["context"] > 1000
    assert longest["memory_bytes"]["total"] <= 20_000_000


@pytest.mark.parametrize(("words", "hint"), [
    (("--hardware", "h100"), "--vocab-size"),
    ((*PLAN, "--hardware", "h1000"), "did you mean"),
    ((*PLAN, "--hardware", "h100", "--price-per-kwh", -1), "--price-per-kwh"),
    ((*PLAN, "--hardware", "h100", "--batch", 0), "--batch: must be positive"),
    (("--vocab-size", 1, "--depth", 2, "--hardware", "h100"), "--vocab-size 1: must be at least 2"),
    ((__file__, "--hardware", "h100"), "give a model or run directory, a config.json or a recipe (.yaml)"),
    ((*PLAN, "--hardware", "h100", "--batch", 10**12), "--batch: estimate looks no further than 16,777,216"),
    (("--vocab-size", 512, "--depth", 5000, "--hardware", "h100"), "--depth: estimate looks no further than 1,024"),
    ((*PLAN, "--hardware", "h100", "--price-per-hour", "nan"), "--price-per-hour"),
    ((*PLAN, "--hardware", "h100", "--fit", "context"), "give only one"),
    (("nowhere", "--hardware", "h100"), "no such model directory"),
    (("nowhere.yaml", "--hardware", "h100"), "not found"),
    (("nowhere.json", "--hardware", "h100"), "is missing"),
])
def test_mistakes_are_one_line(refusal, words, hint):
    assert hint in refusal(*words)


def test_electricity_is_paid_by_its_energy(estimate, tmp_path):
    words = (*PLAN, "--hardware", "h100", "--price-per-kwh", 0.36)
    found = estimate(*words)
    assert found["cost"] == pytest.approx(found["energy_j"] * 1e-7)
    both = estimate(*words, "--price-per-hour", 3.6)
    assert both["cost"] == pytest.approx(found["cost"] + both["time_s"]["total"] * 0.001)
    assert both["cost_kind"] == "modelled"
    unknown = estimate(*PLAN, "--hardware", hardware_file(tmp_path), "--price-per-kwh", 0.36)
    assert unknown["energy_j"] is unknown["cost"] is None


def test_figures_that_a_file_lacks_are_named(refusal, tmp_path):
    assert "no figure flops_per_s.bf16" in refusal(*PLAN, "--hardware", hardware_file(tmp_path), "--dtype", "bf16")
    path = hardware_file(tmp_path, read_bandwidth_bytes_per_s=None)
    assert "no figure read_bandwidth_bytes_per_s" in refusal(*PLAN, "--hardware", path, "--dtype", "fp32")
    path = hardware_file(tmp_path, memory_bytes=None)
    words = ("--depth", 2, "--vocab-size", 512, "--hardware", path, "--dtype", "fp32", "--fit", "batch")
    assert "no figure memory_bytes" in refusal(*words)
    path = hardware_file(tmp_path, memory_bytes=1000)
    words = ("--depth", 2, "--vocab-size", 512, "--hardware", path, "--dtype", "fp32", "--fit", "batch")
    assert "not even 1 fits" in refusal(*words)


@pytest.mark.parametrize(("purpose", "room"), [("serve", "engine"), ("train", "training")])
def test_the_largest_batch_on_a_large_machine_takes_few_dry_runs(estimate, monkeypatch, purpose, room):
    import importlib

    memory = importlib.import_module(f"tickwise.{room}.memory")
    runs = []

    class Counting(memory.DryRun):
        def __init__(self, *args, **options):
            runs.append(1)
            super().__init__(*args, **options)

    monkeypatch.setattr(memory, "DryRun", Counting)
    found = estimate("--depth", 2, "--vocab-size", 700, "--context", 96, "--hardware", "h100", "--fit", "batch",
                     "--for", purpose)
    assert len(runs) <= 12
    assert 0.96 * 80e9 < found["memory_bytes"]["total"] <= 80e9


def test_the_answer_comes_first_and_says_what_bounds_it(tickwise_cli, tiny_model):
    code, out, _ = tickwise_cli("estimate", tiny_model, "--hardware", "h100", "--fit", "context")
    assert code == 0
    assert out.splitlines()[0] == "largest context: 32 (the model's own limit, not memory)"


def test_serving_has_no_gradients_and_a_whole_number_may_be_written_as_a_float(estimate, tmp_path):
    found = estimate(*PLAN, "--hardware", hardware_file(tmp_path, memory_bytes=8e9), "--dtype", "fp32")
    assert not {"gradients", "optimizer"} & set(found["memory_bytes"])
    assert found["memory_available_bytes"] == 8 * 10**9


@pytest.mark.parametrize("purpose", ["train", "serve"])
def test_the_deepest_model_that_fits_is_found_by_two_dry_runs_of_its_depth(estimate, tmp_path, monkeypatch, purpose):
    """Its width grows with its depth; most tries are of a few layers."""
    import importlib

    memory = importlib.import_module(f"tickwise.{'training' if purpose == 'train' else 'engine'}.memory")
    counted, layers = memory._counted, []

    def counting(model, *arguments):
        layers.append(model.n_layers)
        return counted(model, *arguments)

    monkeypatch.setattr(memory, "_counted", counting)
    limit = {"train": 4 * 10**9, "serve": 2 * 10**8}[purpose]
    hardware = hardware_file(tmp_path, memory_bytes=limit)
    words = ("--vocab-size", 512, "--context", 64, "--hardware", hardware, "--dtype", "fp32", "--for", purpose)
    found = estimate(*words, "--fit", "model")
    depth = found["model"]["n_layers"]
    assert depth > 8
    assert sorted({n for n in layers if n > 4}) == [depth, depth + 1]
    assert found["memory_bytes"]["total"] <= limit
    assert estimate(*words, "--depth", depth + 1)["memory_bytes"]["total"] > limit


def test_the_dry_run_of_train_counts_the_process_as_estimate_does(tickwise_cli, small_text, monkeypatch):
    monkeypatch.setattr(reference, "process_bytes", lambda name, function: 400_000_000 if name == "trained-fp32" else 0)
    words = ("train", small_text, "--depth", 1, "--model.width", 32, "--context", 16, "--tokenizer", "char",
             "--dtype", "fp32", "--dry-run")
    code, out, _ = tickwise_cli(*words, "--json")
    assert code == 0
    memory = json.loads(out)["memory_bytes"]
    assert memory["process"] == 400_000_000
    assert memory["total"] == sum(size for name, size in memory.items() if name != "total") > 400_000_000
    code, out, _ = tickwise_cli(*words)
    (line,) = [line for line in out.splitlines() if line.startswith("memory")]
    assert f"memory (modelled): {format_bytes(memory['total'])}: " in line
    assert "process 400 MB" in line


@pytest.mark.parametrize(("flags", "tried"), [
    (("--compile", "off"), False), (("--max-seconds", 1199), False), (("--max-seconds", 1200), True),
    (("--compile", "on", "--max-steps", 1), True), (("--max-steps", 10**9), None),
])
def test_the_dry_run_of_train_says_what_compiling_takes(tickwise_cli, small_text, monkeypatch, flags, tried):
    monkeypatch.setattr(compilation_memory, "compilation_possible", lambda device, compiler: (True, ""))
    sizes = {"trained": 450_000_000, "training": 400_000_000, "compiler": 500_000_000}
    monkeypatch.setattr(reference, "process_bytes", lambda name, function: sizes[name.partition("-")[0]])
    monkeypatch.setattr(overheads, "is_cached", lambda: False)
    words = ("train", small_text, "--depth", 2, "--model.width", 32, "--context", 16, "--tokenizer", "char",
             "--dtype", "fp32", "--device", "cpu", *flags, "--dry-run")
    code, out, err = tickwise_cli(*words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["compilation"] == {"tried": tried, "bytes": 172_000_000 if tried is not False else 0}
    assert found["memory_bytes"].get("compilation") == (172_000_000 if tried else None)
    code, out, err = tickwise_cli(*words)
    assert ("a run of more than 20 minutes tries torch.compile, which takes 172 MB more" in out) == (tried is None)
    assert ("compilation 172 MB" in out) == bool(tried)


def test_a_run_that_is_known_to_be_long_has_the_term_in_its_estimate(monkeypatch):
    monkeypatch.setattr(compilation_memory, "compilation_possible", lambda device, compiler: (True, ""))
    monkeypatch.setattr(reference, "process_bytes", lambda name, function: 0)
    config = TrainConfig(data=Path(), batch_size=4, context=16, max_steps=1000)
    cpu = torch.device("cpu")
    for seconds, tried in ((1.1, False), (1.3, True), (None, None)):
        assert compilation_memory.compilation_memory(config, 1, "fp32", cpu, seconds).tried is tried


@pytest.mark.parametrize("compile_it", ["off", "on"])
def test_what_fits_counts_compilation_as_the_estimate_does(tickwise_cli, tmp_path, monkeypatch, compile_it):
    from tickwise.cli import estimate as module

    monkeypatch.setattr(compilation_memory, "compilation_possible", lambda device, compiler: (True, ""))
    monkeypatch.setattr(reference, "process_bytes", lambda name, function: 0)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"depth: 1\nmodel:\n  width: 32\nvocab_size: 300\ncontext: 16\ncompile: '{compile_it}'\n")
    arguments = module.Arguments(model=recipe, purpose="train", dtype="fp32", batch=2)
    machine = SimpleNamespace(is_here=True, device=torch.device("cpu"))
    total = module._total(arguments, module._plan(arguments), machine, "fp32")
    assert (total > 70_000_000) == (compile_it == "on")


def test_the_process_that_stands_for_a_training_is_one_from_the_command_line():
    code = ("import sys; from tickwise.cli.estimate_process import train_smallest; n = train_smallest('fp32'); "
            "print(n, 'torch.utils.tensorboard' in sys.modules, 'sympy' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    n_bytes, has_events, has_sympy = done.stdout.split()[-3:]
    assert 200_000_000 < int(n_bytes) < 500_000_000, done.stderr
    assert (has_events, has_sympy) == ("True", "False")


def test_several_ranks_exchange_by_the_rule_of_the_hardware_that_is_asked_for(tickwise_cli, tmp_path):
    """NCCL scatters what it reduces, on whichever machine it is estimated; gloo reduces to all."""
    box = tmp_path / "box.json"
    figures = {"read_bandwidth_bytes_per_s": 2e10, "flops_per_s": {"bf16": 1e11}}
    ranks = ("--for", "train", "--batch", 8, "--ranks", 4, "--dtype", "bf16", "--strategy")

    def sent(hardware, strategy="fsdp"):
        code, out, err = tickwise_cli("estimate", *PLAN, *ranks, strategy, "--hardware", hardware, "--json")
        assert code == 0, err
        return json.loads(out)["communication_bytes"]

    on_gpus = sent("h100")
    box.write_text(json.dumps(figures))
    on_processors = sent(box)
    assert "all_reduce_gradients" not in on_gpus
    assert on_processors["all_reduce_gradients"] == pytest.approx(2 * on_gpus["reduce_scatter_gradients"], abs=2)
    box.write_text(json.dumps(figures | {"gpu": True}))
    assert sent(box) == on_gpus
    code, out, _ = tickwise_cli("estimate", *PLAN, *ranks, "ddp", "--hardware", "h100")
    assert code == 0
    assert "weights: of each parameter the float32 master (4 bytes)" in " ".join(out.split())


def test_a_stage_that_takes_next_to_nothing_is_not_said_to_take_nothing(tickwise_cli):
    code, out, _ = tickwise_cli("estimate", *PLAN, "--hardware", "h100")
    assert code == 0
    times = out.partition("Time, modelled")[2].partition("tokens/s")[0]
    assert "head" in times
    assert " 0.0 " not in times


def test_a_batch_that_ranks_cannot_share_is_named_by_estimate_s_own_flag(tickwise_cli):
    code, _, err = tickwise_cli("estimate", *PLAN, "--for", "train", "--batch", 8, "--ranks", 3, "--hardware", "h100")
    assert code == 2
    assert err.startswith("tickwise: --batch: 3 ranks do not divide the batch of 8")
