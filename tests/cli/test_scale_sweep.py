"""tickwise scale sweep: killed with SIGKILL it goes on; a dry run tells what it would do."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pyarrow.parquet
import pytest


def words(text, out, *more):
    return [str(word) for word in (
        "scale", "sweep", text, "--out", out, "--tokenizer", "char", "--context", 16, "--sizes", "1x16",
        "--device", "cpu", "--dtype", "fp32", "--evaluate-tokens", 500, *more)]


def wait_for(condition):
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_a_killed_sweep_goes_on_and_no_finished_trial_runs_again(small_text, tmp_path, tickwise_cli):
    out = tmp_path / "sweep"
    command = words(small_text, out, "--tokens", 500, 60_000, "--scheduler", "local", "--workers", 1)
    process = subprocess.Popen([sys.executable, "-m", "tickwise", *command], stderr=subprocess.DEVNULL)
    first, second = out / "trials" / "d500-1x16", out / "trials" / "d6e04-1x16"
    try:
        wait_for(lambda: (first / "result.json").exists() and (second / "run" / "metrics.jsonl").exists())
        children = psutil.Process(process.pid).children()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "a trial dies with its sweep"
    assert not (second / "result.json").exists()
    before = (first / "result.json").read_text(), (first / "result.json").stat().st_mtime_ns
    code, shown, err = tickwise_cli(*command, "--json")
    assert code == 0, err
    assert ((first / "result.json").read_text(), (first / "result.json").stat().st_mtime_ns) == before
    assert "1 of 2 trials are over already" in err
    rows = pyarrow.parquet.read_table(out / "runs.parquet").to_pylist()
    assert [row["loss"] for row in rows] == [trial["loss"] for trial in json.loads(shown)["trials"]]
    assert all(row["status"] == "done" and 0 < row["loss"] < 4 for row in rows)


def test_a_dry_run_lists_trials_flops_seconds_and_their_sum(small_text, tmp_path, tickwise_cli):
    dry = words(small_text, tmp_path / "sweep", "--flops", 1e9, 1e10, "--dry-run", "--hardware", "h100")
    dry[dry.index("1x16") : dry.index("1x16") + 1] = ["1x16", "1x32"]
    before = os.environ.get("OMP_NUM_THREADS")
    code, out, err = tickwise_cli(*dry, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert len(found["trials"]) == 4
    assert found["sum"]["flops"] == sum(row["flops"] for row in found["trials"])
    assert found["sum"]["decades_of_compute"] == pytest.approx(1, abs=0.05)
    seconds = [row["predicted_seconds"] for row in found["trials"]]
    assert found["sum"]["predicted_seconds"] == pytest.approx(sum(seconds))
    assert all(value > 0 for value in seconds)
    assert os.environ.get("OMP_NUM_THREADS") == before
    code, out, _ = tickwise_cli(*dry)
    assert code == 0
    assert "4 trials" in out
    assert "1.00 decades" in out
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(("more", "message"), [
    ((), "give budgets: --flops"), (("--flops", 1e9, "--model.width", 64), "--model.width: --sizes says"),
    (("--flops", 1e9, "--workers", 0), "--workers: must be at least 1"),
    (("--flops", 1e9, "--gpus", 1, "--scheduler", "local"), "--gpus: only Ray"),
    (("--flops", 1e9, "--law", "no.json"), "no.json: the fitted law is missing"),
    (("--flops", 1e9, "--sizes", "big"), "'big' is not DEPTHxWIDTH"),
])
def test_it_refuses_in_one_line(small_text, tmp_path, tickwise_cli, more, message):
    code, out, err = tickwise_cli(*words(small_text, tmp_path / "sweep", *more), "-q")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "sweep").exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is here")
def test_reserved_gpus_need_ray(small_text, tmp_path, tickwise_cli):
    code, _, err = tickwise_cli(*words(small_text, tmp_path / "sweep", "--flops", 1e9, "--gpus", 1))
    assert code == 2
    assert "pip install" in err
    assert "ray" in err


def test_ray_runs_the_same_trials(small_text, tmp_path, tickwise_cli):
    pytest.importorskip("ray")
    code, _, err = tickwise_cli(*words(small_text, tmp_path / "sweep", "--tokens", 1_000, "--scheduler", "ray",
                                       "--workers", 1))
    assert code == 0, err
    assert len(pyarrow.parquet.read_table(tmp_path / "sweep" / "runs.parquet")) == 1


def test_a_sweep_by_ray_that_is_terminated_says_one_line_and_leaves_nobody(small_text, tmp_path):
    pytest.importorskip("ray")
    out = tmp_path / "sweep"
    process = subprocess.Popen(
        [sys.executable, "-m", "tickwise", *words(small_text, out, "--tokens", 1e7, "--scheduler", "ray")],
        stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(out.glob("trials/*/run")) or process.poll() is not None)
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err.splitlines()[-1] == "tickwise: terminated"
    assert "SIGTERM received" not in err
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
