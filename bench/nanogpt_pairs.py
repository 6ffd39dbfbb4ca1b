"""tickwise against nanoGPT on tiny Shakespeare, in interleaved pairs of whole processes.

Two figures for nanoGPT's own CPU setting (4 layers, 4 heads, 128 wide, context 64, batch 12, 2,000 steps):

- ``time``: wall time of the whole process until the validation loss that nanoGPT reaches. nanoGPT runs its 2,000
  iterations as its README says; tickwise runs ``recipes/tiny_shakespeare_fast.yaml`` and its loss is measured over
  the whole validation split at the end. A pair counts only if tickwise's loss is at most ``--target``.
- ``speed``: training tokens/s of the very same model and batch (nanoGPT's architecture, AdamW), medians over steps,
  in bf16 and in nanoGPT's own fp32.

Needs a checkout of nanoGPT whose ``data/shakespeare_char`` has been prepared. Prints one JSON line per figure.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NANOGPT = ("config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 "
           "--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --lr_decay_iters=2000 --dropout=0.0")
SAME_MODEL = ("--tokenizer char --depth 4 --context 64 --batch-size 12 --model.architecture gpt2 --model.width 128 "
              "--model.n-heads 4 --model.activation gelu --model.bias False --optimizer.name adamw "
              "--compile off --log-every 20")


def run(command: list[str], folder: Path) -> tuple[float, str]:
    """Wall seconds of the whole process, and what it printed."""
    environment = os.environ | {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return seconds, done.stdout + done.stderr


def nanogpt(folder: Path, out: Path, steps: int) -> dict[str, float]:
    """One run of nanoGPT: wall seconds, its last validation loss, median tokens/s."""
    flags = [*NANOGPT.split(), f"--max_iters={steps}", f"--out_dir={out}"]
    seconds, text = run([sys.executable, "train.py", *flags], folder)
    times = [float(ms) for ms in re.findall(r"iter \d+: loss [\d.]+, time ([\d.]+)ms", text)]
    losses = re.findall(r"step \d+: train loss [\d.]+, val loss ([\d.]+)", text)
    return {"seconds": seconds, "loss": float(losses[-1]), "tokens_per_s": 12 * 64 / statistics.median(times[5:]) * 1e3}


def tickwise(data: Path, out: Path, flags: list[str]) -> dict[str, float]:
    """One run of tickwise: wall seconds, last validation loss, median tokens/s."""
    shutil.rmtree(out, ignore_errors=True)
    seconds, _ = run([sys.executable, "-m", "tickwise", "train", str(data), "--out", str(out), *flags], ROOT)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {"seconds": seconds, "loss": rows[-1].get("validation_loss", float("nan")), "steps": rows[-1]["step"],
            "tokens_per_s": statistics.median(r["tokens_per_s"] for r in rows[1:])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", type=Path, required=True, help="checkout of nanoGPT")
    parser.add_argument("--data", type=Path, required=True, help="tiny Shakespeare's input.txt")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--target", type=float, default=1.8857)
    parser.add_argument("--only", choices=("time", "speed"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if arguments.only != "speed":
            recipe = ["--config", str(ROOT / "recipes" / "tiny_shakespeare_fast.yaml")]
            pairs = []
            for _ in range(arguments.pairs):
                theirs = nanogpt(arguments.nanogpt, work / "nano", 2000)
                ours = tickwise(arguments.data, work / "ours", recipe)
                pairs.append((theirs, ours))
                print(json.dumps({"nanogpt": theirs, "tickwise": ours}), file=sys.stderr, flush=True)
            print(json.dumps({"id": "foundation.1", "value": {
                "ratio": round(statistics.median(o["seconds"] / t["seconds"] for t, o in pairs), 4),
                "tickwise_s": round(statistics.median(o["seconds"] for _, o in pairs), 2),
                "nanogpt_s": round(statistics.median(t["seconds"] for t, _ in pairs), 2),
                "tickwise_worst_loss": round(max(o["loss"] for _, o in pairs), 4),
                "nanogpt_losses": [t["loss"] for t, _ in pairs],
            }, "met_target_loss": all(o["loss"] <= arguments.target for _, o in pairs)}))
        if arguments.only != "time":
            ratios: dict[str, list[float]] = {"bf16": [], "fp32": []}
            for _ in range(arguments.pairs):
                theirs = nanogpt(arguments.nanogpt, work / "nano", 250)
                for dtype, kept in ratios.items():
                    flags = [*SAME_MODEL.split(), "--dtype", dtype, "--max-steps", "300", "--evaluate-every", "300"]
                    ours = tickwise(arguments.data, work / "ours", flags)
                    kept.append(ours["tokens_per_s"] / theirs["tokens_per_s"])
                    print(json.dumps({"nanogpt": theirs, dtype: ours}), file=sys.stderr, flush=True)
            print(json.dumps({"id": "foundation.2", "value": {
                f"{dtype}_ratio": round(statistics.median(kept), 3) for dtype, kept in ratios.items()}}))


if __name__ == "__main__":
    main()
