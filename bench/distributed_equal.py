"""Several ranks against one process: the same losses, a killed rank, a checkpoint carried between numbers of ranks.

Prints one JSON object: the largest difference of any step's loss and that of the last one, of DDP and of FSDP2 on two
ranks, from one process that takes each batch whole; of Muon, whose bf16 products amplify the order of sums, from one
process that takes it in the same two micro-batches; of a run one of whose ranks is killed with ``kill -9``, from the
undisturbed run; and whether weights and optimizer state are the same numbers after 2 ranks → 1 → 4.

    python bench/distributed_equal.py --out out/distributed
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

STEPS, EVERY, BATCH = 50, 10, 8
FLAGS = ["--tokenizer", "char", "--depth", "2", "--context", "32", "--batch-size", str(BATCH), "--model.width", "64",
         "--model.n-heads", "2", "--max-steps", str(STEPS), "--checkpoint-every", str(EVERY), "--log-every", "1",
         "--evaluate-every", "25", "--device", "cpu", "--dtype", "fp32", "--compile", "off", "--quiet"]


def write_text(path: Path) -> None:
    """Sentences of a small grammar."""
    chooser = random.Random(7)
    nouns, verbs = ["cat", "dog", "bird", "horse", "fish"], ["sees", "likes", "hears", "follows"]
    path.write_text("".join(f"the {chooser.choice(nouns)} {chooser.choice(verbs)} the {chooser.choice(nouns)}.\n"
                            for _ in range(2500)), encoding="utf-8")


def command(text: Path, out: Path, *extra: str) -> list[str]:
    return [sys.executable, "-m", "tickwise", "train", str(text), "--out", str(out), "--overwrite", *FLAGS, *extra]


def losses(out: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1)), "every step is there once"
    return {row["step"]: row["loss"] for row in rows}


def difference(one: Path, other: Path) -> dict[str, float]:
    a, b = losses(one), losses(other)
    return {"largest": max(abs(a[step] - b[step]) for step in a), "last": abs(a[STEPS] - b[STEPS])}


def train_and_kill(text: Path, out: Path, after: int, *extra: str) -> dict[str, int]:
    """Kill the second rank when ``after`` steps are logged; returns how many were by then, and with which checkpoint
    the ranks went on: the last one."""
    told = [word for word in command(text, out, *extra) if word != "--quiet"]
    launcher = subprocess.Popen(told, stderr=subprocess.PIPE, text=True)
    log = out / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= after):
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.05)
    os.kill(rank_process(launcher.pid, 1), signal.SIGKILL)
    done = log.read_text().count("\n")
    _, said = launcher.communicate(timeout=900)
    assert launcher.returncode == 0, said
    resumed = [int(number) for number in re.findall(r"resumed from \S+step-(\d+)", said)]
    assert len(resumed) == 1, said
    assert (done - 1) // EVERY * EVERY <= resumed[0] <= done, "the last checkpoint that was whole"
    return {"after_steps": done, "resumed_from_step": resumed[0]}


def rank_process(launcher: int, rank: int) -> int:
    """The process of a rank that ``launcher`` started."""
    import psutil

    for process in psutil.Process(launcher).children():
        if process.environ().get("RANK") == str(rank):
            return process.pid
    raise AssertionError(f"rank {rank} is not running")


def carry(text: Path, source: Path, out: Path, strategy: str) -> None:
    """Load a checkpoint and write it again; run by one process, or by each rank."""
    from tickwise.training.checkpoint import save_checkpoint
    from tickwise.training.config import ModelOptions, OptimizerOptions, ParallelOptions, TrainConfig
    from tickwise.training.distributed.join import join_ranks, spread
    from tickwise.training.run import build, open_data, plan

    config = TrainConfig(data=text, out=out, tokenizer="char", depth=2, context=32, batch_size=BATCH, max_steps=STEPS,
                         model=ModelOptions(width=64, n_heads=2), device="cpu", dtype="fp32",
                         optimizer=OptimizerOptions(name=source_optimizer(source)),
                         parallel=ParallelOptions(strategy=strategy))  # type: ignore[arg-type]
    data = open_data(config)
    training = build(plan(config, data), data)
    training.config = replace(training.config, out=out)
    training.parallel = join_ranks(training, None)
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    spread(training, source)
    save_checkpoint(training)
    training.parallel.leave()


def source_optimizer(checkpoint: Path) -> str:
    return str(json.loads((checkpoint / "training.json").read_text())["run"]["config"]["optimizer"]["name"])


def whole_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's shards, put together by the offsets in their headers."""
    pieces: dict[str, list[tuple[int, Tensor]]] = {}
    for path in sorted((checkpoint / "shards").glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            offsets = json.loads(file.metadata()["DCP_SHARDING_INFO"])
            for name in file.keys():  # noqa: SIM118
                pieces.setdefault(name, []).append((offsets[name]["saved_offsets"][0], file.get_tensor(name)))
    return {name: torch.cat([piece for _, piece in sorted(found, key=lambda one: one[0])])
            for name, found in pieces.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("out/distributed"))
    parser.add_argument("--carry", nargs=4, metavar=("TEXT", "CHECKPOINT", "OUT", "STRATEGY"))
    arguments = parser.parse_args()
    if arguments.carry:
        text, source, to, strategy = arguments.carry
        carry(Path(text), Path(source), Path(to), strategy)
        return
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    text = out / "text.txt"
    write_text(text)
    adamw, ranks = ["--optimizer.name", "adamw"], ["--ranks", "2"]
    for name, extra in {
        "one": adamw, "ddp": [*adamw, *ranks], "fsdp": [*adamw, *ranks, "--parallel.strategy", "fsdp"],
        "muon_one": ["--accumulate", "2"], "muon_ddp": ranks,
        "muon_fsdp": [*ranks, "--parallel.strategy", "fsdp"],
    }.items():
        subprocess.run(command(text, out / name, *extra), check=True)
    killed = train_and_kill(text, out / "killed", STEPS // 2, *adamw, *ranks)
    found = {
        "ddp": difference(out / "one", out / "ddp"), "fsdp": difference(out / "one", out / "fsdp"),
        "muon_ddp": difference(out / "muon_one", out / "muon_ddp"),
        "muon_fsdp": difference(out / "muon_one", out / "muon_fsdp"),
        "killed": difference(out / "ddp", out / "killed") | killed,
    }
    this, torchrun = str(Path(__file__)), ["-m", "torch.distributed.run", "--nproc-per-node", "4", "--rdzv-backend",
                                           "c10d", "--rdzv-endpoint", "localhost:0"]
    for name in ("fsdp", "muon_fsdp"):
        first = out / name / "checkpoints" / f"step-{STEPS}"
        alone, four = out / f"{name}_1", out / f"{name}_4"
        subprocess.run([sys.executable, this, "--carry", str(text), str(first), str(alone), "ddp"], check=True)
        second = alone / "checkpoints" / f"step-{STEPS}"
        subprocess.run([sys.executable, *torchrun, this, "--carry", str(text), str(second), str(four), "fsdp"],
                       check=True)
        a, b = whole_tensors(first), whole_tensors(four / "checkpoints" / f"step-{STEPS}")
        assert not (second / "shards").exists(), "one process writes whole tensors"
        same = a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        found[f"{name}_checkpoint_2_1_4"] = {"tensors": len(a), "identical": same,
                                             "numbers": sum(t.numel() for t in a.values())}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
