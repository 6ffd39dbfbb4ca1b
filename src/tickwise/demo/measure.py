"""What the demo's training steps and written tokens cost: traces of them, and their stages for the report."""

import time
from pathlib import Path

from tickwise.core.console import format_count
from tickwise.core.paths import write_text_atomic
from tickwise.core.stages import Stage, mark
from tickwise.data.prepared import PreparedData
from tickwise.profiling.trace_phases import PhaseSummary, StageSummary, phase_summaries
from tickwise.profiling.trace_store import Trace, open_trace
from tickwise.report.charts import duration
from tickwise.report.data import Breakdown, TimeRow
from tickwise.report.timeline import timeline_page
from tickwise.training.loop import Training, gradient, update
from tickwise.training.run import Plan, build
from tickwise.training.tracing import heard, traced

_MOST_STEPS = 20
_FAR_FROM_USUAL = 1.5


def trace_training(made: Plan, data: PreparedData, path: Path, budget_s: float) -> None:
    """Record steps of the run's own shape, number format and optimizer, on a fresh model, as a trace at ``path``.

    They are twenty, or as many as fit into ``budget_s`` seconds, at least one.
    """
    training = build(made, data)
    training.module.train()
    _step(training)  # in the first one the optimizer makes its state
    end = time.perf_counter() + budget_s
    with traced(training, path, overwrite=True), heard(training):
        for _ in range(_MOST_STEPS):
            training.begin_step()
            _step(training)
            training.end_step()
            if time.perf_counter() > end:
                break


def _step(training: Training) -> None:
    _, gradients, _ = gradient(training)
    update(training, gradients, scale=1.0)
    mark(Stage.HOST)


def write_timeline(trace: Trace, path: Path) -> None:
    """The page that shows every tick of ``trace``."""
    write_text_atomic(path, timeline_page(
        ledger=trace.rows(), tokens=trace.tokens(), meta=trace.header, listing=trace.listing(), usage=trace.ticks(),
    ))  # fmt: skip


def training_step(path: Path, made: Plan, peak_flops_per_s: float | None, timeline: Path) -> Breakdown:
    """The mean step of the trace at ``path``; writes its ``timeline`` page."""
    config = made.config
    assert config.batch_size is not None
    steps = _phase(path, "train", timeline)
    rate = config.batch_size * config.context * steps.ticks / (steps.wall_ns * 1e-9)
    return _breakdown(
        "One training step", f"{config.batch_size} sequences of {config.context} tokens in {made.dtype}: "
        f"{format_count(rate)} tokens/s. {_mean_of(steps, 'step')}", steps, peak_flops_per_s, timeline,
    )  # fmt: skip


def written_token(path: Path, peak_flops_per_s: float | None, timeline: Path) -> Breakdown:
    """The mean token of the trace at ``path``, behind the prompts; writes its ``timeline`` page."""
    tokens = _phase(path, "decode", timeline)
    rate = tokens.ticks / (tokens.wall_ns * 1e-9)
    return _breakdown("One generated token", f"One text at a time, fp32: {rate:,.0f} tokens/s. "
                      + _mean_of(tokens, "token"), tokens, peak_flops_per_s, timeline)


def _phase(path: Path, phase: str, timeline: Path) -> PhaseSummary:
    trace = open_trace(path)
    write_timeline(trace, timeline)
    return next(one for one in phase_summaries(trace) if one.phase == phase)


def _mean_of(phase: PhaseSummary, unit: str) -> str:
    if phase.ticks == 1:
        return f"One {unit}."
    text = f"Mean of {phase.ticks} {unit}s; the median {unit} took {duration(phase.median_tick_ns)}"
    if phase.wall_ns > _FAR_FROM_USUAL * phase.ticks * phase.median_tick_ns:
        text += (f". That is far from the mean: other programs used this machine during some of the {unit}s, and the "
                 "shares below are those of a busy machine")
    return text + "."


def _breakdown(
    title: str, text: str, phase: PhaseSummary, peak_flops_per_s: float | None, timeline: Path
) -> Breakdown:
    """A phase's stages, each by its mean over the ticks."""
    n = phase.ticks
    counted = sum(stage.flops for stage in phase.stages if stage.flops is not None)
    return Breakdown(
        title=title, text=text, wall_ns=phase.wall_ns / n, flops=round(counted / n),
        share_of_peak=_share_of_peak(counted, phase.wall_ns, peak_flops_per_s), timeline=timeline.name,
        rows=tuple(_row(stage, n, peak_flops_per_s) for stage in phase.stages),
    )  # fmt: skip


def _row(stage: StageSummary, n: int, peak_flops_per_s: float | None) -> TimeRow:
    return TimeRow(
        stage=stage.stage, duration_ns=stage.duration_ns / n, bound=stage.bound,
        flops=None if stage.flops is None else round(stage.flops / n),
        share_of_peak=_share_of_peak(stage.flops, stage.duration_ns, peak_flops_per_s),
    )  # fmt: skip


def _share_of_peak(flops: int | None, duration_ns: int, peak_flops_per_s: float | None) -> float | None:
    if not flops or not peak_flops_per_s or duration_ns <= 0:
        return None
    return flops / (duration_ns * 1e-9) / peak_flops_per_s
