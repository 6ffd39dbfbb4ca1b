"""Runs that are broken off, and go on where they were: bit for bit, or with a line that says why not."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import tickwise
from small_runs import FLAGS, TINY, losses, metrics
from tickwise.core.errors import CheckpointError, OutputError
from tickwise.interop.directory import load_model, read_tensors
from tickwise.training.config import ModelOptions, OptimizerOptions, TrainConfig


def state(out, step):
    """Everything a checkpoint holds besides the weights: tensors as bytes, counters without the clock, cursor."""
    folder = out / "checkpoints" / f"step-{step}"
    tensors = {name: t.numpy().tobytes() for name, t in read_tensors(folder / "training.safetensors").items()}
    counters = json.loads((folder / "training.json").read_text())
    del counters["counters"]["seconds"]
    return tensors, counters["counters"], counters["cursor"]


@pytest.mark.parametrize("extra", [
    {},
    {"dtype": "bf16", "ema_decay": 0.9, "accumulate": 2},
    {"ema_decay": 0.9},
    {"model": ModelOptions(width=32, n_heads=2, architecture="gpt2", bias=False)},
    {"optimizer": OptimizerOptions(name="adamw"), "model": ModelOptions(width=32, n_heads=2, dropout=0.1)},
    {"optimizer": OptimizerOptions(name="sgd"), "model": ModelOptions(width=32, n_heads=2, architecture="gpt2")},
])
def test_resumed_losses_are_bit_identical(small_text, tmp_path, extra):
    common = TINY | {"dtype": "fp32"} | extra
    straight = TrainConfig(data=small_text, out=tmp_path / "straight", max_steps=40, checkpoint_every=15, **common)
    tickwise.train(straight)

    class PowerCutError(Exception):
        pass

    import tickwise.training.loop as loop

    original, calls = loop.update, []

    def update(*arguments):
        calls.append(1)
        if len(calls) == 34:
            raise PowerCutError
        return original(*arguments)

    broken = TrainConfig(data=small_text, out=tmp_path / "broken", max_steps=40, checkpoint_every=15, resume="auto",
                         **common)
    loop.update = update
    try:
        with pytest.raises(PowerCutError):
            tickwise.train(broken)
    finally:
        loop.update = original
    assert metrics(tmp_path / "broken")[-1]["step"] == 33
    torch.manual_seed(123)  # whatever happened in between must not matter
    tickwise.train(broken)
    assert losses(tmp_path / "broken") == losses(tmp_path / "straight")
    for one, other in zip(state(tmp_path / "straight", 40), state(tmp_path / "broken", 40), strict=True):
        assert one == other
    a, _ = load_model(tmp_path / "straight", device="cpu")
    b, _ = load_model(tmp_path / "broken", device="cpu")
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_kill_minus_nine_then_resume_is_bit_identical(small_text, tmp_path):
    def command(out, *extra):
        return [sys.executable, "-m", "tickwise", "train", str(small_text), "--out", str(out), *FLAGS,
                "--max-steps", "500", "--checkpoint-every", "20", "--compile", "off", *extra]

    subprocess.run(command(tmp_path / "straight"), check=True, capture_output=True)
    process = subprocess.Popen(command(tmp_path / "killed"), stderr=subprocess.DEVNULL)
    log = tmp_path / "killed" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") > 50):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = log.read_text().count("\n")
    assert 50 < killed_at < 500
    subprocess.run(command(tmp_path / "killed", "--resume", "auto"), check=True, capture_output=True)
    assert losses(tmp_path / "killed") == losses(tmp_path / "straight")


def test_interrupt_saves_and_says_how_to_go_on(small_text, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tickwise", "train", str(small_text), "--out", str(tmp_path / "run"), *FLAGS,
         "--max-steps", "100000", "--compile", "off"], stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") > 5):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume auto" in err
    assert "Traceback" not in err
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 1


def test_a_second_run_does_not_overwrite_the_first(small_text, tmp_path):
    config = TrainConfig(data=small_text, out=tmp_path / "run", max_steps=5, **TINY)
    tickwise.train(config)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(OutputError, match="--resume auto"):
        tickwise.train(config)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_resume_refuses_another_model_and_other_data(small_text, tmp_path):
    config = TrainConfig(data=small_text, out=tmp_path / "run", max_steps=5, resume="auto", **TINY)
    tickwise.train(config)
    wider = TINY | {"model": ModelOptions(width=64, n_heads=2)}
    with pytest.raises(CheckpointError, match=r"model\.width was 32, this run asks for 64"):
        tickwise.train(TrainConfig(data=small_text, out=tmp_path / "run", max_steps=9, resume="auto", **wider))
    other = tmp_path / "other.txt"
    other.write_text(small_text.read_text()[100:])
    with pytest.raises(CheckpointError, match="other data"):
        tickwise.train(TrainConfig(data=other, out=tmp_path / "run", max_steps=9, resume="auto", **TINY))


@pytest.mark.parametrize("name", ["training.json", "training.safetensors", "model.safetensors"])
@pytest.mark.parametrize("harm", ["missing", "truncated"])
def test_a_damaged_checkpoint_is_named(small_text, tmp_path, name, harm):
    config = TrainConfig(data=small_text, out=tmp_path / "run", max_steps=5, resume="auto", **TINY)
    tickwise.train(config)
    file = tmp_path / "run" / "checkpoints" / "step-5" / name
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        tickwise.train(TrainConfig(data=small_text, out=tmp_path / "run", max_steps=9, resume="auto", **TINY))


def test_more_steps_continue_a_finished_run(small_text, tmp_path):
    tickwise.train(TrainConfig(data=small_text, out=tmp_path / "run", max_steps=5, resume="auto", **TINY))
    result = tickwise.train(TrainConfig(data=small_text, out=tmp_path / "run", max_steps=9, resume="auto", **TINY))
    assert result.step == 9


def test_a_run_that_stopped_early_stays_stopped(small_text, tmp_path, capsys):
    config = TrainConfig(data=small_text, out=tmp_path / "run", max_steps=500, stop_at_loss=1.8, resume="auto", **TINY)
    first = tickwise.train(config)
    second = tickwise.train(config)
    assert (second.step, second.reason) == (first.step, first.reason)
    assert "had ended already" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_ends_in_one_line_with_the_checkpoint_before_intact(small_text, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        process = subprocess.run(
            [sys.executable, "-m", "tickwise", "train", str(small_text), "--out", str(disk / "run"), *FLAGS,
             "--model.width", "64", "--max-steps", "400", "--checkpoint-every", "5", "--keep-checkpoints", "90"],
            capture_output=True, text=True, check=False)
        assert process.returncode == 2
        assert "no space" in process.stderr.strip().splitlines()[-1]
        assert "Traceback" not in process.stderr
        steps = sorted((disk / "run" / "checkpoints").glob("step-*"), key=lambda p: int(p.name[5:]))
        load_model(steps[-1], device="cpu")
        assert not list((disk / "run").rglob("*.tmp-*"))
    finally:
        subprocess.run(["umount", str(disk)], check=False)
