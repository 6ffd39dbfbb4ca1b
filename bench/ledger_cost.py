"""What recording costs: tokens/s with the ledger on ÷ off, and the same with PyTorch's own profiler.

    python bench/ledger_cost.py [--rounds 8] [--tokens 400]

Two models write: 4 layers of width 256 and 2 layers of width 64, both with 8,192 tokens in the vocabulary. The ledger
listens to every other eight ticks of a text, so that a slow spell of the machine meets both kinds of tick; the
profiler, which cannot be switched so fast, to every other text. Ratios are of median tick times (``median``), and of
the times that a tenth of the ticks stay below, which other programs hardly touch (``undisturbed``).
``writing_us_per_tick`` comes after the last token: making rows and writing the trace.

Besides, on texts recorded from end to end, with a clock pair around every ``step`` that the ledger does not know: the
sum of each tick's rows ÷ its wall time, over all ticks. Prints one line of JSON per figure.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tickwise.core.console import QUIET, set_verbosity
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


def engine_with_text(module: Decoder, tokenizer: Tokenizer, tokens: int, ledger: TickListener | None = None) -> Engine:
    """An engine that has read a prompt and is about to write ``tokens`` more tokens."""
    engine = Engine(module, tokenizer, ledger=ledger)
    settings = GenerationSettings(max_tokens=tokens + 1, temperature=0.0, ignore_eos=True)
    engine.submit(Request(prompt=[(7 * i) % module.config.vocab_size for i in range(PROMPT_TOKENS)], settings=settings))
    engine.step()
    gc.collect()
    return engine


def tick_times(engine: Engine) -> list[int]:
    """Nanoseconds of every tick until the text is written."""
    times = []
    while not engine.idle:
        start = time.perf_counter_ns()
        engine.step()
        times.append(time.perf_counter_ns() - start)
    return times


def recorded_ticks(module: Decoder, tokenizer: Tokenizer, tokens: int, recorded: Callable[[int], bool]) -> "Recorded":
    """Write a text and record the ticks that ``recorded`` says yes to."""
    found = Recorded()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace"
        with record_trace(path, model="random", dtype=torch.float32, device=torch.device("cpu"),
                          costs=DecoderCosts(module, block_size=16)) as ledger:
            engine = engine_with_text(module, tokenizer, tokens)
            for tick in range(tokens):
                listens = recorded(tick)
                engine._ledger = ledger if listens else None  # no user may do this: a text is recorded or it is not
                start = time.perf_counter_ns()
                engine.step()
                (found.on if listens else found.off).append(time.perf_counter_ns() - start)
            before_writing = time.perf_counter()
        found.writing_s = time.perf_counter() - before_writing
        rows = open_trace(path).select("SELECT sum(duration_ns)::BIGINT AS ns FROM ledger GROUP BY tick ORDER BY tick")
    found.sums = [row["ns"] / wall for row, wall in zip(rows, found.on, strict=True)]
    return found


@dataclass
class Recorded:
    """Tick times in nanoseconds with and without the ledger, and each recorded tick's sum of rows ÷ its time."""

    on: list[int] = field(default_factory=list)
    off: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    writing_s: float = 0.0


def profiled(module: Decoder, tokenizer: Tokenizer, tokens: int) -> list[int]:
    engine = engine_with_text(module, tokenizer, tokens)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        return tick_times(engine)


def ratios(on: list[int], off: list[int]) -> dict[str, float]:
    """Tokens/s on ÷ off."""
    tenth = [sorted(times)[len(times) // 10] for times in (off, on)]
    return {"median": round(statistics.median(off) / statistics.median(on), 4),
            "undisturbed": round(tenth[0] / tenth[1], 4)}


def measure(shape: tuple[int, int, int], rounds: int, tokens: int, sums: list[float]) -> dict[str, Any]:
    """All figures of one model; appends to ``sums``."""
    module, tokenizer = make(*shape)
    recorded_ticks(module, tokenizer, 16, lambda tick: True)  # warms up
    runs = [recorded_ticks(module, tokenizer, tokens, lambda tick, number=number: tick // 8 % 2 == number % 2)
            for number in range(rounds)]
    on, off = ([t for run in runs for t in times(run)] for times in (lambda r: r.on, lambda r: r.off))
    for _ in range(max(1, rounds // 2)):
        sums += recorded_ticks(module, tokenizer, tokens, lambda tick: True).sums
    with_profiler: list[int] = []
    without: list[int] = []
    for _ in range(max(1, rounds // 4)):
        without += tick_times(engine_with_text(module, tokenizer, tokens))
        with_profiler += profiled(module, tokenizer, tokens)
    return {
        "tick_us_off": round(statistics.median(off) / 1e3, 1), "ledger": ratios(on, off),
        "writing_us_per_tick": round(statistics.median(r.writing_s / len(r.on) for r in runs) * 1e6, 1),
        "torch.profiler": ratios(with_profiler, without),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    set_verbosity(QUIET)
    sums: list[float] = []
    found = {}
    for name, shape in SHAPES.items():
        found[name] = measure(shape, arguments.rounds, arguments.tokens, sums)
        print(json.dumps({name: found[name]}), file=sys.stderr)
    within = sum(0.99 <= share <= 1.01 for share in sums) / len(sums)
    print(json.dumps({
        "id": "engine.1", "value": {"min": round(min(sums), 5), "median": round(statistics.median(sums), 5),
                                    "max": round(max(sums), 5)}, "unit": "rows ÷ wall",
        "bar": "0.99–1.01", "met": within == 1, "ticks": len(sums), "share_of_ticks_within": round(within, 5),
    }))  # fmt: skip
    worst = min(figures["ledger"]["median"] for figures in found.values())
    print(json.dumps({
        "id": "engine.2", "value": found, "unit": "tokens/s on ÷ off", "bar": 0.98, "met": worst >= 0.98,
        "rounds": arguments.rounds, "tokens": arguments.tokens, "threads": torch.get_num_threads(),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
