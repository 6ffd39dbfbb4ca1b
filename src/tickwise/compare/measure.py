"""What a contestant does and costs: how often it is right, whether it repeats itself, and what the ledger says."""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tickwise.compare.cases import Case, Material
from tickwise.compare.contestants import Classical, Contestant

_REPEATS = 2
_Z = 1.959964
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
    """Of one answer, on average, from the ledger. ``None``: not known."""

    seconds: float
    operations: float | None
    bytes_moved: float | None
    energy_j: float | None
    energy_source: str


@dataclass(frozen=True)
class Changed:
    """A change of behaviour: what, the seconds of making and of testing, FLOPs, and the accuracy afterwards."""

    what: str
    make_s: float | None
    test_s: float
    flops: float | None
    accuracy: Mapping[str, Accuracy] | None


@dataclass(frozen=True)
class Measured:
    """One contestant of a job."""

    kind: str
    name: str
    operations: str
    steps: Mapping[str, float] | None
    """Steps of one answer by kind, of a classical program that counts."""
    accuracy: Mapping[str, Accuracy]
    costs: Costs
    memory_bytes: int
    deterministic: float
    """Share of the texts that got the same answer every time, in other company and another order."""
    change: Changed | None
    scores: Mapping[str, tuple[float, ...]]
    """Of each case."""

    def as_json(self) -> dict[str, Any]:
        """All but the single scores."""
        return {name: value for name, value in asdict(self).items() if name != "scores"}


def exact(answer: str, case: Case) -> float:
    return float(answer.strip() == case.answer)


def measure(contestant: Contestant, material: Material, score: Score, folder: Path, *, n_timed: int,
            seed: int) -> Measured:
    """Ask all cases, then again in other company, then ``n_timed`` of each kind one by one under the ledger (the trace
    goes to ``folder``), then change the contestant and test it again."""
    start = time.perf_counter()
    answers = {kind: contestant.answers([case.text for case in cases]) for kind, cases in material.cases.items()}
    test_s = time.perf_counter() - start
    scores = {kind: _scores(answers[kind], cases, score) for kind, cases in material.cases.items()}
    timed = [case.text for cases in material.cases.values() for case in cases[:n_timed]]
    n_recorded = contestant.record(timed, folder)
    tally = contestant.tally(timed) if isinstance(contestant, Classical) else None
    return Measured(
        kind=contestant.kind, name=contestant.name, operations=contestant.operations,
        steps=None if tally is None else {name: n / len(timed) for name, n in tally.steps.items()},
        accuracy={kind: _accuracy(values) for kind, values in scores.items()},
        costs=costs_of(folder, n_recorded), memory_bytes=contestant.memory_bytes(),
        deterministic=_deterministic(contestant, material, answers, seed),
        change=_changed(contestant, material, score, test_s), scores=scores)


def _scores(answers: Sequence[str], cases: Sequence[Case], score: Score) -> tuple[float, ...]:
    return tuple(score(answer, case) for answer, case in zip(answers, cases, strict=True))


def _accuracy(values: Sequence[float]) -> Accuracy:
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


def costs_of(folder: Path, n_answers: int) -> Costs:
    """Of a trace with so many answers. Work is the sum over its ticks; time and energy are those of each phase's median
    tick, times its ticks: other programs on the machine make single ticks longer. Energy counts the stages
    whose work is known (choosing a token is not), and is unknown where those take less than half of the time."""
    import duckdb

    ledger = str(folder / "ledger.parquet")
    with duckdb.connect(":memory:") as connection:
        (operations, moved), = connection.execute(
            "SELECT sum(flops), coalesce(sum(bytes_read), 0) + coalesce(sum(bytes_written), 0) FROM read_parquet(?) ",
            [ledger]).fetchall()
        (counted,), = connection.execute("SELECT count(bytes_read) FROM read_parquet(?)", [ledger]).fetchall()
        (nanoseconds, joules), = connection.execute("""
            WITH ticks AS (SELECT phase, sum(duration_ns) AS ns, sum(energy_j) AS j,
                                  sum(duration_ns) FILTER (energy_j IS NOT NULL) AS known_ns
                           FROM read_parquet(?) GROUP BY tick, phase)
            SELECT sum(ns), CASE WHEN sum(known_ns) > sum(all_ns) / 2 THEN sum(j) END
            FROM (SELECT median(ns) * count(*) AS ns, median(j) * count(*) AS j, sum(known_ns) AS known_ns,
                         sum(ns) AS all_ns FROM ticks GROUP BY phase)
            """, [ledger]).fetchall()
        sources = connection.execute("SELECT DISTINCT energy_source::VARCHAR FROM read_parquet(?) "
                                     "WHERE energy_j IS NOT NULL ORDER BY 1", [ledger]).fetchall()

    def each(total: float | None) -> float | None:
        return None if total is None else total / n_answers

    return Costs(nanoseconds * 1e-9 / n_answers, each(operations), each(moved) if counted else None, each(joules),
                 " and ".join(source for source, in sources) or "not known")


def _changed(contestant: Contestant, material: Material, score: Score, test_s: float) -> Changed | None:
    found = contestant.change()
    if found is None:
        return None
    after, change = found
    if after is contestant:  # trained anew: the same training, and the same tests
        return Changed(change.what, change.make_s, test_s, change.flops, None)
    start = time.perf_counter()
    answers = {kind: after.answers([case.text for case in cases]) for kind, cases in material.cases.items()}
    seconds = time.perf_counter() - start
    return Changed(change.what, change.make_s, seconds, change.flops,
                   {kind: _accuracy(_scores(answers[kind], cases, score)) for kind, cases in material.cases.items()})
