"""Tasks in T5's proportions, pass after pass."""

import collections

import numpy as np
import pytest

from tickwise.core.errors import ConfigError
from tickwise.data.mixture import MixedPairs
from tickwise.data.mixture_options import MixtureOptions, mixture_rates
from tickwise.data.pair_batches import EncodedPairs, PairBatches
from tickwise.data.sentences import sentences_from_ids


def task(first, n):
    """Pairs whose only token says which they are."""
    ids = [[first + i] for i in range(n)]
    return EncodedPairs(sentences_from_ids(ids, 0), sentences_from_ids(ids, 0), np.arange(n))


def tokens(pairs):
    assert [pairs.sources.ids(i) for i in range(len(pairs))] == [pairs.targets.ids(i) for i in range(len(pairs))]
    return [pairs.sources.ids(i)[0] for i in range(len(pairs))]


def test_rates_by_hand():
    assert mixture_rates([10, 30], MixtureOptions()) == [0.25, 0.75]
    assert mixture_rates([10, 1000], MixtureOptions(cap=30)) == [0.25, 0.75]
    assert mixture_rates([1, 16], MixtureOptions(temperature=2.0)) == [0.2, 0.8]
    equal = mixture_rates([1, 10**6], MixtureOptions(temperature=1e9))
    assert equal == pytest.approx([0.5, 0.5], abs=1e-6)


def test_without_a_cap_every_epoch_has_every_pair_once():
    mixed = MixedPairs([task(100, 7), task(200, 5)], MixtureOptions(), seed=1)
    for epoch in range(3):
        assert sorted(tokens(mixed(epoch))) == [*range(100, 107), *range(200, 205)]


def test_a_capped_task_is_gone_through_over_the_epochs_and_a_small_one_repeats():
    mixed = MixedPairs([task(100, 40), task(200, 4)], MixtureOptions(cap=10, temperature=2.0), seed=1)
    assert sum(mixed.counts) == 14
    assert mixed.counts == [9, 5]
    seen = collections.Counter(token for epoch in range(8) for token in tokens(mixed(epoch)))
    large = [count for token, count in seen.items() if token < 200]
    small = [count for token, count in seen.items() if token >= 200]
    assert (len(large), sum(large), max(large)) == (40, 72, 2)
    assert (len(small), sum(small), min(small)) == (4, 40, 10)


def test_it_depends_on_seed_and_epoch_alone_and_makes_batches():
    parts, options = [task(100, 40), task(200, 4)], MixtureOptions(cap=10)
    one, two, other = (MixedPairs(parts, options, seed) for seed in (1, 1, 2))
    one(0)
    assert tokens(one(5)) == tokens(two(5))
    assert tokens(one(5)) != tokens(one(6))
    assert tokens(one(5)) != tokens(other(5))
    batches = PairBatches(one, batch_tokens=8, seed=3)
    for _ in range(7):
        batches.next_batch()
    again = PairBatches(two, batch_tokens=8, seed=3)
    again.restore(batches.state())
    assert batches.next_batch().tolist() == again.next_batch().tolist()


def test_proportions_in_which_a_task_has_no_pair_are_refused():
    tasks = [task(100, 30), task(1000, 9000)]
    with pytest.raises(ConfigError, match=r"--mixture\.temperature 0\.4: none of the 9,030 .* the task that has 30"):
        MixedPairs(tasks, MixtureOptions(temperature=0.4), seed=1)
    assert min(MixedPairs(tasks, MixtureOptions(temperature=0.9), seed=1).counts) > 0


def test_wrong_settings():
    with pytest.raises(ConfigError, match="cap"):
        MixtureOptions(cap=0)
    with pytest.raises(ConfigError, match="temperature"):
        MixtureOptions(temperature=0)
