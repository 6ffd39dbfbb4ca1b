"""Training speed of the encoder–decoder ÷ the same model built from ``torch.nn.Transformer`` in a plain loop.

    python bench/transformer_speed.py [--rounds 12] [--threads 2] [--dtype bf16] [--width 256] [--optimizer muon]

The same batches of pairs, whose lengths are those of image captions, one update of each in turn, so that a slow spell
of the machine meets both. Ours updates as ``tickwise run translate`` does: Muon, and an average of the weights. The
plain loop is what a careful person writes: ``torch.nn.Transformer`` with its norms first and masks for padding,
sinusoidal positions, one matrix for embeddings and head, float32 weights under ``torch.autocast`` (with ``--dtype
bf16``), a head that reads the targets' tokens without their padding, cross-entropy with label smoothing, clipping,
fused AdamW. Both have the same dropout everywhere, biases and GELU. Prints one line of JSON with the medians of the
target tokens per second, the median of the ratios of neighbours, and what was compared. ``--clock cpu`` counts
processor time instead, for a machine that others use as well (then with ``--threads 1``).
"""

import argparse
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.data.pair_batches import EncodedPairs, PairBatches, PairTensors
from tickwise.data.sentences import sentences_from_ids
from tickwise.layers.positions import sinusoidal_table
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.training.config import OptimizerOptions
from tickwise.training.optimizers import MasterWeights, Optimizer, total_norm
from tickwise.training.text_to_text import pair_loss

LONGEST, SMOOTHING, EMA_DECAY = 64, 0.1, 0.995
NOTE = ("ours: {optimizer}, average of the weights, layers and head without padding; peer: torch.nn.Transformer with "
        "masks for padding, {precision}, a head without padding, fused AdamW, no average")


class Plain(nn.Module):
    """The model as a user of PyTorch builds it."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.embedding = nn.Embedding(args.vocabulary, args.width)
        nn.init.normal_(self.embedding.weight, std=args.width**-0.5)
        self.dropout = nn.Dropout(args.dropout)
        self.transformer = nn.Transformer(
            args.width, args.heads, args.layers, args.layers, 4 * args.width, args.dropout, activation="gelu",
            batch_first=True, norm_first=True)
        self.head = nn.Linear(args.width, args.vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("positions", sinusoidal_table(LONGEST, args.width, torch.device("cpu")))
        self.scale = math.sqrt(args.width)

    def embed(self, ids_BT: Tensor) -> Tensor:
        return self.dropout(self.embedding(ids_BT) * self.scale + self.positions[: ids_BT.shape[1]])

    def forward(self, source_BS: Tensor, source_padding: Tensor, target_BT: Tensor, target_padding: Tensor) -> Tensor:
        """(P, V): logits after each of the targets' tokens, padding left out."""
        length = target_BT.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        states = self.transformer(
            self.embed(source_BS), self.embed(target_BT), tgt_mask=causal, src_key_padding_mask=source_padding,
            tgt_key_padding_mask=target_padding, memory_key_padding_mask=source_padding, tgt_is_causal=True)
        return self.head(states[~target_padding])


def padding(lengths_B: Tensor, length: int) -> Tensor:
    return torch.arange(length) >= lengths_B[:, None]


def plain_step(args: argparse.Namespace, dtype: torch.dtype) -> Callable[[PairTensors], None]:
    module = Plain(args)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)

    def step(batch: PairTensors) -> None:
        source_padding = padding(batch.source_lengths, batch.source.shape[1])
        target_padding = padding(batch.target_lengths, batch.target.shape[1])
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits_PV = module(batch.source, source_padding, batch.target, target_padding)
        loss = F.cross_entropy(logits_PV.float(), batch.labels, label_smoothing=SMOOTHING)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return step


def own_step(args: argparse.Namespace, dtype: torch.dtype) -> Callable[[PairTensors], None]:
    module = EncoderDecoder(EncoderDecoderConfig(
        vocab_size=args.vocabulary, source_length=LONGEST, context_length=LONGEST, width=args.width,
        n_encoder_layers=args.layers, n_decoder_layers=args.layers, n_heads=args.heads, n_kv_heads=args.heads,
        head_dim=args.width // args.heads, hidden=4 * args.width, pad_id=0, start_id=0, eos_id=0,
        positions="sinusoidal", norm="layernorm", activation="gelu", bias=True, dropout=args.dropout,
        attention_dropout=args.dropout, activation_dropout=args.dropout,
    )).initialise(0)
    module.train()
    weights = MasterWeights(module, dtype)
    optimizer = Optimizer(module, weights, OptimizerOptions(name=args.optimizer, lr=1e-3), dtype)
    average = [master.clone() for master in weights.masters]

    def step(batch: PairTensors) -> None:
        weights.clear()
        loss = pair_loss(module, batch, SMOOTHING)
        loss.backward()
        gradients = weights.collect(first=True)
        norm = total_norm(gradients).item()
        if norm > 1.0:
            torch._foreach_mul_(gradients, 1.0 / norm)
        optimizer.step(gradients, 1.0)
        torch._foreach_lerp_(average, weights.masters, 1 - EMA_DECAY)
        loss.item()

    return step


def captions(args: argparse.Namespace, n: int) -> EncodedPairs:
    """Pairs of random words with the lengths of Multi30k's captions: 14 tokens and a deviation of 4, the two sides of a
    pair alike."""
    chooser = numpy.random.default_rng(0)
    lengths = chooser.normal(14, 4, n)
    sides = []
    for noise in (0.0, 2.0):
        side = (lengths + chooser.normal(0, noise, n)).round().clip(4, LONGEST - 2).astype(int)
        sides.append(sentences_from_ids(
            [(1 + chooser.zipf(1.3, length) % (args.vocabulary - 1)).tolist() for length in side], eos_id=0))
    return EncodedPairs(sides[0], sides[1], numpy.arange(n))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="bf16", help="of both")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3, help="of encoder and decoder each")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="muon", help="of ours")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args()
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    warnings.filterwarnings("ignore", message="enable_nested_tensor")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    batches = PairBatches(captions(args, 20_000), batch_tokens=args.batch_tokens, seed=0)
    steps = {"own": own_step(args, dtype), "plain": plain_step(args, dtype)}
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(args.rounds + 2):
        batch = batches.pairs.collate(batches.next_batch())
        for name in sorted(steps, reverse=bool(index % 2)):
            start = clock()
            steps[name](batch)
            if index > 1:  # the first ones fill caches
                rates[name].append(len(batch.labels) / (clock() - start))
    ratios = sorted(own / plain for own, plain in zip(rates["own"], rates["plain"], strict=True))
    medians = {f"{name}_tokens_per_s": round(statistics.median(found), 1) for name, found in rates.items()}
    precision = "float32" if args.dtype == "fp32" else "float32 weights under autocast to bf16"
    print(json.dumps({**vars(args), **medians, "ratio": round(statistics.median(ratios), 3),
                      "ratios": [round(ratio, 3) for ratio in ratios],
                      "note": NOTE.format(optimizer=args.optimizer, precision=precision)}))


if __name__ == "__main__":
    main()
