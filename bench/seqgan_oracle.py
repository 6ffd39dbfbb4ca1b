"""SeqGAN's synthetic test (Yu et al. 2017, section 5): text from a random LSTM, which can judge what others write.

    python bench/seqgan_oracle.py --seeds 1 2 3 --json out/seqgan.json

The oracle is an LSTM of width 32 with all weights from N(0, 1), a vocabulary of 5,000 and sequences of 20 words; it
writes 10,000 sequences to train on. The generator is a fresh LSTM. ``oracle nll`` is what the
paper reports: the oracle's mean nats per word of the generator's own samples, at temperature 1. Lower is better, but a
generator that always writes the same likely sequence would win; so the generator's nats of the oracle's held-out
sequences and distinct words in its samples stand beside it, and maximum likelihood at lower temperatures.

The game starts from, and its gain is over, the best epoch of maximum likelihood: by default the one whose samples (a
draw of their own) the oracle finds likeliest, which is what the game is judged by; with ``--best-by development`` the
one with the fewest nats on development sequences, which comes long before (10,000 sequences are soon learnt by heart).
``--judge language-model`` plays cooperative training's game (``training/mediated_game.py``) instead of SeqGAN's; its
judge begins as the model with the fewest nats on development sequences, where that of ``tickwise train gan`` begins as
a copy of the generator, which is chosen by them there.
``gain_at_equal_held_out_nll`` is over that model at the temperature at which it has the same nats on held-out sequences
as the game's: what is left of the gain beyond sharpening.
"""

import argparse
import copy
import dataclasses
import json
import statistics
import sys
import time

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from tickwise.models.gan import Discriminator, DiscriminatorConfig
from tickwise.models.lockstep import shifted, write
from tickwise.models.recurrent import Recurrent, RecurrentConfig
from tickwise.training.adversarial import AdversarialOptions, SeqGan
from tickwise.training.mediated_game import MediatedGame

VOCABULARY, LENGTH, WIDTH, START, N_TRAIN, N_HELD_OUT = 5000, 20, 32, 0, 10_000, 2000
TEMPERATURES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)


class Oracle(Recurrent):
    """The family's LSTM with a bias on the output, as the paper's code has it."""

    def __init__(self, seed: int) -> None:
        super().__init__(RecurrentConfig(vocab_size=VOCABULARY, width=WIDTH, hidden=WIDTH, n_layers=1,
                                         tie_embeddings=False))
        self.bias = torch.nn.Parameter(torch.empty(VOCABULARY))
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, generator=generator)
        self.requires_grad_(False).eval()

    def logits(self, hidden_BTC: Tensor) -> Tensor:
        return super().logits(hidden_BTC) + self.bias


def samples(model: Recurrent, n: int, temperature: float = 1.0, seed: int | None = None) -> Tensor:
    """(n, 20) sequences."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    model.eval()
    return write(model, torch.full((n,), START), LENGTH, temperature=temperature, generator=generator)


@torch.no_grad()
def nats(model: Recurrent, ids_BT: Tensor, temperature: float = 1.0) -> float:
    """Mean nats per word."""
    model.eval()
    total = 0.0
    for part in ids_BT.split(100):
        hidden_BTC, _ = model.read(shifted(part, START))
        logits_NV = model.logits(hidden_BTC).flatten(0, 1) / temperature
        total += F.cross_entropy(logits_NV, part.flatten(), reduction="sum").item()
    return total / ids_BT.numel()


def likelihood(game: SeqGan, oracle: Oracle, development: Tensor,
               arguments: argparse.Namespace) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Train by maximum likelihood for a fixed number of epochs, as the paper does, and go back to the best one; the
    learning curve, and the weights with the fewest nats on development sequences."""
    per_epoch = len(game.real) // game.options.batch_size
    curve: list[dict[str, float]] = []
    best = dict.fromkeys(("oracle", "development"), float("inf"))
    kept = dict.fromkeys(best, game.generator.state_dict())
    for epoch in range(1, arguments.epochs + 1):
        game.set_rate(arguments.likelihood_lr * min(1.0, 2 * (1 - (epoch - 1) / arguments.epochs)))
        loss = sum(game.train_likelihood() for _ in range(per_epoch)) / per_epoch
        if epoch % arguments.validate_every == 0 or epoch == arguments.epochs:
            curve.append({"epoch": epoch, "loss": loss, "development_nll": nats(game.generator, development),
                          "oracle_nll": nats(oracle, samples(game.generator, 2000, seed=98))})
            for by in best:
                if curve[-1][f"{by}_nll"] < best[by]:
                    best[by] = curve[-1][f"{by}_nll"]
                    kept[by] = {name: value.clone() for name, value in game.generator.state_dict().items()}
            print("  " + ", ".join(f"{k} {v:.4g}" for k, v in curve[-1].items()), file=sys.stderr, flush=True)
    game.generator.load_state_dict(kept[arguments.best_by])
    return curve, kept["development"]


def at_temperatures(model: Recurrent, oracle: Oracle, held_out: Tensor, n: int) -> list[dict[str, float]]:
    """What sharpening alone does to the samples, and to the nats of held-out sequences."""
    return [{"temperature": t, "oracle_nll": nats(oracle, samples(model, n, t, seed=99)),
             "held_out_nll": nats(model, held_out, t)} for t in TEMPERATURES]


def oracle_nll_at(held_out_nll: float, curve: list[dict[str, float]]) -> float | None:
    """What a curve of falling temperatures says of the samples of a model with so many nats on held-out sequences;
    None for more than at the last."""
    rising = curve[:1]
    for row in curve[1:]:
        if row["held_out_nll"] > rising[-1]["held_out_nll"]:
            rising.append(row)
    if held_out_nll > rising[-1]["held_out_nll"]:
        return None
    return float(numpy.interp(held_out_nll, [row["held_out_nll"] for row in rising],
                              [row["oracle_nll"] for row in rising]))


def figures(game: SeqGan, oracle: Oracle, held_out: Tensor, n: int) -> dict[str, float]:
    ids = samples(game.generator, n, seed=99)
    return {"oracle_nll": nats(oracle, ids), "held_out_nll": nats(game.generator, held_out),
            "distinct_words": len(ids.unique()), "distinct_sequences": len(ids.unique(dim=0)) / n}


def one(seed: int, oracle: Oracle, arguments: argparse.Namespace) -> dict[str, object]:
    real, development, held_out = (samples(oracle, n, seed=draw) for n, draw in
                                   ((N_TRAIN, 1000), (N_HELD_OUT, 1500), (N_HELD_OUT, 2000)))
    torch.manual_seed(seed)
    generator = Recurrent(RecurrentConfig(
        vocab_size=VOCABULARY, width=arguments.width, hidden=arguments.hidden, n_layers=1, tie_embeddings=False,
        input_dropout=arguments.dropout, output_dropout=arguments.dropout)).initialise(seed)
    sampled = {"rollouts": 4, "baseline": "none"} if arguments.judge == "convolutions" else {}
    given = {name: getattr(arguments, name) for name in ("rollouts", "baseline")}
    options = AdversarialOptions(
        judge=arguments.judge, steps=arguments.steps, lr=arguments.lr,
        **sampled | {name: value for name, value in given.items() if value is not None},
        discriminator_lr=arguments.discriminator_lr, discriminator_weight_decay=arguments.discriminator_weight_decay,
        discriminator_first=arguments.discriminator_first, discriminator_steps=arguments.discriminator_steps,
        likelihood=arguments.likelihood, batch_size=arguments.batch_size)
    discriminator = Discriminator(DiscriminatorConfig(vocab_size=VOCABULARY, width=16, filters=(2,), features=256,
                                                      dropout=0.3)).initialise(seed)
    game = SeqGan(generator, discriminator, real, first_id=START, eos_id=None, options=options)
    started = time.monotonic()
    learning, general = likelihood(game, oracle, development, arguments)
    best = min(learning, key=lambda row: row[f"{arguments.best_by}_nll"])
    result: dict[str, object] = {"seed": seed, "options": dataclasses.asdict(options),
                                 "likelihood_seconds": time.monotonic() - started,
                                 "likelihood_curve": learning, "likelihood_epoch": best["epoch"],
                                 "likelihood": figures(game, oracle, held_out, arguments.samples)}
    sharpened = at_temperatures(generator, oracle, held_out, arguments.samples)
    result["likelihood_at_temperature"] = sharpened
    print(json.dumps(result), file=sys.stderr, flush=True)
    # The game starts with a fresh optimizer.
    game = SeqGan(generator, discriminator, real, first_id=START, eos_id=None, options=options)
    if options.judge == "language-model":
        mediator = copy.deepcopy(generator)
        mediator.load_state_dict(general)
        game = MediatedGame(generator, mediator, real, first_id=START, eos_id=None, options=options)
    started, curve = time.monotonic(), []
    while game.step < options.steps and time.monotonic() - started < arguments.seconds:
        warms_up = game.warms_up
        row = game.move()
        if not warms_up and game.step % arguments.every == 0:
            curve.append({"step": game.step, "oracle_nll": nats(oracle, samples(generator, 1000, seed=98)), **row})
            print("  " + ", ".join(f"{k} {v:.4g}" for k, v in curve[-1].items())
                  + f", {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    after = figures(game, oracle, held_out, arguments.samples)
    alike = oracle_nll_at(after["held_out_nll"], sharpened)
    result |= {"adversarial_seconds": time.monotonic() - started, "curve": curve, "adversarial": after,
               "gain": sharpened[0]["oracle_nll"] - after["oracle_nll"],
               "gain_at_equal_held_out_nll": None if alike is None else alike - after["oracle_nll"]}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--oracle", type=int, default=0, help="seed of the oracle's weights")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--best-by", choices=["oracle", "development"], default="oracle")
    parser.add_argument("--validate-every", type=int, default=1, help="epochs of maximum likelihood")
    parser.add_argument("--likelihood-lr", type=float, default=0.01)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--judge", choices=["convolutions", "language-model"], default="convolutions")
    parser.add_argument("--rollouts", type=int, help="4; a language model needs none")
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--discriminator-lr", type=float, default=0.01)
    parser.add_argument("--discriminator-weight-decay", type=float, help="0.5, and 0 for a language model")
    parser.add_argument("--discriminator-first", type=int, default=1000)
    parser.add_argument("--discriminator-steps", type=int, default=10)
    parser.add_argument("--likelihood", type=float, default=0.0)
    parser.add_argument("--baseline", choices=["mean", "none"], help="none; a language model needs none")
    parser.add_argument("--seconds", type=float, default=1500.0, help="most time of the adversarial phase of a seed")
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--json", help="file for the result")
    arguments = parser.parse_args()
    if arguments.discriminator_weight_decay is None:
        arguments.discriminator_weight_decay = 0.0 if arguments.judge == "language-model" else 0.5
    oracle = Oracle(arguments.oracle)
    runs = [one(seed, oracle, arguments) for seed in arguments.seeds]
    gains = [run["gain"] for run in runs]
    beyond = [run["gain_at_equal_held_out_nll"] for run in runs]
    result = {"oracle_own_nll": nats(oracle, samples(oracle, 2000, seed=3000)), "runs": runs,
              "gain_mean": statistics.mean(gains), "gain_spread": statistics.pstdev(gains),  # type: ignore[type-var]
              "gain_at_equal_held_out_nll_mean": None if None in beyond else statistics.mean(beyond),  # type: ignore
              "settings": vars(arguments)}
    print(json.dumps(result, indent=2))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
