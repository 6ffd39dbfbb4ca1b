"""Sentences per second of batched beam search ÷ ``MarianMTModel.generate`` of transformers, on the same weights.

    python bench/beam_speed.py DATA [--rounds 5] [--beam 4] [--threads 2] [--dtype fp32]

DATA is a folder with Multi30k (``train.en.gz``, ``train.de.gz``, ``test_2016_flickr.en.gz``). The weights are random,
such that translations end about where their sources end, and the same in both. Both translate the test sentences, in
turn, in pieces of ``--piece``, so that a slow spell of the machine meets both: transformers in batches of as many
sentences as are fastest (``--peer-batches``, tried first on ``--tried`` sentences, in turn), sorted by length within
the piece (its better order; ``--no-peer-sorts``: as they come), ours as ``beam_search`` likes. Both search with the
same beam, length penalty and most tokens. Prints one line of JSON: the medians of the sentences per second over the
rounds, the median of the ratios of rounds, the peer's speed with each size of batch, and how many texts are equal
(rounding may decide between equally likely ones). ``--clock cpu`` counts processor time, for a machine that others use
as well (then with ``--threads 1``).
"""

import argparse
import gzip
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from tickwise.engine.batch_beam import BeamOptions, beam_search
from tickwise.interop.directory import load_module
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import train_tokenizer

Ids = list[list[int]]
_TRIALS = 3


def lines(path: Path) -> list[str]:
    return gzip.open(path, "rt", encoding="utf-8").read().lower().splitlines()


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows])


def random_marian(args: argparse.Namespace, tokenizer: Tokenizer) -> transformers.MarianMTModel:
    """A Marian with random weights whose texts end about where their sources end.

    Three features are kept free of everything else: one with the target's position, one with the source's, which the
    first layer's first head of cross-attention averages over the source into a third. What the end mark's logit takes
    of them is measured, such that it overtakes the other tokens where the target is as long as the source.
    """
    torch.manual_seed(1)
    pad, end, width = tokenizer.vocab_size, tokenizer.eos_id, args.width
    model = transformers.MarianMTModel(transformers.MarianConfig(
        vocab_size=pad + 1, d_model=width, encoder_layers=args.layers, decoder_layers=args.layers,
        encoder_attention_heads=args.heads, decoder_attention_heads=args.heads, encoder_ffn_dim=args.hidden,
        decoder_ffn_dim=args.hidden, max_position_embeddings=256, activation_function="relu", scale_embedding=True,
        pad_token_id=pad, decoder_start_token_id=pad, eos_token_id=end, forced_eos_token_id=None,
        tie_word_embeddings=False, init_std=width**-0.5)).eval()
    # Sines of angles that grow by about 0.03 a token, in neighbouring features; the last sines hardly move.
    target = round(width / 2 * math.log(30) / math.log(10_000))
    source, length = target + 1, width // 2 - 1
    reserved, embedding, head = [target, source, length], model.model.shared.weight, model.lm_head.weight
    free = [feature for feature in range(width) if feature not in reserved]
    with torch.inference_mode():
        embedding.mul_(2)
        writing = [parameter for name, parameter in model.named_parameters()
                   if name.endswith(("out_proj.weight", "fc2.weight"))]
        embedding[pad] = embedding[1]  # it begins every target
        for weight in (*writing, embedding.t()):
            weight[reserved] = 0
            weight[free] -= weight[free].mean(0)  # else the norms' means would disturb the features
        for twin in (head, model.model.encoder.embed_tokens.weight, model.model.decoder.embed_tokens.weight):
            twin.copy_(embedding)
        cross = model.model.decoder.layers[0].encoder_attn
        first_head = slice(0, width // args.heads)
        cross.q_proj.weight[first_head] = 0
        cross.v_proj.weight[0] = 0
        cross.v_proj.weight[0, source] = 1
        cross.out_proj.weight[length, 0] = 10
        found = []
        lengths = range(6, 40, 3)
        for n in lengths:
            ids = torch.cat([torch.randint(0, pad, (8, n)), torch.full((8, 1), end)], 1)
            states = model.model(input_ids=ids, decoder_input_ids=torch.randint(0, pad, (8, 40))).last_hidden_state
            found.append(states[..., [target, length]].mean(0))
        others = (states @ head.t()).logsumexp(-1).mean()
        found_L42 = torch.stack(found)
        step = (found_L42[:, 36, 0] - found_L42[:, 4, 0]).mean() / 32
        per_source = (found_L42[-1, :, 1] - found_L42[0, :, 1]).mean() / (lengths[-1] - lengths[0])
        head[end] = 0
        head[end, target], head[end, length] = 1.5 / step, -1.5 / per_source
        middle = len(lengths) // 2
        at_length = found_L42[middle, lengths[middle]] @ head[end, [target, length]]
        model.final_logits_bias[0, end] = others + 8 - at_length
    return model


def own_texts(module: torch.nn.Module, sources: Ids, args: argparse.Namespace) -> Ids:
    options = BeamOptions(width=args.beam, length_penalty=args.length_penalty, max_ratio=0, max_extra=args.longest,
                          batch=args.batch)
    found = dict(beam_search(module, sources, options))
    return [list(found[index][0].token_ids) for index in range(len(sources))]


@torch.inference_mode()
def peer_texts(model: transformers.MarianMTModel, sources: Ids, args: argparse.Namespace, batch_size: int) -> Ids:
    end, pad = model.config.eos_token_id, model.config.pad_token_id
    order = sorted(range(len(sources)), key=lambda i: len(sources[i])) if args.peer_sorts else range(len(sources))
    texts: Ids = [[] for _ in sources]
    for start in range(0, len(sources), batch_size):
        batch = order[start : start + batch_size]
        ids = padded([[*sources[i], end] for i in batch], pad)
        out = model.generate(
            ids, attention_mask=(ids != pad).long(), num_beams=args.beam, length_penalty=args.length_penalty,
            max_new_tokens=args.longest, do_sample=False, early_stopping=False, forced_eos_token_id=None)
        for index, row in zip(batch, out[:, 1:].tolist(), strict=True):
            texts[index] = row[: row.index(end)] if end in row else row
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--length-penalty", type=float, default=1.0)
    parser.add_argument("--longest", type=int, default=40, help="tokens of a translation")
    parser.add_argument("--batch", type=int, default=BeamOptions.batch)
    parser.add_argument("--peer-batches", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--tried", type=int, default=256, help="sentences to choose the peer's batch with")
    parser.add_argument("--peer-sorts", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--piece", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="of both")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args()
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    sides = (line for language in ("en", "de") for line in lines(args.data / f"train.{language}.gz"))
    tokenizer = train_tokenizer("bpe", sides, vocab_size=args.vocab_size - 1)
    peer = random_marian(args, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        own = load_module(Path(folder), device="cpu", dtype=args.dtype)
    peer = peer.to({"fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype])
    sources = tokenizer.encode_batch(lines(args.data / "test_2016_flickr.en.gz")[: args.sentences])
    own_texts(own, sources[:8], args)  # the first ones fill caches
    peer_texts(peer, sources[:8], args, 8)
    tried: dict[int, list[float]] = {size: [] for size in args.peer_batches}
    for turn in range(_TRIALS):
        for size in sorted(tried, reverse=bool(turn % 2)):
            begin = clock()
            peer_texts(peer, sources[: args.tried], args, size)
            tried[size].append(clock() - begin)
    peer_batch = min(tried, key=lambda size: statistics.median(tried[size]))
    programs = {"own": lambda piece: own_texts(own, piece, args),
                "peer": lambda piece: peer_texts(peer, piece, args, peer_batch)}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    texts: dict[str, Ids] = {}
    for turn in range(args.rounds):
        spent = dict.fromkeys(programs, 0.0)
        for name in programs:
            texts[name] = []
        for number, start in enumerate(range(0, len(sources), args.piece)):
            for name in sorted(programs, reverse=bool((turn + number) % 2)):
                begin = clock()
                texts[name] += programs[name](sources[start : start + args.piece])
                spent[name] += clock() - begin
        for name in programs:
            seconds[name].append(spent[name])
    ratios = [peer_s / own_s for own_s, peer_s in zip(seconds["own"], seconds["peer"], strict=True)]
    equal = sum(a == b for a, b in zip(texts["own"], texts["peer"], strict=True))
    print(json.dumps({
        **{name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        **{f"{name}_sentences_per_s": round(len(sources) / statistics.median(seconds[name]), 2) for name in programs},
        "peer_batch": peer_batch,
        "peer_by_batch": {size: round(min(args.tried, len(sources)) / statistics.median(spent), 2)
                          for size, spent in tried.items()},
        "ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios],
        "equal_texts": equal, "sentences": len(sources),
        "mean_tokens": round(statistics.mean(map(len, texts["own"])), 2), "transformers": transformers.__version__,
    }))


if __name__ == "__main__":
    main()
