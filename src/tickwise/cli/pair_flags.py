"""Flags of verbs that train a model for a task: how the run goes, and what an encoder–decoder on pairs has besides."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    from tickwise.engine.batch_beam import BeamOptions
    from tickwise.training.run import TrainResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags(CommonArguments):
    """How a training runs, whatever it trains."""

    max_seconds: float | None = None
    """End training after this time."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    overwrite: bool = False
    """Replace a run that is already in --out."""
    seed: int = 1
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the training's computation; weights and optimizer state stay fp32."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""

    def run_settings(self) -> dict[str, Any]:
        """The fields of this class, by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(RunFlags)
                if field.name not in CommonArguments.__dataclass_fields__}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairFlags(RunFlags):
    """What translating, summarising and tasks with prefixes share: an encoder–decoder learns to write texts."""

    out: Path | None = None
    """Run directory of a training."""
    lowercase: bool = False
    """In a training: read and write everything in lower case, which stays with the model."""
    beam: int = 4
    """Texts that are kept side by side; 1 always takes the most likely token."""
    length_penalty: float = 1.0
    """Log-probabilities are divided by length ** this; more favours longer texts."""
    trace: Path | None = None
    """Folder for a trace: every training step, stage by stage (tickwise trace show)."""

    def check_beam(self) -> None:
        """``ConfigError`` for a search that cannot be, before any work."""
        if self.beam < 1:
            raise ConfigError(f"--beam: must be at least 1, got {self.beam}")
        if not -10 <= self.length_penalty <= 10:
            raise ConfigError(f"--length-penalty: must be from -10 to 10, got {self.length_penalty}")

    def beam_options(self) -> "BeamOptions":
        from tickwise.engine.batch_beam import BeamOptions

        return BeamOptions(width=self.beam, length_penalty=self.length_penalty)

    def training_settings(self) -> dict[str, Any]:
        """What every training of these takes from the flags."""
        assert self.out is not None
        return self.run_settings() | {"out": self.out, "lowercase": self.lowercase, "trace": self.trace}


def figures_of(result: "TrainResult") -> dict[str, Any]:
    """What is said of a finished training, as JSON values."""
    return {"model": str(result.model), "parameters": result.n_parameters, "seconds": result.seconds,
            "development_perplexity": result.validation.get("perplexity")}
