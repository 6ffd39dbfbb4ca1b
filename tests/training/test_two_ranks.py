"""Two ranks on gloo learn what one process learns: micro-batches, averaged weights, bf16, batches that do not come out
even. All of it in one pair of processes, because starting them is what takes time."""

import itertools
import json
import os
import random
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest

from small_runs import TINY, losses
from tickwise.data.pairs import Pairs
from tickwise.data.sentences import sentences_from_ids
from tickwise.models.recurrent import Recurrent, RecurrentConfig
from tickwise.tasks.multitask import PRETRAINING, train_tasks
from tickwise.tasks.prefixed_options import PrefixedOptions
from tickwise.tasks.text_to_text import PairParts
from tickwise.training.config import LoopConfig, ModelOptions, OptimizerOptions, ParallelOptions, TrainConfig
from tickwise.training.run import train, train_module
from tickwise.training.sentence_likelihood import SentenceLikelihood

FSDP = ParallelOptions(strategy="fsdp")
SCENARIOS = {
    # name: settings of both, of the ranks, of one process that computes the same, the largest difference of a loss
    "micro-batches and dropout": ({"dropout": 0.2}, {"accumulate": 2}, {"accumulate": 4}, 1e-5),
    "shares and dropout": ({"dropout": 0.2}, {"parallel": FSDP}, {"accumulate": 2}, 1e-5),
    "shares and micro-batches": ({}, {"parallel": FSDP, "accumulate": 2}, {}, 1e-5),
    "averaged weights": ({"ema_decay": 0.5}, {}, {"accumulate": 2}, 0.0),
    "shares of averaged weights": ({"ema_decay": 0.5}, {"parallel": FSDP}, {}, 1e-5),
    # Eight bits of mantissa; the ranks add gradients up in float32, one process casts them after the backward pass.
    "bf16": ({"dtype": "bf16"}, {}, {"accumulate": 2}, 2e-2),
    "shares in bf16": ({"dtype": "bf16"}, {"parallel": FSDP}, {}, 2e-2),
}


def run_text(text, out, dropout=0.0, dtype="fp32", **settings):
    common = TINY | {"max_steps": 6, "evaluate_every": 3, "compile": "off",
                     "optimizer": OptimizerOptions(name="adamw"), "checkpoint_every": 100,
                     "model": ModelOptions(width=32, n_heads=2, dropout=dropout)}
    train(TrainConfig(data=text, out=out, dtype=dtype, **(common | settings)))


class NoAssets:
    def save(self, folder):
        """A random model of numbers has no tokenizer."""


def run_uneven(out, accumulate):
    """Three sentences of different lengths an update: four micro-batches would be even."""
    chooser = np.random.default_rng(0)
    sentences = sentences_from_ids([chooser.integers(1, 9, chooser.integers(1, 12)).tolist() for _ in range(40)], 0)
    module = Recurrent(RecurrentConfig(vocab_size=9, width=8, hidden=8, n_layers=1)).initialise(0)
    config = LoopConfig(out=out, batch_size=4, accumulate=accumulate, max_steps=6, log_every=1, device="cpu",
                        dtype="fp32", compile="off", optimizer=OptimizerOptions(name="adamw", lr=0.01))
    train_module(config, module, SentenceLikelihood(sentences, None, batch_size=3, seed=0), NoAssets(),
                 data={"source": "sentences", "fingerprint": "f00d"}, wants_last=True)


PAIR_SCENARIOS = {"pairs": {}, "shares of an encoder-decoder": {"parallel": FSDP}}


def run_pairs(out, of_ranks, parallel=None):
    """Pairs of different lengths, for a model that copies: pre-trained on their sources, then trained."""
    chooser = random.Random(0)
    words = ["one", "two", "three", "four", "five", "six"]
    sources = [" ".join(chooser.choices(words, k=chooser.randint(1, 6))) for _ in range(60)]
    pairs = Pairs(sources, [" ".join(reversed(text.split())) for text in sources], "reversed")
    options = PrefixedOptions(vocab_size=280, width=32, encoder_layers=1, decoder_layers=2, n_heads=2, longest=40,
                              batch_tokens=60, epochs=3, dropout=0.2, copies=True, pretrain=0.5, optimizer="adamw")
    own = {"parallel": parallel} if parallel and of_ranks else {}
    train_tasks({"": PairParts(pairs, pairs, None)}, out=out, options=options, device="cpu", dtype="fp32",
                accumulate=1 if of_ranks else 2, **own)


def next_port():
    os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)


def all_runs(text, folder, of_ranks):
    for name, (both, ranks, alone, _) in SCENARIOS.items():
        run_text(text, folder / name, **both, **(ranks if of_ranks else alone))
        if of_ranks:
            next_port()
    run_uneven(folder / "uneven", 2 if of_ranks else 1)
    for name, settings in PAIR_SCENARIOS.items():
        if of_ranks:
            next_port()
        run_pairs(folder / name, of_ranks, **settings)


def run_as_rank(text, folder, rank, port):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    try:
        all_runs(text, folder, of_ranks=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


PROGRAM = """
import os, sys
from pathlib import Path
import test_two_ranks
text, folder, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
pids = [os.fork() or test_two_ranks.run_as_rank(text, folder, rank, port) for rank in range(2)]
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Folders of the runs of two ranks, and of one process."""
    folder = tmp_path_factory.mktemp("two-ranks")
    text = folder / "text.txt"
    text.write_text("".join(f"the {a} sees the {b}.\n" for a in ("cat", "dog", "bird") for b in ("cow", "hen", "fish")
                            for _ in range(200)), encoding="utf-8")
    all_runs(text, folder / "one", of_ranks=False)  # it prepares the text, too
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    here = Path(__file__).resolve()
    path = os.pathsep.join([str(here.parent), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(text), str(folder / "two"), str(port)],
                          env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "two", folder / "one"


def largest_difference(two, one):
    ours, plain = losses(two), losses(one)
    assert ours.keys() == plain.keys()
    assert ours
    pairs = [(a, b) for step in ours for a, b in zip(ours[step], plain[step], strict=True) if b is not None]
    return max(abs(a - b) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_two_ranks_learn_what_one_process_learns(both, name):
    two, one = both
    assert json.loads((two / name / "run.json").read_text())["ranks"] == 2
    assert largest_difference(two / name, one / name) <= SCENARIOS[name][3]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIR_SCENARIOS)
def test_two_ranks_learn_pairs_of_texts_as_one_process_does(both, name):
    two, one = both
    assert json.loads((two / name / "run.json").read_text())["ranks"] == 2
    for part in (".", PRETRAINING):
        assert largest_difference(two / name / part, one / name / part) <= 1e-5


@pytest.mark.slow
def test_batches_that_do_not_come_out_even_weigh_every_part_by_its_tokens(both):
    two, one = both
    assert largest_difference(two / "uneven", one / "uneven") < 1e-6


@pytest.mark.slow
def test_dropout_that_draws_otherwise_would_be_seen(both):
    _, one = both
    dropped = [losses(one / name)[6][0] for name in
               ("shares and micro-batches", "micro-batches and dropout", "shares and dropout")]
    assert min(abs(a - b) for a, b in itertools.combinations(dropped, 2)) > 1e-4
