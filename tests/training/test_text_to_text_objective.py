"""Training on pairs: the loss is of the targets' tokens alone, micro-batches add up, and a run resumes bit for bit."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tickwise.core.errors import CheckpointError
from tickwise.core.stages import Stage
from tickwise.data.pair_batches import PairTensors, encode_pairs, train_pair_tokenizer
from tickwise.data.pairs import Pairs
from tickwise.layers import attention
from tickwise.models.encoder_decoder import EncoderDecoder
from tickwise.profiling.ledger import TrainingWork
from tickwise.profiling.program import stage_costs
from tickwise.tasks.text_to_text import model_config
from tickwise.tasks.text_to_text_options import TextToTextOptions
from tickwise.training import tracing
from tickwise.training.text_to_text import TextToTextObjective, mean_loss, pair_loss
from tickwise.training.tracing import StepCosts, _whole_solution

OPTIONS = TextToTextOptions(vocab_size=300, width=32, encoder_layers=1, decoder_layers=1, n_heads=2, longest=40,
                            dropout=0.0, batch_tokens=160, label_smoothing=0.1)


def corpus(n=120):
    """Words, and the same words doubled: easy to learn."""
    chooser = np.random.default_rng(0)
    letters = list("abcdef")
    texts = ["".join(chooser.choice(letters, chooser.integers(1, 8)).tolist()) for _ in range(n)]
    return Pairs(texts, [text.upper() for text in texts], "letters")


@pytest.fixture(scope="module")
def tokenizer():
    return train_pair_tokenizer(corpus(), vocab_size=OPTIONS.vocab_size, lowercase=False)


def objective(tokenizer, seed=1, batch_tokens=160):
    encoded = encode_pairs(corpus(), tokenizer, OPTIONS.longest)
    return TextToTextObjective(encoded, encoded, batch_tokens=batch_tokens, label_smoothing=OPTIONS.label_smoothing,
                               seed=seed)


def module(tokenizer, seed=1):
    made = EncoderDecoder(model_config(OPTIONS, tokenizer)).initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():  # no matrix of zeros, behind which nothing would be seen
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return made


def test_the_loss_is_the_mean_over_the_targets_tokens_of_each_pair_alone(tokenizer):
    encoded = encode_pairs(corpus(), tokenizer, OPTIONS.longest)
    made = module(tokenizer).eval()
    indices = np.array([0, 3, 17, 40])
    total, count = 0.0, 0
    for index in indices:
        source, lengths, target, _, labels = encoded.collate(np.array([index]))
        logits = made(source, lengths, target)[0]
        total += F.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1).item()
        count += len(labels)
    together = pair_loss(made, encoded.collate(indices), 0.1)
    assert together.item() == pytest.approx(total / count, rel=1e-4)


def test_micro_batches_have_the_gradient_of_the_whole_batch(tokenizer):
    made = module(tokenizer)
    goal = objective(tokenizer, batch_tokens=400)
    batch = max((goal.next_batch() for _ in range(3)), key=lambda b: len(b.inputs[0]))

    def gradient(parts):
        made.zero_grad()
        for part in parts:
            (goal.loss(made, *part.inputs)[0] / len(parts)).backward()
        return torch.cat([p.grad.flatten() for p in made.parameters()])

    parts = goal.split(batch, 3)
    assert sum(part.n_tokens for part in parts) == batch.n_tokens
    torch.testing.assert_close(gradient(parts), gradient([batch]), rtol=1e-3, atol=1e-5)


def test_validation_is_the_plain_cross_entropy_of_all_pairs_and_its_exponential(tokenizer):
    made = module(tokenizer).eval()
    goal = objective(tokenizer)
    figures = goal.validate(made, torch.device("cpu"), None)
    encoded = goal.validation
    everything = encoded.collate(np.arange(len(encoded)))
    assert figures["loss"] == pytest.approx(pair_loss(made, PairTensors(*everything)).item(), rel=1e-4)
    assert figures["perplexity"] == pytest.approx(np.exp(figures["loss"]))
    assert goal.n_validation_tokens == len(everything.labels)
    part = mean_loss(made, encoded, torch.device("cpu"), max_tokens=50)
    assert part != figures["loss"]
    assert part == mean_loss(made, encoded, torch.device("cpu"), max_tokens=50)


def test_it_learns_to_rewrite(tokenizer):
    torch.manual_seed(0)
    made, goal = module(tokenizer), objective(tokenizer)
    before = goal.validate(made.eval(), torch.device("cpu"), None)["loss"]
    made.train()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        goal.loss(made, *goal.next_batch().inputs)[0].backward()
        optimizer.step()
    assert goal.validate(made.eval(), torch.device("cpu"), None)["loss"] < 0.25 * before


def test_it_goes_on_with_the_very_next_batch(tokenizer):
    one, other = objective(tokenizer), objective(tokenizer)
    for _ in range(one.batches.n_batches + 2):
        one.next_batch()
    other.restore(one.state(), {})
    assert other.epochs_done == one.epochs_done > 1
    for mine, theirs in zip(one.next_batch().inputs, other.next_batch().inputs, strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(CheckpointError, match="seed"):
        objective(tokenizer, seed=2).restore(one.state(), {})


class Hosted:
    """As much of a training as its costs need."""

    def __init__(self, objective, module):
        self.objective, self.module, self.device = objective, module, torch.device("cpu")
        self.config = SimpleNamespace(accumulate=1)
        self.counters = SimpleNamespace(compiled=False)


@pytest.mark.parametrize("changes", [{}, {"positions": "relative", "relative_buckets": 8, "relative_distance": 10,
                                          "vocab_size": 2100}])
def test_the_work_of_every_batch_follows_from_its_sizes(tokenizer, changes, monkeypatch):
    config = dataclasses.replace(model_config(OPTIONS, tokenizer), dropout=0.1, **changes)
    goal, made = objective(tokenizer), EncoderDecoder(config).initialise(1).train()
    costs = StepCosts(Hosted(goal, made))
    monkeypatch.setattr(StepCosts, "_of_update", lambda self: iter(()))
    monkeypatch.setattr(attention, "_causal_biases", {})
    for length in range(100, 112):  # what texts of other lengths left behind in the process changes nothing
        attention._causal_bias(length, torch.float32, torch.device("cpu"))
    explained = []
    monkeypatch.setattr(tracing, "_whole_solution", lambda *x: (explained.append(x), _whole_solution(*x))[1])
    for batch in (goal.next_batch(), goal.next_batch(), goal._batch(np.tile(np.arange(120), 3))):
        work = costs(TrainingWork(batch.work.n_texts, shape=batch.work))
        assert work is not None, (batch.work.kind, explained[-1])
        counted = work.table.at(work.lengths)
        with torch.no_grad():
            goal.loss(made, *batch.inputs)  # makes what is made once for a shape
        listed = stage_costs(costs.listing(batch))
        assert sum(f for f, _, _ in counted.values()) == sum(cost.flops for cost in listed.values()) > 0
        assert sum(r for _, r, _ in counted.values()) == sum(cost.bytes_read for cost in listed.values())
        assert counted[Stage.CROSS_ATTENTION, 1][0] > 0
    assert len(costs._tables) > 1, "the large batch's loss is computed in pieces"


def test_large_figures_are_explained_exactly_or_not_at_all():
    chooser = np.random.default_rng(0)
    sizes = np.column_stack([np.ones(16, dtype=np.int64), chooser.integers(1, 5000, (16, 8))])
    wanted = chooser.integers(0, 10**9, (9, 3))
    assert (_whole_solution(sizes, sizes @ wanted) == wanted).all()
    assert _whole_solution(sizes, sizes @ wanted + chooser.integers(0, 2, (16, 3))) is None
