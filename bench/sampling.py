"""How long choosing a token takes, per row: greedy, top-p, penalties and a grammar's mask.

    python bench/sampling.py [--rounds 200]

Random logits on the CPU, peaked (256 tokens hold 95 % of the probability, as after training) and flat (thousands do);
every case runs once per round, in turn, so that a slow spell of the machine meets all of them. Prints one line of
JSON: the median and the least microseconds per row of every case, at every vocabulary size and batch.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from typing import Any

import torch

import tokenizers
from tickwise.engine.sampling import TokenChooser, choose
from tickwise.engine.settings import GenerationSettings
from tickwise.tokenizers.tokenizer import Tokenizer, symbol_of_byte
from tokenizers import decoders, models

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
          "required": ["name", "age"], "additionalProperties": False}
STEEPNESS = {"peaked": 6.0, "flat": 3.0}
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {},
    "top_p": {"top_p": 0.95},
    "typical": {"typical_p": 0.9},
    "penalties": {"repetition_penalty": 1.1, "frequency_penalty": 0.2, "top_p": 0.95},
    "logprobs": {"temperature": 0.0, "logprobs": 5},
    "regex, greedy": {"temperature": 0.0, "regex": "[a-z ]*"},
    "json_schema, top_p": {"json_schema": SCHEMA, "top_p": 0.95},
}


def byte_level_tokenizer(n_vocab: int) -> Tokenizer:
    """Every byte, then runs of two and more letters until there are ``n_vocab`` tokens."""
    symbols, letters = symbol_of_byte(), "abcdefghijklmnopqrstuvwxyz"
    words = list(symbols)
    longer = list(letters)
    while len(words) < n_vocab - 1:
        longer = [word + letter for word in longer for letter in letters]
        words += longer[: n_vocab - 1 - len(words)]
    backend = tokenizers.Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return Tokenizer(backend, "bpe", {"eos_token": "<|endoftext|>"})


def measure(rounds: int, n_vocab: int, batch: int, steepness: float) -> dict[str, dict[str, float]]:
    """Median and least microseconds per row of each case."""
    tokenizer = byte_level_tokenizer(n_vocab)
    settings = {name: GenerationSettings(seed=0, **case) for name, case in CASES.items()}

    def new_rows(name: str) -> list[TokenChooser]:
        first = TokenChooser(settings[name], range(100, 200), tokenizer)
        return [first, *(first.fork(i) for i in range(1, batch))]

    rows = {name: new_rows(name) for name in CASES}
    generator = torch.Generator().manual_seed(0)
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds):
        logits_BV = torch.randn(batch, n_vocab, generator=generator) * steepness
        for name in CASES:
            if any(row.end is not None for row in rows[name]):
                rows[name] = new_rows(name)
            started = time.perf_counter()
            choose(logits_BV, rows[name])
            times[name].append((time.perf_counter() - started) / batch)
    return {name: {"median": round(1e6 * statistics.median(values), 1), "min": round(1e6 * min(values), 1)}
            for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    results = []
    for n_vocab, batch, logits in itertools.product((8192, 50_257), (1, 8), STEEPNESS):
        found = measure(rounds, n_vocab, batch, STEEPNESS[logits])
        results.append({"n_vocab": n_vocab, "batch": batch, "logits": logits, "us_per_row": found})
        print(f"vocabulary {n_vocab}, batch {batch}, {logits}: "
              + ", ".join(f"{name} {value['median']}" for name, value in found.items()), file=sys.stderr)
    print(json.dumps({"rounds": rounds, "threads": torch.get_num_threads(), "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
