"""What recording costs: tokens/s with the ledger on ÷ off, and the same with PyTorch's own profiler.

    python bench/ledger_cost.py [--pairs 21] [--tokens 256]

Two models are measured: 4 layers of width 256 with 8,192 tokens in the vocabulary, and 2 layers of width 64. The ways
run in turn (off, ledger, off, profiler …) so that a slow spell of the machine meets all; a ratio is the median over
neighbours. ``with_writing`` counts the time to make rows and write the trace, too, which comes after the last token.
Besides, with a clock pair around every ``step`` that the ledger knows nothing of: the sum of each tick's rows ÷ its
wall time, smallest and largest over all ticks. Prints one line of JSON per figure.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from tickwise.engine.costs import DecoderCosts
from tickwise.engine.engine import Engine
from tickwise.engine.requests import Request
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.work import TickListener
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.recording import record_trace
from tickwise.profiling.trace_store import open_trace
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import char_tokenizer

SHAPES = {"depth 4, width 256, vocabulary 8192": (4, 256, 8192), "depth 2, width 64, vocabulary 8192": (2, 64, 8192)}
PROMPT_TOKENS = 16


def make(layers: int, width: int, vocab_size: int) -> tuple[Decoder, Tokenizer]:
    """A decoder with random weights and a tokenizer of as many characters."""
    config = DecoderConfig(
        vocab_size=vocab_size, context_length=1024, width=width, n_layers=layers, n_heads=width // 32,
        n_kv_heads=width // 32, head_dim=32, hidden=4 * width, tie_embeddings=True, qk_norm=True,
    )
    module = Decoder(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" not in name:
                parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
    letters = Counter(chr(0x4E00 + i) for i in range(vocab_size - 1))
    tokenizer = char_tokenizer(letters, vocab_size=None, end_of_text=True, unknown=False)
    assert tokenizer.vocab_size == vocab_size
    return module.requires_grad_(False).eval(), tokenizer


def write(module: Decoder, tokenizer: Tokenizer, tokens: int, ledger: TickListener | None) -> list[int]:
    """Write ``tokens`` tokens; returns the wall time of every tick in nanoseconds."""
    engine = Engine(module, tokenizer, ledger=ledger)
    settings = GenerationSettings(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    engine.submit(Request(prompt=[(7 * i) % module.config.vocab_size for i in range(PROMPT_TOKENS)], settings=settings))
    walls = []
    while not engine.idle:
        start = time.perf_counter_ns()
        engine.step()
        walls.append(time.perf_counter_ns() - start)
    return walls


def plain(module: Decoder, tokenizer: Tokenizer, tokens: int) -> tuple[float, float]:
    """Tokens/s while writing, and in all."""
    seconds = sum(write(module, tokenizer, tokens, None)) * 1e-9
    return tokens / seconds, tokens / seconds


def profiled(module: Decoder, tokenizer: Tokenizer, tokens: int) -> tuple[float, float]:
    start = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        seconds = sum(write(module, tokenizer, tokens, None)) * 1e-9
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(str(Path(folder) / "trace.json"))
    return tokens / seconds, tokens / (time.perf_counter() - start)


def recorded(module: Decoder, tokenizer: Tokenizer, tokens: int, sums: list[float]) -> tuple[float, float]:
    """Appends each tick's sum of rows ÷ wall time to ``sums``."""
    costs = DecoderCosts(module, block_size=16)
    with tempfile.TemporaryDirectory() as folder:
        with record_trace(Path(folder) / "trace", model="random", dtype=torch.float32, device=torch.device("cpu"),
                          costs=costs) as ledger:
            start = time.perf_counter()
            walls = write(module, tokenizer, tokens, ledger)
        total = time.perf_counter() - start
        rows = open_trace(Path(folder) / "trace").select(
            "SELECT sum(duration_ns)::BIGINT AS ns FROM ledger GROUP BY tick ORDER BY tick")
    sums += [row["ns"] / wall for row, wall in zip(rows, walls, strict=True)]
    return tokens / (sum(walls) * 1e-9), tokens / total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--profiler-pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    sums: list[float] = []
    found: dict[str, dict[str, float]] = {}
    for name, shape in SHAPES.items():
        module, tokenizer = make(*shape)
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            "ledger": lambda m=module, t=tokenizer: recorded(m, t, arguments.tokens, sums),
            "torch.profiler": lambda m=module, t=tokenizer: profiled(m, t, arguments.tokens),
        }
        off = lambda m=module, t=tokenizer: plain(m, t, arguments.tokens)  # noqa: E731
        off()
        ways["ledger"]()
        ratios: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        rates = []
        for pair in range(arguments.pairs):
            for way, run in ways.items():
                if way == "torch.profiler" and pair >= arguments.profiler_pairs:
                    continue
                # Off before and after: the mean of both is what the machine did meanwhile.
                before, on, after = off(), run(), off()
                base = (before[0] + after[0]) / 2
                rates.append(base)
                ratios[way].append((on[0] / base, on[1] / base))
        found[name] = {"tokens_per_s_off": round(statistics.median(rates), 1)}
        for way, measured in ratios.items():
            found[name][way] = round(statistics.median(r[0] for r in measured), 4)
            found[name][f"{way}, with writing"] = round(statistics.median(r[1] for r in measured), 4)
        print(json.dumps({name: found[name]}), file=sys.stderr)
    print(json.dumps({
        "id": "engine.1", "value": {"min": round(min(sums), 5), "max": round(max(sums), 5)}, "unit": "rows ÷ wall",
        "bar": "0.99–1.01", "met": min(sums) >= 0.99 and max(sums) <= 1.01, "ticks": len(sums),
    }))  # fmt: skip
    worst = min(figures["ledger"] for figures in found.values())
    print(json.dumps({"id": "engine.2", "value": found, "unit": "tokens/s on ÷ off", "bar": 0.98, "met": worst >= 0.98,
                      "pairs": arguments.pairs, "tokens": arguments.tokens, "threads": torch.get_num_threads()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
