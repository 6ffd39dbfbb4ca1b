"""Pairs of several tasks in one training, in T5's proportions (Raffel et al. 2020, section 3.5.2)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tickwise.core.errors import ConfigError
from tickwise.data.mixture_options import MixtureOptions, mixture_rates
from tickwise.data.pair_batches import EncodedPairs
from tickwise.data.sentences import Sentences


class MixedPairs:
    """The pairs of every epoch: as many as the tasks count for together, in their proportions. Each task goes through
    its own pairs in an order drawn anew for every pass. Everything depends on ``seed`` and the epoch alone.

    Raises ``ConfigError`` for proportions in which a task would have no pair."""

    def __init__(self, tasks: Sequence[EncodedPairs], options: MixtureOptions, seed: int) -> None:
        sizes = [len(task) for task in tasks]
        total = sum(size if options.cap is None else min(size, options.cap) for size in sizes)
        self.rates = mixture_rates(sizes, options)
        # Rounded so that their sum is the whole: what a task has more than its share, the next one has less.
        ends = np.rint(np.cumsum(self.rates) * total).astype(np.int64)
        self.counts: list[int] = np.diff(ends, prepend=0).tolist()
        if 0 in self.counts:
            raise ConfigError(f"--mixture.temperature {options.temperature:g}: none of the {total:,} pairs of an epoch "
                              f"would be of the task that has {sizes[self.counts.index(0)]:,}; raise it")
        self._sizes, self._seed = sizes, seed
        self._begins = np.cumsum([0, *sizes])
        self.all = _joined(tasks)
        """All pairs, task by task."""

    def __call__(self, epoch: int) -> EncodedPairs:
        chosen = np.concatenate([begin + self._drawn(number, epoch)
                                 for number, begin in enumerate(self._begins[:-1])])
        sources, targets = (Sentences(side.tokens, side.starts[chosen], side.lengths[chosen], side.eos_id)
                            for side in (self.all.sources, self.all.targets))
        return EncodedPairs(sources, targets, chosen, self.all.start_id)

    def _drawn(self, task: int, epoch: int) -> NDArray[np.int64]:
        """The task's pairs of this epoch, by number."""
        size, count = self._sizes[task], self.counts[task]
        places = epoch * count + np.arange(count)
        drawn = np.empty(count, dtype=np.int64)
        for number in np.unique(places // size).tolist():
            own = places // size == number
            drawn[own] = np.random.default_rng((self._seed, 2, task, number)).permutation(size)[places[own] % size]
        return drawn


def _joined(tasks: Sequence[EncodedPairs]) -> EncodedPairs:
    return EncodedPairs(_chained([task.sources for task in tasks]), _chained([task.targets for task in tasks]),
                        np.concatenate([task.numbers for task in tasks]), tasks[0].start_id)


def _chained(parts: Sequence[Sentences]) -> Sentences:
    begins = np.cumsum([0, *(len(part.tokens) for part in parts)])
    return Sentences(np.concatenate([part.tokens for part in parts]),
                     np.concatenate([part.starts + begin for part, begin in zip(parts, begins[:-1], strict=True)]),
                     np.concatenate([part.lengths for part in parts]), parts[0].eos_id)
