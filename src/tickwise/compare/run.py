"""A comparison in a folder: each job's result is kept, so that one that was stopped goes on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tickwise.compare.conclusions import best_program, conclude
from tickwise.compare.jobs import JOBS, Job, MissingDataError, Prepared, Setting
from tickwise.compare.measure import Measured, measure
from tickwise.compare.models import Budget, given_model
from tickwise.core.config import closest, read_json
from tickwise.core.console import say
from tickwise.core.errors import ConfigError
from tickwise.core.paths import write_text_atomic

RESULT_FILE = "result.json"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, where, and how much of it."""

    out: Path
    jobs: tuple[str, ...]
    models: Mapping[str, Path]
    """Model directories that are given, by job."""
    setting: Setting
    seconds: float
    """Training time of each model."""
    n_timed: int
    """Cases of each kind that are answered one by one under the ledger."""


def check(comparison: Comparison) -> None:
    """``ConfigError`` for jobs that do not exist."""
    for name in (*comparison.jobs, *comparison.models):
        if name not in JOBS:
            raise ConfigError(f"no job '{name}'{closest(name, JOBS)}; there are {', '.join(JOBS)}")
    for name, path in comparison.models.items():
        if name not in comparison.jobs:
            raise ConfigError(f"--model {name}={path}: --jobs leaves {name} out")
        if not path.exists():
            raise ConfigError(f"--model {name}={path}: no such directory")


def compare(comparison: Comparison) -> dict[str, Any]:
    """Do every job that is not done; returns all results, JSON-ready, and the jobs that were left out with the
    reasons."""
    check(comparison)
    results, skipped = {}, {}
    for name in comparison.jobs:
        try:
            results[name] = _job(comparison, JOBS[name])
        except MissingDataError as problem:
            say(f"{name}: left out: {problem}")
            skipped[name] = str(problem)
    return {"jobs": results, "skipped": skipped}


def _job(comparison: Comparison, job: Job) -> dict[str, Any]:
    folder = comparison.out / job.name
    told = _told(comparison, job)
    kept = folder / RESULT_FILE
    started = folder / "job.json"
    if started.is_file():
        was = read_json(started, "the job")
        changed = sorted(key for key in {*was, *told} if was.get(key) != told.get(key))
        if changed:
            raise ConfigError(f"{folder}: this job was begun with another {', '.join(changed)}; take the same, or "
                              "another --out")
        if kept.is_file():
            say(f"{job.name}: done already")
            return read_json(kept, "the job's result")
    say(f"{job.name}: {job.title.lower()}")
    prepared = job.prepare(comparison.setting, folder)
    write_text_atomic(started, json.dumps(told, indent=1) + "\n")
    result = _measured(comparison, job, prepared, folder)
    write_text_atomic(kept, json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return result


def _told(comparison: Comparison, job: Job) -> dict[str, Any]:
    given = comparison.models.get(job.name)
    return {"cases": comparison.setting.n, "seed": comparison.setting.seed, "timed": comparison.n_timed,
            "seconds": None if given is not None else comparison.seconds,
            "model": None if given is None else str(given.resolve())}


def _measured(comparison: Comparison, job: Job, prepared: Prepared, folder: Path) -> dict[str, Any]:
    seed = comparison.setting.seed
    given = comparison.models.get(job.name)
    if given is not None:
        model = given_model(given, template=prepared.template, most_tokens=prepared.most_tokens)
    else:
        model = prepared.train(folder / "model", Budget(seconds=comparison.seconds, seed=seed))

    def measured(contestant: Any, name: str) -> Measured:
        return measure(contestant, prepared.material, prepared.score, folder / f"trace-{name}",
                       n_timed=comparison.n_timed, seed=seed)

    programs = [measured(program, f"program-{place}") for place, program in enumerate(prepared.programs, start=1)]
    written = measured(model, "model")
    conclusion = conclude(best_program(programs), written)
    for sentence in conclusion.sentences:
        say(f"  {sentence}")
    return {
        "job": job.name, "title": job.title, "about": prepared.material.about, "score": job.scored,
        "cases": {kind: len(cases) for kind, cases in prepared.material.cases.items()},
        "examples": {kind: {"input": cases[0].text, "answer": cases[0].answer}
                     for kind, cases in prepared.material.cases.items()},
        "contestants": [one.as_json() for one in (*programs, written)],
        "conclusion": asdict(conclusion),
    }
