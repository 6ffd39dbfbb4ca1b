"""What a report shows. Text is plain text: writing the page escapes it."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from tickwise.report.metrics import Metric

Kind = Literal["measured", "counted", "modelled", "reported"]


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure of the headline or of the ceilings; ``value`` ``None`` is shown as n/a."""

    name: str
    value: str | None
    kind: Kind
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Sample:
    """What the model wrote after ``prompt`` before and after training."""

    prompt: str
    before: str
    after: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeRow:
    """Time of one stage; what is ``None`` is not known."""

    stage: str
    duration_ns: float
    flops: int | None = None
    share_of_peak: float | None = None
    bound: str | None = None
    """What holds it back: ``compute``, ``memory`` or ``overhead``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Where the time of one step went. The rows add up to ``wall_ns``."""

    title: str
    text: str
    wall_ns: float
    rows: tuple[TimeRow, ...]
    flops: int | None = None
    share_of_peak: float | None = None
    """Of the whole step."""
    timeline: str | None = None
    """Name of the page beside this one that shows each tick."""
    time_kind: Kind = "measured"
    flops_kind: Kind = "counted"

    def __post_init__(self) -> None:
        total = sum(row.duration_ns for row in self.rows)
        assert abs(total - self.wall_ns) <= 0.01 * self.wall_ns, "the rows must add up to the wall time"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportData:
    """All of one page. Empty parts are left out of it."""

    title: str
    """What was trained, in a few words."""
    summary: str
    """The result in a sentence."""
    figures: tuple[Figure, ...] = ()
    metrics: tuple[Metric, ...] = ()
    samples: tuple[Sample, ...] = ()
    machine: str = ""
    ceilings: tuple[Figure, ...] = ()
    breakdowns: tuple[Breakdown, ...] = ()
    command: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
