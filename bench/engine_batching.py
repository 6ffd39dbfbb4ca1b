"""What batching, shared prefixes, cancellation and speculation in the engine bring, and that they change no token.

    python bench/engine_batching.py [MODEL --text FILE] [--only engine.7] [--pairs 7] [--tokens 100]

MODEL is a model directory; prompts are pieces of FILE. Without them, a randomly initialised decoder reads random
tokens. Ways that are compared run in turn (A B A B …), so that a slow
spell of the machine meets both; ratios are of medians. Prints one line of JSON per figure:

engine.6       time to first token with a 90 % shared prefix ÷ cold
engine.7       tokens/s of 8 requests at once ÷ one after the other, same tokens
engine.8       ticks after which a cancelled request's slot is free
engine.9       share of greedy texts equal to the plain loop's, with batching, pieces of prompts, prefix cache, guesses
engine.single  tokens/s of one request through the engine ÷ the plain loop
engine.guess   tokens/s of one request with guesses from its own text ÷ without
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tickwise.engine.engine import Engine
from tickwise.engine.language_model import LanguageModel, load
from tickwise.engine.options import EngineOptions
from tickwise.engine.plain import write_plainly
from tickwise.engine.requests import Generation, Request, WrittenText
from tickwise.engine.sampling import TokenChooser
from tickwise.engine.settings import GenerationSettings
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.tokenizers.train import char_tokenizer

ROWS = 8


def random_model(context: int = 1024) -> LanguageModel:
    """Depth 4, width 256, 8192 tokens; all weights are drawn, so that tokens depend on the text."""
    vocabulary = Counter({chr(0x4E00 + i): 1 for i in range(8191)})
    tokenizer = char_tokenizer(vocabulary, vocab_size=None, end_of_text=True, unknown=False)
    module = Decoder(DecoderConfig(
        vocab_size=tokenizer.vocab_size, context_length=context, width=256, n_layers=4, n_heads=4, n_kv_heads=4,
        head_dim=64, hidden=704, qk_norm=True,
    ))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
    return LanguageModel(module.requires_grad_(False), tokenizer)


def greedy(tokens: int) -> GenerationSettings:
    return GenerationSettings(max_tokens=tokens, temperature=0.0, ignore_eos=True, seed=0)


def finished(engine: Engine) -> dict[str, Generation]:
    return {e.request_id: e for e in engine.run_until_idle() if isinstance(e, Generation)}


def plainly(model: LanguageModel, prompt: list[int], tokens: int) -> list[int]:
    chooser = TokenChooser(greedy(tokens), prompt, model.tokenizer)
    return list(itertools.islice(write_plainly(model.module, prompt, chooser), tokens))


def alternate(pairs: int, *ways: Callable[[], float]) -> list[list[float]]:
    """Figures of each way, taken in turn; each way runs once before."""
    for way in ways:
        way()
    figures: list[list[float]] = [[] for _ in ways]
    for _ in range(pairs):
        for way, found in zip(ways, figures, strict=True):
            found.append(way())
    return figures


def spread(figures: list[float], digits: int = 1) -> dict[str, float]:
    return {"median": round(statistics.median(figures), digits), "min": round(min(figures), digits),
            "max": round(max(figures), digits)}


def shared_prefix(model: LanguageModel, ids: list[int], pairs: int, tokens: int) -> dict[str, Any]:
    """A new engine per pair: the cold request fills the cache that the warm one finds. No prompt can be read in less
    than the tick of one token takes, which is beside it."""
    length = model.config.context_length - 16
    prompts = itertools.cycle(range(0, len(ids) - length - ROWS * 64, 64))

    def once() -> tuple[float, float, float, int]:
        engine = Engine(model.module, model.tokenizer, options=EngineOptions(tick_tokens=length))
        start = next(prompts)
        cold = ids[start : start + length]
        kept = length * 9 // 10
        warm = cold[:kept] + ids[start + length : start + 2 * length - kept]
        times = []
        for prompt in (cold, warm):
            engine.submit(Request(prompt=prompt, settings=greedy(2)))
            (done,) = finished(engine).values()
            assert done.timings.time_to_first_token_s is not None
            times.append(done.timings.time_to_first_token_s)
        return times[0], times[1], done.timings.decode_s, done.cached_tokens

    once()
    found = [once() for _ in range(pairs)]
    cold, warm, one_token = ([1000 * f[way] for f in found] for way in range(3))
    ratio = statistics.median(warm) / statistics.median(cold)
    return {"id": "engine.6", "value": round(ratio, 4), "bar": 0.2, "met": ratio <= 0.2, "unit": "warm ÷ cold",
            "cold_ms": spread(cold), "warm_ms": spread(warm), "one_token_ms": spread(one_token),
            "prompt_tokens": length, "cached_tokens": found[0][3]}


def concurrent(model: LanguageModel, ids: list[int], pairs: int, tokens: int) -> dict[str, Any]:
    prompts = [ids[64 * i : 64 * i + 32] for i in range(ROWS)]
    written: dict[str, list[tuple[int, ...]]] = {}

    def rate(at_once: bool) -> float:
        engine = Engine(model.module, model.tokenizer, options=EngineOptions(max_rows=ROWS, prefix_cache=False))
        started = time.perf_counter()
        done: dict[str, Generation] = {}
        for i, prompt in enumerate(prompts):
            engine.submit(Request(prompt=prompt, settings=greedy(tokens), id=str(i)))
            if not at_once:
                done.update(finished(engine))
        done.update(finished(engine))
        seconds = time.perf_counter() - started
        written[str(at_once)] = [done[str(i)].token_ids for i in range(ROWS)]
        return ROWS * tokens / seconds

    together, alone = alternate(pairs, lambda: rate(True), lambda: rate(False))
    ratio = statistics.median(together) / statistics.median(alone)
    return {"id": "engine.7", "value": round(ratio, 2), "bar": 3, "met": ratio >= 3, "unit": "× tokens/s",
            "together_tokens_per_s": spread(together), "alone_tokens_per_s": spread(alone), "requests": ROWS,
            "tokens": tokens, "same_outputs": written["True"] == written["False"]}


def cancelled(model: LanguageModel, ids: list[int], pairs: int, tokens: int) -> dict[str, Any]:
    worst = 0
    for _ in range(pairs):
        engine = Engine(model.module, model.tokenizer, options=EngineOptions(max_rows=1))
        engine.submit(Request(prompt=ids[:32], settings=greedy(tokens), id="first"))
        engine.submit(Request(prompt=ids[32:64], settings=greedy(1), id="next"))
        engine.step()
        engine.cancel("first")
        ticks = 0
        while [r.id for r in engine.scheduler.running] == ["first"]:
            engine.step()
            ticks += 1
        engine.scheduler.check()
        worst = max(worst, ticks)
    return {"id": "engine.8", "value": worst, "bar": 1, "met": worst <= 1, "unit": "ticks"}


def identical(model: LanguageModel, ids: list[int], pairs: int, tokens: int) -> dict[str, Any]:
    """Two rounds of requests with shared beginnings, so that the second one finds stored prefixes."""
    context = model.config.context_length
    lengths = (5, 17, 32, 50, 64, 100, 111, 130)
    prompts = [ids[256 * i : 256 * i + n] for i, n in enumerate(lengths)]
    prompts += [prompt[: len(prompt) * 3 // 4] + ids[7 + i : 12 + i] for i, prompt in enumerate(prompts)]
    prompts = [prompt[: context - 8] for prompt in prompts]
    engine = Engine(model.module, model.tokenizer, options=EngineOptions(
        max_rows=ROWS, tick_tokens=48, speculate="lookup", n_blocks=3 * -(-context // 16)))
    written: dict[int, list[int]] = {}
    cached = 0
    for first in (0, ROWS):
        for i in range(first, first + ROWS):
            engine.submit(Request(prompt=prompts[i], settings=greedy(tokens), past_context="slide", id=str(i)))
        for name, done in finished(engine).items():
            written[int(name)] = list(done.token_ids)
            cached += done.cached_tokens
    engine.scheduler.check()
    same = [written[i] == plainly(model, prompt, tokens) for i, prompt in enumerate(prompts)]
    return {"id": "engine.9", "value": sum(same) / len(same), "bar": 1, "met": all(same), "unit": "share of texts",
            "texts": len(same), "tokens_each": tokens, "cached_tokens": cached,
            "preempted": engine.scheduler.n_preempted}


def single(model: LanguageModel, ids: list[int], pairs: int, tokens: int) -> dict[str, Any]:
    """Token by token in turn, each way first every other time: both meet the same spells of the machine."""
    prompt = ids[:16]
    ticks: dict[str, list[float]] = {"engine": [], "plain": []}
    same = True
    for _ in range(pairs):
        engine = Engine(model.module, model.tokenizer, options=EngineOptions(max_rows=1, prefix_cache=False))
        engine.submit(Request(prompt=prompt, settings=greedy(tokens), id="r", past_context="slide"))
        text = WrittenText(model.tokenizer, greedy(tokens))
        loop = write_plainly(model.module, prompt, TokenChooser(greedy(tokens), prompt, model.tokenizer))
        events = engine.step()
        text.push(next(loop))
        for number in range(1, tokens):
            for way in ("engine", "plain") if number % 2 else ("plain", "engine"):
                started = time.perf_counter()
                if way == "engine":
                    events = engine.step()
                else:
                    text.push(next(loop))
                ticks[way].append(time.perf_counter() - started)
        (done,) = [e for e in events if isinstance(e, Generation)]
        same = same and list(done.token_ids) == text.token_ids
    medians = {name: statistics.median(seconds) for name, seconds in ticks.items()}
    ratio = medians["plain"] / medians["engine"]
    return {"id": "engine.single", "value": round(ratio, 3), "bar": 0.95, "met": ratio >= 0.95, "unit": "× tokens/s",
            "median_tick_us": {name: round(1e6 * seconds, 1) for name, seconds in medians.items()}, "tokens": tokens,
            "same_outputs": same}


def guessed(model: LanguageModel, ids: list[int], pairs: int, tokens: int) -> dict[str, Any]:
    prompt = ids[:64]
    ticks: dict[str, int] = {}

    def rate(speculate: str) -> float:
        options = EngineOptions(max_rows=1, prefix_cache=False, speculate=speculate)  # type: ignore[arg-type]
        engine = Engine(model.module, model.tokenizer, options=options)
        started = time.perf_counter()
        engine.submit(Request(prompt=prompt, settings=greedy(tokens), past_context="slide"))
        engine.run_until_idle()
        ticks[speculate] = engine.n_ticks
        return tokens / (time.perf_counter() - started)

    with_guesses, without = alternate(pairs, lambda: rate("lookup"), lambda: rate("off"))
    ratio = statistics.median(with_guesses) / statistics.median(without)
    return {"id": "engine.guess", "value": round(ratio, 3), "unit": "× tokens/s", "ticks": ticks,
            "with_tokens_per_s": spread(with_guesses), "without_tokens_per_s": spread(without), "tokens": tokens}


FIGURES = {"engine.6": shared_prefix, "engine.7": concurrent, "engine.8": cancelled, "engine.9": identical,
           "engine.single": single, "engine.guess": guessed}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--only", choices=FIGURES, action="append")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--context", type=int, default=1024, help="of the random model; prompts have 16 tokens less")
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if (arguments.model is None) != (arguments.text is None):
        parser.error("MODEL and --text go together")
    if arguments.model is not None:
        model = load(arguments.model)
        ids = model.tokenizer.encode(arguments.text.read_text(encoding="utf-8")[:60_000])
    else:
        model = random_model(arguments.context)
        ids = torch.randint(1, 8192, (20_000,), generator=torch.Generator().manual_seed(1)).tolist()
    for name in arguments.only or FIGURES:
        figure = FIGURES[name](model, ids, arguments.pairs, arguments.tokens)
        print(json.dumps({**figure, "pairs": arguments.pairs, "threads": torch.get_num_threads(),
                          "parameters": model.module.n_parameters(),
                          "context": model.config.context_length}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
