"""In what proportions tasks are mixed (Raffel et al. 2020, section 3.5.2): plain values that the command line shows as
flags."""

from collections.abc import Sequence
from dataclasses import dataclass

from tickwise.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MixtureOptions:
    """How often each task is seen."""

    cap: int | None = None
    """A task counts for at most so many pairs (T5's artificial data set size limit K); left out, for all of its own."""
    temperature: float = 1.0
    """Shares are raised to 1 / this: above 1, small tasks are seen more often."""

    def __post_init__(self) -> None:
        if self.cap is not None and self.cap < 1:
            raise ConfigError(f"--mixture.cap: must be at least 1, got {self.cap}")
        if not self.temperature > 0:
            raise ConfigError(f"--mixture.temperature: must be positive, got {self.temperature}")


def mixture_rates(sizes: Sequence[int], options: MixtureOptions) -> list[float]:
    """The share of each task: min(pairs, cap) ** (1 / temperature), over their sum.

    >>> [round(rate, 3) for rate in mixture_rates([100, 400], MixtureOptions(cap=200, temperature=2.0))]
    [0.414, 0.586]
    """
    counted = [size if options.cap is None else min(size, options.cap) for size in sizes]
    weights = [count ** (1 / options.temperature) for count in counted]
    return [weight / sum(weights) for weight in weights]
