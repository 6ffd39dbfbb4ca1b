"""Several ranks compute what one process does; ranks that die, hang or differ end in one line."""

import dataclasses
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import types

import psutil
import pytest
import torch

from small_runs import FLAGS, TINY, losses, metrics
from tickwise.core.errors import ConfigError, MemoryLimitError
from tickwise.training.config import LoopConfig, ModelOptions, ParallelOptions, TrainConfig
from tickwise.training.distributed import join
from tickwise.training.distributed.launch import _Deaths, command, launch_of, least_rank_bytes, without_launch_flags
from tickwise.training.distributed.ranks import Joined, _differing_settings, check_split, is_restart, launcher
from tickwise.training.distributed.traffic import check_ranks_fit, rank_memory, step_traffic
from tickwise.training.memory import estimate_training_memory

PLAIN = ["--dtype", "fp32", "--compile", "off", "--optimizer.name", "adamw"]


def words(text, out, *extra):
    return [sys.executable, "-m", "tickwise", "train", str(text), "--out", str(out), *FLAGS, *PLAIN, *extra]


def train(text, out, *extra):
    done = subprocess.run(words(text, out, *extra), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def rank_process(launcher, rank):
    for process in psutil.Process(launcher.pid).children():
        if process.environ().get("RANK") == str(rank):
            return process
    raise AssertionError(f"rank {rank} is not running")


def wait_for_steps(launcher, out, n):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if (out / "metrics.jsonl").exists() and len(metrics(out)) >= n:
            return
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.05)
    raise AssertionError("no progress")


def test_two_ranks_learn_what_one_process_does_and_only_the_first_one_speaks(small_text, tmp_path):
    said = train(small_text, tmp_path / "two", "--max-steps", "12", "--ranks", "2")
    train(small_text, tmp_path / "one", "--max-steps", "12", "--accumulate", "2")
    assert losses(tmp_path / "two") == losses(tmp_path / "one")
    assert [row["step"] for row in metrics(tmp_path / "two")] == list(range(1, 13))
    assert said.count("done: reached its limit") == 1
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["ranks"] == 2
    assert len(record["launchers"]) == 1


@pytest.mark.slow
def test_shares_go_from_two_ranks_to_one_and_back(small_text, tmp_path):
    """Every leg goes on from the one before; all of them together lose what one process loses."""
    out, steady = tmp_path / "run", ["--schedule.name", "constant", "--schedule.warmup", "0", "--resume", "auto"]
    shares = ["--parallel.strategy", "fsdp", *steady]
    train(small_text, out, "--max-steps", "6", "--ranks", "2", *shares)
    first = out / "checkpoints" / "step-6"
    assert len(list((first / "shards").iterdir())) == 2
    assert not (first / "model.safetensors").exists()
    train(small_text, out, "--max-steps", "9", *steady)
    assert (out / "checkpoints" / "step-9" / "model.safetensors").exists()
    train(small_text, out, "--max-steps", "12", "--ranks", "4", *shares)
    train(small_text, out, "--max-steps", "15", "--ranks", "2", *steady)
    train(small_text, tmp_path / "whole", "--max-steps", "15", *steady)
    ours, plain = losses(out), losses(tmp_path / "whole")
    assert ours.keys() == plain.keys()
    assert max(abs(ours[step][0] - plain[step][0]) for step in ours) < 1e-5


@pytest.mark.slow
def test_a_killed_rank_costs_no_more_than_the_steps_since_the_last_checkpoint(small_text, tmp_path):
    flags = ["--max-steps", "40", "--checkpoint-every", "10", "--ranks", "2"]
    train(small_text, tmp_path / "straight", *flags)
    launcher = subprocess.Popen(words(small_text, tmp_path / "killed", *flags), stderr=subprocess.PIPE, text=True)
    wait_for_steps(launcher, tmp_path / "killed", 15)
    rank_process(launcher, 1).send_signal(signal.SIGKILL)
    _, said = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, said
    assert "was killed (SIGKILL)" in said
    assert re.search(r"resumed from .*step-[123]0 ", said)
    assert "Traceback" not in said
    assert losses(tmp_path / "killed") == losses(tmp_path / "straight")


@pytest.mark.slow
def test_ctrl_c_ends_all_ranks_after_their_step_and_saves(small_text, tmp_path):
    flags = ["--max-steps", "5000", "--checkpoint-every", "5000", "--evaluate-every", "5000", "--ranks", "2"]
    launcher = subprocess.Popen(words(small_text, tmp_path / "run", *flags), stderr=subprocess.PIPE, text=True)
    wait_for_steps(launcher, tmp_path / "run", 5)
    ranks = psutil.Process(launcher.pid).children()
    launcher.send_signal(signal.SIGINT)
    _, said = launcher.communicate(timeout=240)
    assert launcher.returncode == 130, said
    assert not psutil.wait_procs(ranks, timeout=20)[1]
    step = int(re.search(r"interrupted: saved step ([\d,]+) in", said).group(1).replace(",", ""))
    assert (tmp_path / "run" / "checkpoints" / f"step-{step}" / "training.json").exists()
    assert "stopping: a step that has begun is finished and saved" in said
    assert "start again" not in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_named_with_the_collective(small_text, tmp_path, rank):
    launcher = subprocess.Popen(
        words(small_text, tmp_path / "run", "--max-steps", "5000", "--evaluate-every", "5000", "--ranks", "2",
              "--restarts", "0", "--parallel.timeout-seconds", "10"), stderr=subprocess.PIPE, text=True)
    wait_for_steps(launcher, tmp_path / "run", 5)
    hung = rank_process(launcher, rank)
    hung.send_signal(signal.SIGSTOP)
    _, said = launcher.communicate(timeout=240)
    assert launcher.returncode == 2
    line = next(line for line in said.splitlines() if "hung" in line)
    assert re.fullmatch(rf"tickwise: step \d+: rank {rank} \(process {hung.pid} on .+\) hung: no answer for 10 s while "
                        r"the others waited in gloo:\w+ number \d+.*", line)
    for noise in ("Traceback", "terminate called", "SIGABRT"):
        assert noise not in said


@pytest.mark.slow
def test_ranks_with_other_data_or_settings_are_refused_by_name(small_text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(small_text.read_text()[100:])
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]

    def node(text, *extra):
        return subprocess.Popen(words(text, tmp_path / "run", "--max-steps", "5", "--nodes", "2", "--ranks-per-node",
                                      "1", "--rendezvous", f"localhost:{port}", *extra), stderr=subprocess.PIPE,
                                text=True)

    for second, what in (((other,), r"data than rank 0 "), ((small_text, "--optimizer.lr", "0.01"),
                         r"settings than rank 0 .*\(optimizer.lr: [\d.]+ and [\d.]+\): give all nodes the same flags")):
        nodes = [node(small_text), node(*second)]
        said = [one.communicate(timeout=240)[1] for one in nodes]
        assert {one.returncode for one in nodes} == {2}
        for one in said:
            assert re.search(r"tickwise: rank 1 \(process \d+ on .+\) has other " + what, one), said
            assert "Traceback" not in one


def test_settings_that_differ_are_named_with_both_values():
    one = {"optimizer": {"name": "muon", "lr": 0.01}, "seed": 1, "a": 1, "b": 1, "same": None}
    two = {"optimizer": {"name": "adamw", "lr": 0.02}, "seed": 1, "a": 2, "b": 2, "same": None}
    said = _differing_settings(json.dumps(one), json.dumps(two))
    assert said == "a: 1 and 2, b: 1 and 2, optimizer.lr: 0.01 and 0.02 and 1 more"
    assert _differing_settings('{"x": {"k": "数据"}}', '{"x": {}}') == 'x.k: "数据" and null'
    long = [[*range(60), last] for last in ("one", "two")]
    said = _differing_settings(*(json.dumps({"sizes": sizes}) for sizes in long))
    assert re.fullmatch(r'sizes: ….{1,60} and ….{1,60}', said)
    assert "one" in said
    assert "two" in said
    said = _differing_settings(*(json.dumps({"sizes": [first, *range(60)]}) for first in (1, 2)))
    assert re.fullmatch(r"sizes: \[1.{58}… and \[2.{58}…", said)


class TwoRanks(Joined):
    """Rank 0 of two, of which the other one says what ``other`` makes of this one's words, or is gone."""

    def __init__(self, *_):
        self.rank, self.n_ranks, self.hosts, self.launchers = 0, 2, ["here", "there"], []

    def texts(self, own):
        return [own, self.other(own)]

    def fault(self, problem, training):
        return SystemExit(1)


def _some_training(**config):
    return types.SimpleNamespace(
        config=LoopConfig(**config), dtype_name="bf16", data_fingerprint="f00d", device=torch.device("cpu"),
        objective=types.SimpleNamespace(fixed_shapes=False), record={}, peak_flops_per_s=None)


def test_a_rank_that_dies_while_settings_are_exchanged_is_a_fault_like_any_other(monkeypatch):
    def gone(self, own):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242")

    monkeypatch.setattr(TwoRanks, "other", gone, raising=False)
    monkeypatch.setattr(join, "Joined", TwoRanks)
    monkeypatch.setattr(join, "is_one_of_several", lambda: True)
    with pytest.raises(SystemExit):
        join.join_ranks(_some_training(), None)


@pytest.mark.parametrize(("asked", "hint"), [("auto", True), ("bf16", False)])
def test_a_dtype_that_auto_chose_otherwise_is_said_to_be(monkeypatch, asked, hint):
    def slower(self, own):
        said = json.loads(own)
        said["settings"] = json.dumps(json.loads(said["settings"]) | {"dtype": "fp32"}, sort_keys=True)
        return json.dumps(said | ({} if asked == "auto" else {"dtype": "fp32"}))

    monkeypatch.setattr(TwoRanks, "other", slower, raising=False)
    with pytest.raises(ConfigError, match=r'dtype: "fp32" and "bf16"') as caught:
        TwoRanks().check_same(_some_training(dtype=asked))
    assert ("--dtype" in str(caught.value)) is hint


def test_a_port_in_use_is_one_line(small_text, tmp_path):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(words(small_text, tmp_path / "run", "--ranks", "2", "--rendezvous", f"localhost:{port}"),
                              capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        f"tickwise: --rendezvous localhost:{port}: the port is in use by another program; give another one"]
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_dry_run_prints_the_one_launch_command(small_text, tmp_path, tickwise_cli, monkeypatch):
    flags = ["train", str(small_text), "--out", str(tmp_path / "run"), *FLAGS, "--max-steps", "5", "--nodes", "2",
             "--ranks-per-node=4", "--rendezvous", "node1:29600", "--dry-run"]
    monkeypatch.setattr(sys, "argv", ["tickwise", *flags])
    code, out, _ = tickwise_cli(*flags)
    assert code == 0
    line = next(line for line in out.splitlines() if "torchrun" in line)
    assert "--nnodes=2 --nproc-per-node=4 --max-restarts=3 --rdzv-backend=c10d --rdzv-endpoint=node1:29600" in line
    assert line.endswith(" ".join(["-m tickwise train", *flags[1:len(flags) - 6]]))


def test_launch_flags_that_contradict_each_other_are_refused():
    for given, said in (((2, 2, None, None, 3), "--ranks is for one machine"),
                        ((0, None, None, None, 3), "--ranks: must"),
                        ((2, None, None, "nowhere", 3), "HOST:PORT"), ((2, None, None, None, -1), "--restarts")):
        with pytest.raises(ConfigError, match=re.escape(said)):
            launch_of(*given)
    assert launch_of(1, None, None, None, 3) is None
    assert without_launch_flags(["train", "x", "--ranks", "2", "--nodes=3", "--quiet"]) == ["train", "x", "--quiet"]
    assert "HOST:29500" in command(launch_of(None, 2, 8, None, 3), ["train", "x"])


def test_a_batch_that_ranks_cannot_share_evenly_is_refused():
    check_split(LoopConfig(batch_size=8, accumulate=2), 4)
    with pytest.raises(ConfigError, match="a multiple of 6"):
        check_split(LoopConfig(batch_size=8, accumulate=2), 3)


def test_a_restart_is_told_from_another_launch_of_the_same_name(tmp_path, monkeypatch):
    assert launcher() is None, "nobody starts this process again"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    monkeypatch.setenv("WORLD_SIZE", "2")
    own = launcher()
    assert own == launcher()
    assert not is_restart(tmp_path, [own]), "nothing was written yet"
    (tmp_path / "run.json").write_text(json.dumps({"launchers": ["process 1 on here since 7.00"]}))
    assert not is_restart(tmp_path, [own])
    (tmp_path / "run.json").write_text(json.dumps({"launchers": ["process 1 on here since 7.00", own]}))
    assert is_restart(tmp_path, ["a node that joined later", own])
    (tmp_path / "run.json").write_text("not whole")
    assert not is_restart(tmp_path, [own])


@pytest.mark.slow
def test_a_second_launch_at_the_same_port_replaces_the_run_when_asked(small_text, tmp_path):
    """Both are called tickwise-PORT, and the first one was killed before it could say that it ended."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    out = tmp_path / "run"
    flags = ["--nodes", "2", "--ranks-per-node", "1", "--rendezvous", f"localhost:{port}", "--log-every", "1"]
    first = [subprocess.Popen(words(small_text, out, *flags, "--max-steps", "5000", "--checkpoint-every", "5"))
             for _ in range(2)]
    wait_for_steps(first[0], out, 12)
    for node in first:
        end(node)
    second = [subprocess.Popen(words(small_text, out, *flags, "--max-steps", "6", "--overwrite"),
                               stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(node.communicate(timeout=240)[1] for node in second)
    assert [node.returncode for node in second] == [0, 0], said
    assert "resumed" not in said
    assert [row["step"] for row in metrics(out)] == [1, 2, 3, 4, 5, 6]


def end(launcher):
    """Kill a node: whoever starts its ranks, and these."""
    family = [*psutil.Process(launcher.pid).children(recursive=True), psutil.Process(launcher.pid)]
    for process in reversed(family):
        process.kill()
    psutil.wait_procs(family, timeout=20)
    launcher.wait()


def small_plan(**options):
    from tickwise.training.dial import decoder_from_dial, resolve

    model = decoder_from_dial(4, 32, 512, ModelOptions(width=64, n_heads=2))
    settings = TINY | {"depth": 4, "context": 32, "batch_size": 16} | options
    return model, resolve(TrainConfig(data="x", **settings), model, 1, 1)


def test_a_share_of_a_model_needs_less_memory_and_more_traffic_than_all_of_it():
    model, config = small_plan()
    cpu = torch.device("cpu")
    alone = estimate_training_memory(model, config, 0, "fp32", cpu)
    ddp, fsdp = (rank_memory(model, config, "fp32", cpu, 8, strategy) for strategy in ("ddp", "fsdp"))
    assert (ddp.weights, ddp.optimizer) == (alone.weights, alone.optimizer)
    assert ddp.activations < alone.activations
    assert fsdp.weights < ddp.weights
    assert fsdp.optimizer * 7 < ddp.optimizer
    total = sum(p.numel() for p in _decoder(model).parameters())
    assert step_traffic(model, config, "fp32", 8, "ddp", on_gpus=False) == {
        "all_reduce_gradients": 2 * 7 * 4 * total // 8}
    on_gpus = step_traffic(model, config, "fp32", 8, "fsdp", on_gpus=True)
    assert sum(on_gpus.values()) > 2 * 7 * 4 * total // 8
    # Gloo has no reduce-scatter.
    assert sum(step_traffic(model, config, "fp32", 8, "fsdp", on_gpus=False).values()) == pytest.approx(
        sum(on_gpus.values()) + on_gpus["reduce_scatter_gradients"], abs=2)


def test_ranks_of_one_machine_must_fit_into_it_together(monkeypatch):
    model, config = small_plan()
    cpu = torch.device("cpu")
    one = rank_memory(model, config, "fp32", cpu, 8, "ddp").total
    process = least_rank_bytes()
    assert process > 50e6, "Python and PyTorch"
    free = 3 * (one + process)
    monkeypatch.setattr("tickwise.training.distributed.traffic.memory_bytes", lambda: (2 * free, free))
    assert one < estimate_training_memory(model, config, 0, "fp32", cpu).total
    check_ranks_fit(model, config, "fp32", cpu, 8, 3)
    with pytest.raises(MemoryLimitError, match="out of memory: 4 ranks on this machine need about"):
        check_ranks_fit(model, config, "fp32", cpu, 8, 4)
    check_ranks_fit(model, config, "fp32", torch.device("cuda"), 8, 8)


def test_more_processes_than_the_memory_holds_are_refused_before_anything_else(tickwise_cli, tmp_path, monkeypatch):
    """The text is not even looked for."""
    monkeypatch.setattr("tickwise.training.distributed.launch.memory_bytes", lambda: (10**9, 3 * least_rank_bytes()))
    code, out, err = tickwise_cli("train", tmp_path / "no.txt", "--ranks", 4, "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert "out of memory: 4 ranks on this machine need" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = tickwise_cli("train", tmp_path / "no.txt", "--ranks", 3, "--out", tmp_path / "run")
    assert "no.txt" in err


def test_a_dry_run_says_that_the_ranks_would_not_fit(tickwise_cli, small_text, tmp_path, monkeypatch):
    monkeypatch.setattr("tickwise.profiling.reference.process_bytes", lambda name, function: 10**8)
    monkeypatch.setattr("tickwise.training.distributed.traffic.memory_bytes", lambda: (10**9, 3 * least_rank_bytes()))
    words = ("train", small_text, *FLAGS, "--dtype", "fp32", "--device", "cpu", "--dry-run", "--ranks")
    code, out, err = tickwise_cli(*words, 4)
    assert code == 0, err
    assert "this machine would refuse it: out of memory: 4 ranks on this machine need about" in out
    assert json.loads(tickwise_cli(*words, 2, "--json")[1])["refused"] is None


@pytest.mark.parametrize(("words", "flag"), [
    (("--rendezvous", "a:29500"), "--rendezvous"), (("--restarts", "1"), "--restarts"),
    (("--parallel.strategy", "fsdp"), "--parallel.strategy fsdp"),
])
def test_flags_that_one_process_would_ignore_are_refused(tickwise_cli, tmp_path, words, flag):
    code, out, err = tickwise_cli("train", tmp_path / "no.txt", "--out", tmp_path / "run", *words)
    assert (code, out) == (2, "")
    assert err == (f"tickwise: {flag}: means nothing to one process; give --ranks, or --nodes and --ranks-per-node, "
                   "or leave it out\n")


def test_a_death_tells_how_many_restarts_are_left(capsys):
    deaths = _Deaths(2)
    for code in (-9, 2, -9):
        deaths.emit(logging.LogRecord("", logging.ERROR, "", 0, "failed (exitcode: %s) local_rank: %s (pid: %s)",
                                      (code, 1, 77), None))
    _Deaths(1).emit(logging.LogRecord("", logging.ERROR, "", 0, "failed (exitcode: %s) local_rank: %s (pid: %s)",
                                      (-40, 0, 78), None))
    *said, unnamed = capsys.readouterr().err.splitlines()
    assert unnamed.startswith("local rank 0 (process 78) was killed (signal 40); ")
    assert said == [
        "local rank 1 (process 77) was killed (SIGKILL); all ranks start again from the last checkpoint; of 2 restarts "
        "1 are left",
        "all ranks start again from the last checkpoint; of 2 restarts 0 are left"]


def _decoder(model):
    from tickwise.models.decoder import Decoder

    return Decoder(model)


def test_activation_checkpointing_changes_no_number_and_saves_memory(small_text, tmp_path):
    import tickwise

    common = TINY | {"dtype": "fp32", "max_steps": 4, "model": ModelOptions(width=32, n_heads=2, dropout=0.1)}
    for name, saves in (("plain", False), ("saving", True)):
        tickwise.train(TrainConfig(data=small_text, out=tmp_path / name, checkpoint_activations=saves, **common))
    assert losses(tmp_path / "saving") == losses(tmp_path / "plain")
    model, config = small_plan()
    saving = dataclasses.replace(config, checkpoint_activations=True)
    cpu = torch.device("cpu")
    assert (estimate_training_memory(model, saving, 0, "fp32", cpu).activations
            < estimate_training_memory(model, config, 0, "fp32", cpu).activations)


def test_options_of_ranks_are_checked():
    with pytest.raises(ConfigError, match="timeout"):
        LoopConfig(parallel=ParallelOptions(timeout_seconds=0.0))
    assert os.environ.get("TORCHELASTIC_RUN_ID") is None


@pytest.mark.slow
def test_ray_starts_the_ranks(small_text, tmp_path):
    pytest.importorskip("ray.train", reason="Ray is not installed: pip install tickwise[distributed]")
    program = tmp_path / "program.py"
    program.write_text(f"""
import ray, ray.train
from ray.train.torch import TorchTrainer

def train_rank(settings):
    import tickwise
    tickwise.train(tickwise.TrainConfig(**settings, resume="auto"))

ray.init(num_cpus=2, include_dashboard=False)
settings = dict(data={str(small_text)!r}, out={str(tmp_path / "run")!r}, tokenizer="char", depth=1, context=16,
                batch_size=8, max_steps=5, log_every=1, device="cpu", dtype="fp32", compile="off")
TorchTrainer(train_rank, train_loop_config=settings, scaling_config=ray.train.ScalingConfig(num_workers=2),
             run_config=ray.train.RunConfig(storage_path={str(tmp_path / "store")!r})).fit()
""")
    # Ray's workers are nice to whoever else computes here, and this test waits for them.
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False,
                          env=os.environ | {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2, 3, 4, 5]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["ranks"] == 2
