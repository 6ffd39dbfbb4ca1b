"""A comparison in a folder: each job's result is kept, so that one that was stopped goes on."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tickwise.compare.cases import NOISY, Material
from tickwise.compare.changes import Changed, change
from tickwise.compare.conclusions import conclude
from tickwise.compare.contestants import Contestant
from tickwise.compare.evidence import difference, may_be_above, weigh
from tickwise.compare.jobs import JOBS, Job, MissingDataError
from tickwise.compare.learners import Budget
from tickwise.compare.measure import Measured, measure, scores_of
from tickwise.compare.models import given_model
from tickwise.compare.nano_sort import MODEL_FILE
from tickwise.compare.programs import Constant
from tickwise.compare.setting import Prepared, Setting
from tickwise.core.config import closest, read_json
from tickwise.core.console import say
from tickwise.core.errors import ConfigError
from tickwise.core.paths import write_text_atomic
from tickwise.data.prepared import file_hash
from tickwise.tasks.embedders import embedder_fingerprint

RESULT_FILE = "result.json"
_FORMAT = 3


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
    """Do every job that is not done; returns all results with their conclusions, JSON-ready, and the jobs that were
    left out with the reasons. ``MissingDataError`` where none is left."""
    check(comparison)
    skipped = _without_data(comparison)
    results = {name: _job(comparison, JOBS[name]) for name in comparison.jobs if name not in skipped}
    conclusions, n_tests = conclude(results)
    return {"jobs": {name: result | {"conclusion": conclusions[name]} for name, result in results.items()},
            "tests": n_tests, "skipped": skipped}


def _without_data(comparison: Comparison) -> dict[str, str]:
    """The jobs whose data are not there, and why; ``MissingDataError`` where these are all."""
    missing = {}
    for name in comparison.jobs:
        try:
            JOBS[name].inputs(comparison.setting)
        except MissingDataError as problem:
            missing[name] = str(problem)
    lines = [f"{name}: left out: {why}" for name, why in missing.items()]
    if len(missing) == len(set(comparison.jobs)):
        raise MissingDataError(f"nothing is left to compare; {'; '.join(lines)}")
    for line in lines:
        say(line)
    return missing


def _job(comparison: Comparison, job: Job) -> dict[str, Any]:
    folder = comparison.out / job.name
    told = _told(comparison, job)
    kept = folder / RESULT_FILE
    started = folder / "job.json"
    if started.is_file():
        was = read_json(started, "the job")
        changed = sorted(key for key in {*was, *told} if was.get(key) != told.get(key))
        if changed:
            raise ConfigError(f"{folder}: this job was begun with other settings ({', '.join(changed)}); take the "
                              "same, or another --out")
        if kept.is_file():
            say(f"{job.name}: done already")
            return read_json(kept, "the job's result")
    say(f"{job.name}: {job.title.lower()}")
    prepared = job.prepared(comparison.setting, folder)
    write_text_atomic(started, json.dumps(told, indent=1) + "\n")
    result = _measured(comparison, job, prepared, folder)
    write_text_atomic(kept, json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return result


def _told(comparison: Comparison, job: Job) -> dict[str, Any]:
    """What a result follows from: settings, and the contents of the files."""
    given = comparison.models.get(job.name)
    return {"format": _FORMAT, "cases": comparison.setting.n, "seed": comparison.setting.seed,
            "timed": comparison.n_timed, "seconds": None if given is not None else comparison.seconds,
            "data": {path.name: file_hash(path) for path in job.inputs(comparison.setting)},
            "model": None if given is None else embedder_fingerprint(
                given / MODEL_FILE if (given / MODEL_FILE).is_file() else given)}


def _measured(comparison: Comparison, job: Job, prepared: Prepared, folder: Path) -> dict[str, Any]:
    setting, material, score = comparison.setting, prepared.material, prepared.score
    budget = Budget(seconds=comparison.seconds, seed=setting.seed)
    given = comparison.models.get(job.name)
    model: Contestant
    if given is not None:
        model = given_model(given, template=prepared.template, most_tokens=prepared.most_tokens)
    else:
        model = prepared.learner.train(folder / "model", budget)

    def measured(contestant: Contestant, name: str) -> Measured:
        return measure(contestant, material, score, folder / f"trace-{name}", n_timed=comparison.n_timed,
                       seed=setting.seed)

    by_development = [statistics.fmean(scores_of(program, material.development, score))
                      for program in prepared.programs]
    best = by_development.index(max(by_development))
    programs = [measured(program, f"program-{place}") for place, program in enumerate(prepared.programs, start=1)]
    written = measured(model, "model")
    constant = Constant(material.training, material.development, score)
    scores = [score(constant.constant, case) for case in material.cases[material.plain]]
    everybody = (*programs, written)
    evidence = weigh(programs[best], written, scores, constant.name, material.plain, setting.seed)

    def changed(contestant: Contestant, who: str) -> Changed | None:
        if not may_be_above(evidence.learnt[who]):
            return None  # a job that is not done cannot be changed
        return change(contestant, material, score, learner=None if given is not None else prepared.learner,
                      folder=folder, budget=budget, most=setting.n)

    changes = {"program": changed(prepared.programs[best], "program"), "model": changed(model, "model")}
    noisy = [(one.scores or measured.scores)[NOISY] for one, measured in
             zip(changes.values(), (programs[best], written), strict=True) if one is not None]
    write_text_atomic(folder / "answers.jsonl", "".join(_answers(material, everybody)))
    return {
        "job": job.name, "title": job.title, "about": material.about, "score": job.scored, "plain": material.plain,
        "cases": {kind: len(cases) for kind, cases in material.cases.items()},
        "training": {"examples": len(material.training), "development": len(material.development)},
        "examples": {kind: {"input": cases[0].text, "answer": cases[0].answer}
                     for kind, cases in material.cases.items()},
        "constant": {"name": constant.name, "score": statistics.fmean(scores)},
        "contestants": [one.as_json() for one in everybody],
        "development": dict(zip([one.name for one in programs], by_development, strict=True)),
        "given": given is not None,
        "changes": {who: None if one is None else one.as_json() for who, one in changes.items()},
        "evidence": asdict(evidence) | {
            "after_changes": asdict(difference(noisy[0], noisy[1], setting.seed))
            if len(noisy) == 2 and any(one is not None and one.scores for one in changes.values()) else None},
    }


def _answers(material: Material, everybody: Sequence[Measured]) -> Iterator[str]:
    """A line for each case: what was asked and wanted, and what each contestant answered and scored."""
    for kind, cases in material.cases.items():
        for place, case in enumerate(cases):
            found = {one.name: {"answer": one.answers[kind][place], "score": one.scores[kind][place]}
                     for one in everybody}
            yield json.dumps({"kind": kind, "input": case.text, "wanted": case.answer, "answers": found},
                             ensure_ascii=False) + "\n"
