"""What a job is told, and what it gives once it is ready."""

from dataclasses import dataclass
from pathlib import Path

from tickwise.compare.cases import Material
from tickwise.compare.contestants import Classical
from tickwise.compare.learners import Learner
from tickwise.compare.measure import Score, exact


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a comparison is told."""

    n: int
    """Cases of each kind."""
    seed: int
    data_dir: Path | None


@dataclass(frozen=True)
class Prepared:
    """A job that is ready: its material, its programs, and who trains its model."""

    material: Material
    programs: tuple[Classical, ...]
    learner: Learner
    score: Score = exact
    template: str = "{}"
    """Prompt of a model that writes and that is given."""
    most_tokens: int = 40
