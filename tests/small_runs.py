"""Training runs of a second, and what they wrote."""

import json

from tickwise.training.config import ModelOptions

TINY = {"tokenizer": "char", "depth": 2, "context": 16, "batch_size": 8, "log_every": 1, "evaluate_every": 10,
        "model": ModelOptions(width=32, n_heads=2), "device": "cpu"}
# Compiling takes longer than these runs.
FLAGS = ["--tokenizer", "char", "--depth", "2", "--context", "16", "--batch-size", "8", "--log-every", "1",
         "--evaluate-every", "10", "--model.width", "32", "--model.n-heads", "2", "--device", "cpu"]


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out):
    return {row["step"]: (row["loss"], row.get("validation_loss")) for row in metrics(out)}
