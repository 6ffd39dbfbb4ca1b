"""Where one training step and one decoded token spend their time, measured on any ``torch.nn.Module``.

Forward passes are timed by hooks around the submodules that are stages. The backward pass is timed by hooks
on the gradients of their outputs: such a hook runs when the backward pass reaches the submodule, and what
follows belongs to it until the next hook runs. Residual additions between two stages belong to the later
one in the backward pass, and to ``host`` in the forward pass.
"""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch.utils._pytree import tree_leaves

from tickwise.core.stages import Stage
from tickwise.profiling.program import Program
from tickwise.profiling.stages import StageTimer, staged_modules

Phase = Literal["data", "forward", "backward", "optimizer", "decode", "host"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageRow:
    """One row of a profile. ``layer`` is ``None`` where the stage is not part of a layer."""

    phase: Phase
    stage: Stage
    layer: int | None
    duration_ns: float
    share: float
    """Of the wall time; the shares of a profile sum to 1."""
    flops: int | None
    """``None``: not counted. Elementwise work counts as 0."""
    share_of_peak: float | None
    """FLOPs/s of the row over the machine's measured peak; ``None`` without both."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageProfile:
    """Rows that add up to ``wall_ns``."""

    rows: tuple[StageRow, ...]
    wall_ns: float
    """With the measuring hooks."""
    plain_wall_ns: float | None
    """The same work without hooks; the difference is what measuring costs. ``None``: not measured."""
    repetitions: int
    flops: int | None
    peak_flops_per_s: float | None
    time_kind: str = "measured"
    flops_kind: str = "counted"

    @property
    def share_of_peak(self) -> float | None:
        """Of the whole step, over the same wall time as its rows."""
        return _share_of_peak(self.flops, self.wall_ns, self.peak_flops_per_s)

    @property
    def disturbed(self) -> bool:
        """Whether the same work took so different times that something else must have used the machine."""
        return self.plain_wall_ns is not None and not 0.67 < self.wall_ns / self.plain_wall_ns < 1.5

    def by_stage(self) -> list[StageRow]:
        """The rows with all layers of a stage and phase added up, in order of first appearance."""
        groups: dict[tuple[Phase, Stage], list[StageRow]] = {}
        for row in self.rows:
            groups.setdefault((row.phase, row.stage), []).append(row)
        summed = []
        for (phase, stage), rows in groups.items():
            duration = sum(row.duration_ns for row in rows)
            counts = [row.flops for row in rows]
            flops = None if None in counts else sum(count for count in counts if count is not None)
            summed.append(StageRow(
                phase=phase, stage=stage, layer=None, duration_ns=duration, share=sum(row.share for row in rows),
                flops=flops, share_of_peak=_share_of_peak(flops, duration, self.peak_flops_per_s),
            ))  # fmt: skip
        return summed


def _share_of_peak(flops: int | None, duration_ns: float, peak: float | None) -> float | None:
    if not flops or not peak or duration_ns <= 0:
        return None
    return flops / (duration_ns * 1e-9) / peak


def profile_training_step(
    module: torch.nn.Module,
    *,
    next_batch: Callable[[], Any],
    loss: Callable[[Any], torch.Tensor],
    optimizer_step: Callable[[], object],
    repetitions: int = 9,
    budget_s: float = 30.0,
    program: Program | None = None,
    peak_flops_per_s: float | None = None,
) -> StageProfile:
    """Run ``next_batch`` → ``loss(batch)`` → backward → ``optimizer_step`` and say where the time went.

    ``loss`` calls ``module`` and returns the scalar to differentiate; ``optimizer_step`` also clears the
    gradients. These are real steps: the weights change. Fewer than ``repetitions`` are measured when
    ``budget_s`` seconds are over. What follows the last submodule in ``loss`` is the
    row ``loss``. ``program`` is the listing of ``loss`` and its backward pass.
    """
    device = _device(module)

    def step(timer: StageTimer | None) -> None:
        if timer is None:
            loss(next_batch()).backward()
            optimizer_step()
            return
        recorder.begin("data")
        with timer.stage(Stage.DATA):
            batch = next_batch()
        recorder.begin("forward")
        value = loss(batch)
        recorder.trailing(Stage.LOSS)
        recorder.begin("backward")
        timer.enter(Stage.LOSS)
        value.backward()
        timer.leave()
        recorder.begin("optimizer")
        with timer.stage(Stage.OPTIMIZER):
            optimizer_step()

    timer = StageTimer(device)
    recorder = _Recorder(timer)
    runs, plain = _repeat(module, recorder, step, repetitions, budget_s, backward=True)
    return _profile(module, runs, plain, program, {"forward": "forward", "backward": "backward"}, peak_flops_per_s)


def profile_decode_token(
    module: torch.nn.Module,
    step: Callable[[], object],
    *,
    repetitions: int = 25,
    budget_s: float = 30.0,
    program: Program | None = None,
    peak_flops_per_s: float | None = None,
) -> StageProfile:
    """Run ``step``, which decodes and samples one token with ``module``, and say where the time went.

    What follows the last submodule (the choice of the token) is the row ``sample``. ``program`` is the
    listing of the forward pass of one token.
    """

    def one(timer: StageTimer | None) -> None:
        if timer is None:
            step()
            return
        recorder.begin("decode")
        step()
        recorder.trailing(Stage.SAMPLE)

    timer = StageTimer(_device(module))
    recorder = _Recorder(timer)
    runs, plain = _repeat(module, recorder, one, repetitions, budget_s, backward=False)
    return _profile(module, runs, plain, program, {"forward": "decode"}, peak_flops_per_s)


def _device(module: torch.nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


_Key = tuple[Phase, Stage, int | None]


class _Recorder:
    """Collects the timer's rows phase by phase."""

    def __init__(self, timer: StageTimer) -> None:
        self.timer = timer
        self.phase: Phase = "host"
        self.durations: dict[_Key, int] = {}
        self._seen: dict[tuple[Stage, int | None], int] = {}
        self._last_leave_ns = 0

    def start(self) -> None:
        self.durations, self._seen, self.phase = {}, {}, "host"
        self.timer.start()

    def begin(self, phase: Phase) -> None:
        """What the timer gathered until now belongs to the phase before."""
        self.timer.mark(Stage.HOST)
        self._collect()
        self.phase = phase

    def _collect(self) -> None:
        for row in self.timer.rows():
            gathered = row.duration_ns - self._seen.get((row.stage, row.layer), 0)
            self._seen[row.stage, row.layer] = row.duration_ns
            # Host time is one row, whatever phase it fell into.
            key: _Key = ("host" if row.stage is Stage.HOST else self.phase, row.stage, row.layer)
            self.durations[key] = self.durations.get(key, 0) + gathered

    def left_stage(self) -> None:
        self._last_leave_ns = self.timer.last_change_ns

    def trailing(self, stage: Stage) -> None:
        """The host time since the last submodule ended was ``stage``."""
        if self._last_leave_ns:
            self.timer.reassign_since(self._last_leave_ns, stage)
            self._last_leave_ns = 0

    def finish(self) -> tuple[dict[_Key, int], int]:
        self.timer.stop()
        self._collect()
        self._last_leave_ns = 0
        return self.durations, self.timer.wall_ns


@contextlib.contextmanager
def _hooked(module: torch.nn.Module, recorder: _Recorder, backward: bool) -> Iterator[None]:
    timer = recorder.timer
    handles: list[Any] = []
    for child, stage, layer in staged_modules(module).values():

        def enter(_module: Any, _args: Any, stage: Stage = stage, layer: int | None = layer) -> None:
            timer.enter(stage, layer)

        def leave(
            _module: Any, _args: Any, output: Any, stage: Stage = stage, layer: int | None = layer
        ) -> None:
            if backward and torch.is_grad_enabled():
                # The first output is the one that goes on to the next stage.
                for leaf in tree_leaves(output):
                    if isinstance(leaf, torch.Tensor):
                        if leaf.requires_grad:
                            leaf.register_hook(lambda _gradient: timer.mark(stage, layer))
                        break
            timer.leave()
            recorder.left_stage()

        handles.append(child.register_forward_pre_hook(enter))
        handles.append(child.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _repeat(
    module: torch.nn.Module, recorder: _Recorder, step: Callable[[StageTimer | None], None], repetitions: int,
    budget_s: float, *, backward: bool,
) -> tuple[list[tuple[dict[_Key, int], int]], list[int]]:
    """Timed and plain repetitions in turns, so that both see the same machine; at least one of each."""
    runs: list[tuple[dict[_Key, int], int]] = []
    plain: list[int] = []
    end = time.perf_counter() + budget_s
    for warm_up in (True, *[False] * repetitions):
        with _hooked(module, recorder, backward):
            recorder.start()
            step(recorder.timer)
            finished = recorder.finish()
        start = time.perf_counter_ns()
        step(None)
        recorder.timer.synchronize()
        elapsed = time.perf_counter_ns() - start
        if not warm_up:
            runs.append(finished)
            plain.append(elapsed)
            if time.perf_counter() > end:
                break
    return runs, plain


def _profile(
    module: torch.nn.Module, runs: Sequence[tuple[dict[_Key, int], int]], plain: Sequence[int],
    program: Program | None, phases: Mapping[str, Phase], peak: float | None,
) -> StageProfile:
    """Means over the middle half of the repetitions by wall time.

    Medians of rows do not add up to the median of the wall time; means do, and leaving out the fastest and
    the slowest quarter keeps them as steady as a median.
    """
    flops = _flops_by_row(module, program, phases) if program is not None else None
    ordered = sorted(runs, key=lambda run: run[1])
    quarter = len(ordered) // 4
    middle = ordered[quarter : len(ordered) - quarter]
    wall = sum(wall_ns for _, wall_ns in middle) / len(middle)
    keys = list(dict.fromkeys(key for durations, _ in middle for key in durations if key[1] is not Stage.HOST))
    rows = []
    for key in [*keys, ("host", Stage.HOST, None)]:
        duration = sum(durations.get(key, 0) for durations, _ in middle) / len(middle)
        count = flops.get(key, 0) if flops is not None else None
        rows.append(StageRow(
            phase=key[0], stage=key[1], layer=key[2], duration_ns=duration, share=duration / wall, flops=count,
            share_of_peak=_share_of_peak(count, duration, peak),
        ))  # fmt: skip
    return StageProfile(
        rows=tuple(row for row in rows if row.duration_ns > 0 or row.stage is Stage.HOST), wall_ns=wall,
        plain_wall_ns=statistics.median(plain) if plain else None, repetitions=len(runs),
        flops=program.flops if program is not None else None, peak_flops_per_s=peak,
    )  # fmt: skip


def _flops_by_row(module: torch.nn.Module, program: Program, phases: Mapping[str, Phase]) -> dict[_Key, int]:
    """FLOPs by the stage whose module does them, in the forward pass at least; the rest belongs to ``host``."""
    staged = staged_modules(module)
    by_row: dict[_Key, int] = {}
    for instruction in program.instructions:
        parts = instruction.module.split(".")
        owner = next((o for n in range(1, len(parts) + 1) if (o := ".".join(parts[:n])) in staged), None)
        key: _Key = ("host", Stage.HOST, None)
        if owner is not None:
            key = (phases[instruction.direction], staged[owner][1], staged[owner][2])
        elif instruction.stage in (Stage.HEAD, Stage.LOSS):  # what follows the last submodule
            key = (phases[instruction.direction], Stage.LOSS, None)
        by_row[key] = by_row.get(key, 0) + instruction.flops
    return by_row
