"""Training speed of the LSTM language model ÷ ``torch.nn.LSTM`` in a plain loop: same shapes, same products.

    python bench/lstm_speed.py [--rounds 12] [--threads 2] [--dtypes fp32 bf16] [--dropouts 0.3 0] [--cell lstm]

One update of each in turn, so that a slow spell of the machine meets both. The plain loop is what a careful person
writes: embedding, ``torch.nn.LSTM``, tied linear head, cross-entropy, clipping, fused AdamW, state carried on. Both
have dropout on input, between layers and on output, both the full softmax over 10,000 words. Two things differ: own
dropout has one mask for all steps of a sequence, the plain loop's a mask for each step (as ``torch.nn`` has it); in
bf16 own weights have float32 masters that the optimizer works on, the plain loop's are bf16 alone. So there is a line
of JSON for each number format with and without dropout, with the medians of the tokens per second and the median of the
ratios of neighbours; without dropout and in fp32 both do the same. ``--clock cpu`` counts processor time instead, for a
machine that others use as well (then with ``--threads 1``).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.models.recurrent import Recurrent, RecurrentConfig
from tickwise.training.config import OptimizerOptions
from tickwise.training.optimizers import MasterWeights, Optimizer, total_norm
from tickwise.training.recurrent_objective import RecurrentObjective

VOCABULARY = 10_000


class Plain(nn.Module):
    """The model as in PyTorch's word-level example, with tied weights."""

    def __init__(self, cell: str, width: int, n_layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Embedding(VOCABULARY, width)
        kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell]
        self.layers = kind(width, width, n_layers, dropout=dropout)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids_TB: Tensor, state: object) -> tuple[Tensor, object]:
        outputs, state = self.layers(F.dropout(self.embedding(ids_TB), self.dropout), state)
        return self.head(F.dropout(outputs, self.dropout)), state


def plain_step(args: argparse.Namespace, tokens: numpy.ndarray, dtype: torch.dtype,
               dropout: float) -> Callable[[], None]:
    module = Plain(args.cell, args.width, args.layers, dropout).to(dtype)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
    data_TB = torch.from_numpy(tokens.astype(numpy.int64)).view(args.batch, -1).t().contiguous()
    place, state = 0, None

    def step() -> None:
        nonlocal place, state
        if place + args.steps + 1 > len(data_TB):
            place = 0
        inputs, targets = data_TB[place : place + args.steps], data_TB[place + 1 : place + args.steps + 1]
        place += args.steps
        if state is not None:
            state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
        optimizer.zero_grad()
        logits, state = module(inputs, state)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return step


def own_step(args: argparse.Namespace, tokens: numpy.ndarray, dtype: torch.dtype,
             dropout: float) -> Callable[[], None]:
    module = Recurrent(RecurrentConfig(
        vocab_size=VOCABULARY, cell=args.cell, width=args.width, hidden=args.width, n_layers=args.layers,
        input_dropout=dropout, dropout=dropout, output_dropout=dropout)).initialise(0)
    module.train()
    weights = MasterWeights(module, dtype)
    optimizer = Optimizer(module, weights, OptimizerOptions(name="adamw", lr=1e-3), dtype)
    objective = RecurrentObjective(tokens, None, vocab_size=VOCABULARY, batch_size=args.batch, context=args.steps,
                                   seed=0)

    def step() -> None:
        weights.clear()
        loss, state = objective.loss(module, *objective.next_batch().inputs)
        loss.backward()
        objective.carry(state, 0)
        gradients = weights.collect(first=True)
        norm = total_norm(gradients).item()
        if norm > 1.0:
            torch._foreach_mul_(gradients, 1.0 / norm)
        optimizer.step(gradients, 1.0)
        loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"], help="of both")
    parser.add_argument("--dropouts", nargs="+", type=float, default=[0.3, 0.0])
    parser.add_argument("--cell", choices=["rnn", "lstm", "gru"], default="lstm")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=35, help="tokens of each stream in one update")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    words = numpy.random.default_rng(0).zipf(1.3, args.batch * (args.steps * 20 + 1))
    tokens = (words % VOCABULARY).astype(numpy.uint16)
    shown = {name: value for name, value in vars(args).items() if name not in ("dtypes", "dropouts")}
    for dtype in args.dtypes:
        for dropout in args.dropouts:
            figures = measured(args, tokens, {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype], dropout)
            print(json.dumps({**shown, "dtype": dtype, "dropout": dropout, **figures}), flush=True)


def measured(args: argparse.Namespace, tokens: numpy.ndarray, dtype: torch.dtype, dropout: float) -> dict[str, object]:
    """Both in turn."""
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    steps = {"own": own_step(args, tokens, dtype, dropout), "plain": plain_step(args, tokens, dtype, dropout)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(args.rounds + 1):
        for name in sorted(steps, reverse=bool(index % 2)):
            start = clock()
            steps[name]()
            if index:  # the first ones fill caches
                seconds[name].append(clock() - start)
    n_tokens = args.batch * args.steps
    ratios = [p / o for o, p in zip(seconds["own"], seconds["plain"], strict=True)]
    rates = {f"{name}_tokens_per_s": round(n_tokens / statistics.median(seconds[name]), 1) for name in steps}
    return {**rates, "ratio": round(statistics.median(ratios), 3), "ratios": [round(r, 3) for r in sorted(ratios)]}


if __name__ == "__main__":
    main()
