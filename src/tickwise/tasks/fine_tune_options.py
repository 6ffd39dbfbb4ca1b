"""How a model is fine-tuned: plain values that the command line shows as flags."""

from dataclasses import dataclass
from typing import Any

from tickwise.core.errors import ConfigError
from tickwise.training.config import OptimizerOptions, ScheduleOptions


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions:
    """The fine-tuning of a model for a task, which has batches, passes and a learning rate of its own."""

    fresh: bool = False
    """Take the model's shape and tokenizer and leave its weights: shows what its pre-training is worth."""
    dropout: float = 0.1
    word_dropout: float = 0.1
    """Share of the tokens that an update of an encoder reads as masked."""
    batch_size: int = 16
    epochs: float = 8.0
    lr: float = 5e-4
    layer_decay: float = 0.9
    """Each layer learns at this times the rate of the one above it; the head at the full rate."""
    warmup: float = 0.1
    """Share of the run in which the rate rises to its peak."""
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "lr", "layer_decay"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"--tuning.{name.replace('_', '-')}: must be positive, got {getattr(self, name)}")
        for name in ("dropout", "word_dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--tuning.{name.replace('_', '-')}: must be in [0, 1), got {getattr(self, name)}")

    def loop_settings(self) -> dict[str, Any]:
        """What a ``LoopConfig`` gets from here: AdamW, a rise and a fall to nothing of the learning rate."""
        return {
            "batch_size": self.batch_size,
            "optimizer": OptimizerOptions(name="adamw", lr=self.lr, weight_decay=self.weight_decay, beta2=0.999,
                                          layer_decay=self.layer_decay),
            "schedule": ScheduleOptions(name="wsd", warmup=self.warmup, decay=1.0 - self.warmup),
        }
