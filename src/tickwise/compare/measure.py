"""What a contestant does and costs: how often it is right, whether it repeats itself, what an answer takes."""

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tickwise.compare.cases import Case, Material
from tickwise.compare.contestants import Classical, Contestant, Time, Training, times_of
from tickwise.profiling.energy import DEFAULT_COEFFICIENTS

_REPEATS = 2
_Z = 1.959964
FROM_TIME = "modelled from time"
_OF_CASES = ("scores", "answers", "seconds_each")
Score = Callable[[str, Case], float]
"""How good an answer is, from 0 to 1."""


@dataclass(frozen=True)
class Accuracy:
    """Mean score of n cases with its 95 % interval (Wilson's for right or wrong, else of a normal mean)."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Costs:
    """Of one answer to a plain input, on average. ``None``: not known."""

    processor_s: float
    """Of all threads, at its own speed: one answer after the other in this process, without a ledger."""
    wall_s: float
    """Likewise, by the clock."""
    ledger_s: float
    """By the clock, under the ledger: each phase's median tick, times the ticks of an answer."""
    operations: float | None
    bytes_moved: float | None
    energy_j: float
    energy_source: str
    """``measured``, or ``modelled from time``: processor seconds times the watts of a core."""


@dataclass(frozen=True)
class Measured:
    """One contestant of a job."""

    kind: str
    name: str
    operations: str
    steps: Mapping[str, float] | None
    """Steps of one answer by kind, of a classical program."""
    accuracy: Mapping[str, Accuracy]
    costs: Costs
    memory_bytes: int
    deterministic: float
    """Share of the texts that got the same answer every time, in other company and another order."""
    training: Training | None
    scores: Mapping[str, tuple[float, ...]]
    answers: Mapping[str, tuple[str, ...]]
    seconds_each: tuple[float, ...]
    """Processor time of the answer to each text that was timed."""

    def as_json(self) -> dict[str, Any]:
        """All but what belongs to single cases."""
        return {name: value for name, value in asdict(self).items() if name not in _OF_CASES}


def exact(answer: str, case: Case) -> float:
    return float(answer == case.answer)


def scores_of(contestant: Contestant, cases: Sequence[Case], score: Score) -> tuple[float, ...]:
    """Of the contestant's answers to the cases."""
    return _scores(contestant.answers([case.text for case in cases]), cases, score)


def measure(contestant: Contestant, material: Material, score: Score, folder: Path, *, n_timed: int,
            seed: int) -> Measured:
    """Ask all cases, then again in other company, then ``n_timed`` plain ones one by one against the clock, and again
    under the ledger (the trace goes to ``folder``)."""
    answers = {kind: contestant.answers([case.text for case in cases]) for kind, cases in material.cases.items()}
    scores = {kind: _scores(answers[kind], cases, score) for kind, cases in material.cases.items()}
    timed = [case.text for case in material.cases[material.plain][:n_timed]]
    times = times_of(contestant.answer, timed)
    n_recorded = contestant.record(timed, folder)
    tally = contestant.tally(timed) if isinstance(contestant, Classical) else None
    costs = costs_of(folder, n_recorded, Time(statistics.fmean(one.processor_s for one in times),
                                              statistics.fmean(one.wall_s for one in times)))
    if tally is not None:
        costs = Costs(**asdict(costs) | {"operations": tally.total / len(timed),
                                         "bytes_moved": (tally.bytes_read + tally.bytes_written) / len(timed)})
    return Measured(
        kind=contestant.kind, name=contestant.name, operations=contestant.operations,
        steps=None if tally is None else {name: n / len(timed) for name, n in tally.steps.items()},
        accuracy={kind: accuracy(values) for kind, values in scores.items()}, costs=costs,
        memory_bytes=contestant.memory_bytes(), deterministic=_deterministic(contestant, material, answers, seed),
        training=contestant.training, scores=scores, seconds_each=tuple(one.processor_s for one in times),
        answers={kind: tuple(values) for kind, values in answers.items()})


def _scores(answers: Sequence[str], cases: Sequence[Case], score: Score) -> tuple[float, ...]:
    return tuple(score(answer, case) for answer, case in zip(answers, cases, strict=True))


def accuracy(values: Sequence[float]) -> Accuracy:
    """The mean with its interval."""
    n, mean = len(values), statistics.fmean(values)
    if set(values) <= {0.0, 1.0}:
        centre = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n * n))
    else:
        centre, half = mean, _Z * statistics.pstdev(values) / math.sqrt(n)
    return Accuracy(mean, max(0.0, centre - half), min(1.0, centre + half), n)


def _deterministic(contestant: Contestant, material: Material, answers: Mapping[str, list[str]], seed: int) -> float:
    asked = [(case.text, answer) for kind, cases in material.cases.items()
             for case, answer in zip(cases, answers[kind], strict=True)]
    rng = random.Random(seed)
    same = [True] * len(asked)
    for _ in range(_REPEATS):
        order = rng.sample(range(len(asked)), len(asked))
        for place, answer in zip(order, contestant.answers([asked[place][0] for place in order]), strict=True):
            same[place] = same[place] and answer == asked[place][1]
    return sum(same) / len(same)


def costs_of(folder: Path, n_answers: int, time: Time) -> Costs:
    """Of a trace with so many answers, each of which took that ``time`` without a ledger. Work is the sum over its
    ticks; time under the ledger is that of each phase's median tick, times its ticks: other programs on the machine
    make single ticks longer. Energy is the ledger's where a counter measured it, else the processor's time times the
    watts of a core."""
    import duckdb

    ledger = str(folder / "ledger.parquet")
    with duckdb.connect(":memory:") as connection:
        (operations, moved, counted, joules, measured), = connection.execute(
            "SELECT sum(flops), coalesce(sum(bytes_read), 0) + coalesce(sum(bytes_written), 0), count(bytes_read), "
            "sum(energy_j), coalesce(bool_and(energy_source::VARCHAR = 'measured'), false) FROM read_parquet(?)",
            [ledger]).fetchall()
        (nanoseconds,), = connection.execute("""
            SELECT sum(ns) FROM (
                SELECT median(ns) * count(*) AS ns
                FROM (SELECT phase, sum(duration_ns) AS ns FROM read_parquet(?) GROUP BY tick, phase) GROUP BY phase)
            """, [ledger]).fetchall()
    if measured and joules is not None:
        energy, source = joules / n_answers, "measured"
    else:
        energy, source = time.processor_s * DEFAULT_COEFFICIENTS.idle_watts_per_core, FROM_TIME
    return Costs(time.processor_s, time.wall_s, nanoseconds * 1e-9 / n_answers,
                 None if operations is None else operations / n_answers, moved / n_answers if counted else None,
                 energy, source)
