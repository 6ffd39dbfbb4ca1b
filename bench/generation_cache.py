"""How much faster generation is with the KV cache than with full recomputation of every token.

    python bench/generation_cache.py [MODEL] [--tokens 512] [--pairs 5]

Without MODEL, a randomly initialised decoder of the stated shape is measured. Both ways run in turn (A B A
B …) so that a slow spell of the machine meets both; they must write the same greedy tokens. Prints one line
of JSON: the ratio of the median rates, and both rates with their spread.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import torch

from tickwise.engine.plain import write_plainly
from tickwise.engine.sampling import TokenChooser
from tickwise.engine.settings import GenerationSettings
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.tokenizers.train import char_tokenizer

BAR = 5.0


def random_decoder(layers: int, width: int, context: int, vocab_size: int) -> Decoder:
    """A decoder whose weights are all drawn, so that its tokens depend on the text."""
    config = DecoderConfig(
        vocab_size=vocab_size, context_length=context, width=width, n_layers=layers, n_heads=width // 64,
        n_kv_heads=width // 64, head_dim=64, hidden=4 * width, activation="gelu", tie_embeddings=True,
    )
    module = Decoder(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
    return module.requires_grad_(False).eval()


def generate(module: Decoder, prompt: list[int], tokens: int, use_cache: bool) -> tuple[list[int], float]:
    """Greedy tokens, and tokens per second of the whole generation, prefill included."""
    settings = GenerationSettings(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    tokenizer = char_tokenizer(
        Counter({chr(0x4E00 + i): 1 for i in range(module.config.vocab_size)}), vocab_size=None, end_of_text=False,
        unknown=False,
    )
    chooser = TokenChooser(settings, prompt, tokenizer)
    started = time.perf_counter()
    ids = list(itertools.islice(write_plainly(module, prompt, chooser, use_cache=use_cache), tokens))
    return ids, tokens / (time.perf_counter() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--vocab-size", type=int, default=256)
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, help="default: what torch takes; 1 is steadier on a busy machine")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.model is not None:
        from tickwise.interop.directory import load_model

        module = load_model(arguments.model, device="cpu")[0]
    else:
        module = random_decoder(arguments.layers, arguments.width, arguments.context, arguments.vocab_size)
    config = module.config
    prompt = [(7 * i) % config.vocab_size for i in range(arguments.prompt_tokens)]
    for use_cache in (True, False):
        generate(module, prompt, 16, use_cache)

    rates: dict[bool, list[float]] = {True: [], False: []}
    written: dict[bool, list[int]] = {}
    for pair in range(arguments.pairs):
        for use_cache in (True, False):
            written[use_cache], rate = generate(module, prompt, arguments.tokens, use_cache)
            rates[use_cache].append(rate)
        print(f"pair {pair + 1}: {rates[True][-1]:.0f} and {rates[False][-1]:.0f} tokens/s", file=sys.stderr)
    same = sum(a == b for a, b in zip(written[True], written[False], strict=True))
    ratios = [a / b for a, b in zip(rates[True], rates[False], strict=True)]
    ratio = statistics.median(rates[True]) / statistics.median(rates[False])
    print(json.dumps({
        "id": "foundation.7",
        "value": round(ratio, 2),
        "unit": "× tokens/s with KV cache ÷ without",
        "bar": BAR,
        "met": ratio >= BAR,
        "with_cache_tokens_per_s": {"median": round(statistics.median(rates[True]), 1),
                                    "min": round(min(rates[True]), 1), "max": round(max(rates[True]), 1)},
        "without_cache_tokens_per_s": {"median": round(statistics.median(rates[False]), 1),
                                       "min": round(min(rates[False]), 1), "max": round(max(rates[False]), 1)},
        "ratio_of_each_pair": [round(r, 2) for r in ratios],
        "pairs": arguments.pairs,
        "tokens": arguments.tokens,
        "equal_greedy_tokens": same,
        "shape": {"layers": config.n_layers, "width": config.width, "context": config.context_length,
                  "vocab_size": config.vocab_size, "parameters": module.n_parameters()},
        "threads": torch.get_num_threads(),
        "device": "cpu",
    }))
    return 0


if __name__ == "__main__":
    sys.exit(main())
