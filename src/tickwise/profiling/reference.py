"""Small reference runs: what a phase really takes, stage by stage, to fit what single operations do not show."""

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from tickwise.core.allocator import is_tuned
from tickwise.core.config import read_json
from tickwise.core.console import say
from tickwise.core.errors import ConfigError, OutputError
from tickwise.core.paths import cache_directory, write_text_atomic
from tickwise.core.stages import Stage, marking
from tickwise.profiling.ceilings import fingerprint
from tickwise.profiling.overheads import announced, clock
from tickwise.profiling.predict import Correction
from tickwise.profiling.program import Instruction

_FORMAT_VERSION = 9


class _StageClock:
    """Adds up the time between marks, by stage."""

    def __init__(self) -> None:
        self._now = clock()
        self.seconds: dict[Stage, float] = {}
        self.stage, self._since = Stage.HOST, self._now()

    def mark(self, stage: Stage, layer: int | None = None) -> None:
        now = self._now()
        self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self._since
        self.stage, self._since = stage, self._now()


_ROUNDS = 4
_BUDGET_S = 0.1
_MARKS_MATTER_BELOW_S = 5e-3


def typical_seconds(times: Sequence[float]) -> float:
    """Mean of the fastest quarter: interference only ever makes a run slower."""
    return statistics.fmean(sorted(times)[: -(-len(times) // 4)])


def stage_seconds(runs: Sequence[Callable[[], object]], what: str) -> list[dict[Stage, float]]:
    """For each of ``runs`` the seconds of every stage that it marks, repeated in rounds that go through all of them;
    each is announced as so many ``what``.

    They are scaled so that they add up to a run without a clock in it, where the clock matters.
    """
    now = clock()
    marked: list[dict[Stage, list[float]]] = [{} for _ in runs]
    plain: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for index, run in announced(f"{len(runs)} {what}", _ROUNDS, list(enumerate(runs))):
        spent = 0.0
        for repetition in range(40):
            stages = _StageClock()
            with marking(stages):
                run()
            stages.mark(Stage.HOST)
            for stage, seconds in stages.seconds.items():
                marked[index].setdefault(stage, []).append(seconds)
            total = sum(stages.seconds.values())
            if total < _MARKS_MATTER_BELOW_S:
                start = now()
                run()
                plain[index].append(now() - start)
            spent += total
            if spent > _BUDGET_S and repetition > 0:
                break
    found = []
    for stages_of_run, without in zip(marked, plain, strict=True):
        typical = {stage: typical_seconds(times) for stage, times in stages_of_run.items()}
        share = typical_seconds(without) / sum(typical.values()) if without else 1.0
        found.append({stage: seconds * share for stage, seconds in typical.items()})
    return found


def by_stage(instructions: Sequence[Instruction]) -> dict[Stage, list[Instruction]]:
    """Instructions by stage."""
    found: dict[Stage, list[Instruction]] = {}
    for instruction in instructions:
        found.setdefault(instruction.stage, []).append(instruction)
    return found


def process_bytes(name: str, function: str, refresh: bool = False) -> int:
    """What a process takes besides its model: the resident memory of a fresh one in which ``function``
    (``module:call()``) has run the smallest model there is: what it returns, or, of ``None``, what there is after it.
    From the cache (``name``), or measured now, in up to a minute.
    """
    allocator = "tuned-" if is_tuned() else ""
    path = cache_directory() / f"process-{_FORMAT_VERSION}-{allocator}{name}-{fingerprint()}.json"
    if not refresh:
        with contextlib.suppress(ConfigError, TypeError, KeyError, ValueError):
            return int(read_json(path, "the size of a process")["bytes"])
    say(f"measuring what a process takes besides its model, up to a minute; once: kept in {path.parent}")
    module, _, call = function.partition(":")
    tuning = "from tickwise.core.allocator import tune; tune(); " if is_tuned() else ""
    code = f"{tuning}import psutil, {module} as m; found = m.{call}; "
    code += "print(psutil.Process().memory_info().rss if found is None else found)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found = int(done.stdout.split()[-1])
    with contextlib.suppress(OutputError, OSError):
        write_text_atomic(path, json.dumps({"bytes": found}) + "\n")
    return found


def cached_corrections(
    name: str, measure: Callable[[], Mapping[str, Correction]], refresh: bool = False
) -> dict[str, Correction]:
    """The corrections called ``name`` of this machine from the cache, measured first when there are none."""
    path = cache_directory() / f"corrections-{_FORMAT_VERSION}-{name}-{fingerprint()}.json"
    if not refresh:
        with contextlib.suppress(ConfigError, TypeError, AttributeError):
            return {phase: Correction(factors=dict(factors))
                    for phase, factors in read_json(path, "the corrections").items()}
    measured = measure()
    with contextlib.suppress(OutputError, OSError):
        write_text_atomic(path, json.dumps({phase: one.factors for phase, one in measured.items()}) + "\n")
    return dict(measured)
