"""Which trials a grid makes, and by which rules."""

import dataclasses
import math
from pathlib import Path

import pytest

from tickwise.core.errors import ConfigError
from tickwise.models.decoder import Decoder
from tickwise.scaling.sweep_grid import Grid, batch_sequences, count_parameters, trials
from tickwise.training.config import ModelOptions, OptimizerOptions, TrainConfig
from tickwise.training.dial import decoder_from_dial

BASE = TrainConfig(data=Path("data"), context=16, model=ModelOptions(tie_embeddings=True))


def made(grid, base=BASE):
    return trials(grid, base, vocab_size=50, n_train_tokens=100_000)


def test_equal_compute_shares_flops_and_fixed_sizes_share_tokens():
    found = made(Grid(sizes=("1x16", "2x32"), flops=(3e9,), tokens=(40_000,)))
    assert len(found) == 4
    equal = [trial for trial in found if trial.name.startswith("c3e09")]
    assert [trial.flops for trial in equal] == pytest.approx([3e9, 3e9], rel=0.02)
    assert equal[0].tokens != equal[1].tokens
    fixed = [trial for trial in found if trial.name.startswith("d4e04")]
    assert [trial.tokens for trial in fixed] == pytest.approx([40_000, 40_000], rel=0.02)
    assert [trial.flops for trial in found] == sorted(trial.flops for trial in found)


def test_a_trial_counts_whole_updates_and_all_parameters():
    for trial in made(Grid(sizes=("2x32",), flops=(1e9, 7.7e9))):
        config = trial.config
        assert trial.tokens == config.batch_size * config.context * config.max_steps
        assert trial.flops == 6 * trial.parameters * trial.tokens
        module = Decoder(decoder_from_dial(config.depth, 16, 50, config.model))
        assert trial.parameters == sum(p.numel() for p in module.parameters())
    assert count_parameters(BASE, 2, 32, 50) == trial.parameters


def test_batches_grow_with_the_root_of_the_tokens_and_rates_are_those_of_the_dial():
    assert batch_sequences(1_000_000, 1) == 1250
    assert batch_sequences(4_000_000, 1) == 2500
    assert batch_sequences(10, 256) == 1
    small, large = made(Grid(sizes=("1x16",), tokens=(1e5, 1e7)))
    assert large.config.batch_size / small.config.batch_size == pytest.approx(10, rel=0.05)
    assert large.config.optimizer.lr == small.config.optimizer.lr
    narrow, wide = made(Grid(sizes=("1x16", "1x64"), tokens=(1e5,)))
    assert narrow.config.optimizer.lr == pytest.approx(2 * wide.config.optimizer.lr), "root of the width"


def test_what_the_base_says_holds_for_all():
    base = dataclasses.replace(BASE, batch_size=3, optimizer=OptimizerOptions(lr=0.5))
    found = made(Grid(sizes=("1x16", "2x32"), tokens=(1e4,)), base)
    assert {(trial.config.batch_size, trial.config.optimizer.lr) for trial in found} == {(3, 0.5)}


def test_trials_outside_the_bounds_are_left_out():
    grid = Grid(sizes=("1x16", "2x32"), tokens=(1e4, 1e6))
    everything = made(grid)
    bound = max(trial.tokens / trial.parameters for trial in everything) / 2
    kept = made(dataclasses.replace(grid, most_tokens_per_parameter=bound))
    assert 0 < len(kept) < len(everything)
    assert all(trial.tokens / trial.parameters < 1.1 * bound for trial in kept)


@pytest.mark.parametrize(("grid", "message"), [
    (Grid(sizes=(), flops=(1e9,)), "--sizes"), (Grid(sizes=("4-96",), flops=(1e9,)), "'4-96' is not DEPTHxWIDTH"),
    (Grid(sizes=("0x16",), flops=(1e9,)), "'0x16'"), (Grid(sizes=("1x16",)), "give budgets"),
    (Grid(sizes=("1x16",), flops=(-1.0,)), "--flops: must be positive"),
    (Grid(sizes=("1x16",), tokens=(math.nan,)), "--tokens: must be positive"),
    (Grid(sizes=("1x16", "1x16"), flops=(1e9,)), "occurs twice"),
    (Grid(sizes=("1x16",), flops=(1e9,), least_tokens_per_parameter=1e9), "no trial is left"),
    (Grid(sizes=("1x16",), flops=(1e9,), least_tokens_per_parameter=9, most_tokens_per_parameter=3), "the least"),
])
def test_grids_that_cannot_be(grid, message):
    with pytest.raises(ConfigError, match=message):
        made(grid)
