"""What the configs of all classifiers of texts have: classes, calibration, and how they decide."""

from dataclasses import dataclass

from tickwise.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Base of a classifier's config."""

    labels: tuple[str, ...]
    dropout: float = 0.0
    """While training."""
    temperature: float = 1.0
    """Logits are divided by it, so that probabilities agree with frequencies (Guo et al. 2017)."""
    positive: str = ""
    """The class that a filter looks for; empty: the likeliest class is predicted."""
    threshold: float = 0.5
    """Least probability at which a filter predicts ``positive``."""

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ConfigError("labels: a classifier needs at least two, all different")
        if self.positive and self.positive not in self.labels:
            raise ConfigError(f"positive: '{self.positive}' is none of the labels")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout: must be in [0, 1), got {self.dropout}")
        if not self.temperature > 0:
            raise ConfigError(f"temperature: must be positive, got {self.temperature}")
