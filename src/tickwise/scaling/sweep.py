"""A sweep in a folder: trials that are run once each, go on where they stopped, and end in one table.

``OUT/trials/NAME`` holds a trial (``trial.json``, ``result.json``, the run directory), ``OUT/runs.parquet`` a row for
each trial that is over, ``OUT/predictions.json`` what a law said of the trials before the first of them ran.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tickwise.core.config import differing_keys, read_json, to_dict
from tickwise.core.console import ProgressBar, format_seconds, progress, say
from tickwise.core.errors import ConfigError, OutputError
from tickwise.core.paths import atomic_file, output_error, write_text_atomic
from tickwise.core.processes import signal_name
from tickwise.scaling.plan import expected_loss
from tickwise.scaling.study import read_law
from tickwise.scaling.sweep_grid import Trial, describe
from tickwise.scaling.sweep_trial import INTERRUPTED, RESULT_FILE, RUN_FOLDER, TRIAL_FILE
from tickwise.scaling.sweep_workers import Ended, Start

TABLE_FILE, PREDICTIONS_FILE = "runs.parquet", "predictions.json"
_NOT_SETTINGS = ("config.data", "config.out", "config.resume", "config.overwrite")
_LOOK_EVERY_S = 1.0
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What all trials of a sweep train on: its content, how many tokens it has and of how many kinds."""

    fingerprint: str
    train_tokens: int
    vocab_size: int


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """``OutputError`` while another sweep works in the folder."""
    import fcntl

    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as problem:
        raise output_error(problem, out) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise OutputError(f"{out}: another sweep is working in this folder; wait for it, or give another --out"
                          ) from None
    finally:
        os.close(descriptor)


def lay_out(out: Path, trials: Sequence[Trial], data: Data) -> None:
    """Write what each trial shall do. ``ConfigError`` where a trial of that name was begun with other settings, and
    where the folder's trials would not all be of one text and, but for sizes, batches and rates, of one kind."""
    specs = {trial.name: _spec(trial, data) for trial in trials}
    for name, spec in specs.items():
        path = out / "trials" / name / TRIAL_FILE
        if path.is_file():
            found = _differing(read_json(path, "the trial"), spec)
            if found:
                raise ConfigError(f"{out}: trial {name} was begun with another {', '.join(found)}; take the same "
                                  "settings, or another --out")
    for path in sorted((out / "trials").glob(f"*/{TRIAL_FILE}")):
        old = read_json(path, "the trial")
        found = _differing(_common(old), _common(next(iter(specs.values()))))
        if found:
            raise ConfigError(f"{out}: its trials (such as {old['name']}) have another {', '.join(found)}, and one "
                              "table compares them all; take the same settings, or another --out")
    for name, spec in specs.items():
        path = out / "trials" / name / TRIAL_FILE
        if not path.is_file():
            write_text_atomic(path, json.dumps(spec, indent=1) + "\n")


def _spec(trial: Trial, data: Data) -> dict[str, Any]:
    return {"name": trial.name, "parameters": trial.parameters, "tokens": trial.tokens, "flops": trial.flops,
            "data": dataclasses.asdict(data), "config": to_dict(trial.config)}


def _common(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What the trials of a folder have in common."""
    def without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name not in names}

    config = without(spec["config"], "depth", "batch_size", "max_steps")
    config |= {"model": without(config["model"], "width"), "optimizer": without(config["optimizer"], "lr")}
    return {"data": spec["data"], "config": config}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names of the settings that differ; where the data and the folder lie does not matter."""
    return [key.removeprefix("config.") for key in differing_keys(old, new) if key not in _NOT_SETTINGS]


def result_of(out: Path, name: str) -> dict[str, Any] | None:
    """What came of a trial; ``None`` while it is not over."""
    path = out / "trials" / name / RESULT_FILE
    return read_json(path, "the trial's result") if path.is_file() else None


def rows(out: Path) -> list[Row]:
    """A row for each trial of the folder that is over, least compute first. A diverged trial's loss is NaN."""
    predicted = {item["name"]: item for item in _predictions(out).get("trials", [])}
    found = []
    for path in sorted((out / "trials").glob(f"*/{RESULT_FILE}")):
        spec, result = read_json(path.with_name(TRIAL_FILE), "the trial"), read_json(path, "the trial's result")
        config, data = spec["config"], spec["data"]
        loss = float("nan") if result["loss"] is None else result["loss"]
        guess = predicted.get(spec["name"], {}).get("loss")
        found.append({
            "trial": spec["name"], "status": result["status"], "parameters": spec["parameters"],
            "tokens": spec["tokens"], "flops": spec["flops"], "loss": loss,
            "unique_tokens": min(spec["tokens"], data["train_tokens"]), "depth": config["depth"],
            "width": config["model"]["width"], "context": config["context"],
            "vocab_size": data["vocab_size"], "batch_tokens": config["batch_size"] * config["context"],
            "steps": config["max_steps"],
            "learning_rate": config["optimizer"]["lr"], "seed": config["seed"], "dtype": result.get("dtype"),
            "threads": result.get("threads"), "flops_counted": result.get("flops_counted"),
            "seconds": result["seconds"], "predicted_loss": guess,
            "prediction_error": None if guess is None else guess / loss - 1, "data": data["fingerprint"],
            "why": result["why"],
        })
    return sorted(found, key=lambda row: (row["flops"], row["parameters"]))


def write_table(out: Path) -> list[Row]:
    """Write ``runs.parquet``; returns its rows."""
    import pyarrow
    import pyarrow.parquet

    found = rows(out)
    types = {"trial": pyarrow.string(), "status": pyarrow.string(), "dtype": pyarrow.string(),
             "data": pyarrow.string(), "why": pyarrow.string(), "flops": pyarrow.float64(), "loss": pyarrow.float64(),
             "learning_rate": pyarrow.float64(), "flops_counted": pyarrow.float64(), "seconds": pyarrow.float64(),
             "predicted_loss": pyarrow.float64(), "prediction_error": pyarrow.float64()}
    if found:
        schema = pyarrow.schema([(name, types.get(name, pyarrow.int64())) for name in found[0]])
        with atomic_file(out / TABLE_FILE) as temporary:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found, schema=schema), temporary)
    return found


# --- what a law says beforehand ---


def predictions(trials: Sequence[Trial], law_path: Path) -> dict[str, Any]:
    """The losses that a fitted law expects of the trials, JSON-ready, with the time at which that was said."""
    law = read_law(law_path)
    made = []
    for trial in trials:
        expected = expected_loss(law, trial.parameters, trial.tokens)
        made.append({"name": trial.name, "parameters": trial.parameters, "tokens": trial.tokens, "flops": trial.flops,
                     "times_largest_fitted_flops": trial.flops / law.largest_flops, "loss": expected.loss,
                     "interval_95": expected.interval})
    return {"made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "law": str(law_path),
            "law_sha256": hashlib.sha256(law_path.read_bytes()).hexdigest(), "trials": made}


def predict(out: Path, trials: Sequence[Trial], law_path: Path) -> dict[str, Any]:
    """Write ``predictions.json`` before any of the trials has run; what stands there already stays. ``ConfigError``
    when it is too late for that, or when another law has spoken."""
    said, new = _predictions(out), predictions(trials, law_path)
    if said and said["law_sha256"] != new["law_sha256"]:
        raise ConfigError(f"{out}: another law ({said['law']}) has predicted these trials; give another --out")
    known = {item["name"] for item in said.get("trials", [])}
    for trial in trials:
        if trial.name not in known and (out / "trials" / trial.name / RUN_FOLDER).exists():
            raise ConfigError(f"{out}: trial {trial.name} has begun without a prediction; leave --law out, or give "
                              "another --out")
    fresh = [item for item in new["trials"] if item["name"] not in known]
    if fresh:
        said = {**new, "made": said.get("made", new["made"]), "trials": [*said.get("trials", []), *fresh]}
        write_text_atomic(out / PREDICTIONS_FILE, json.dumps(said, indent=1) + "\n")
    return said


def _predictions(out: Path) -> dict[str, Any]:
    path = out / PREDICTIONS_FILE
    return read_json(path, "the predictions") if path.is_file() else {}


# --- running ---


def run(out: Path, trials: Sequence[Trial], start: Start, work: Mapping[str, float]) -> list[str]:
    """Run every trial that is not over, and write the table after each; returns a line for each trial that failed
    (which the next sweep in this folder tries again).

    ``work`` says how much each trial is beside the others; it makes the time left. Ctrl-C lets running trials save.
    """
    waiting = [trial for trial in trials if result_of(out, trial.name) is None]
    over = len(trials) - len(waiting)
    if over:
        say(f"{over} of {len(trials)} trials are over already")
    failed: list[str] = []
    with progress("sweep", sum(work[trial.name] for trial in waiting), None) as bar:
        running: dict[Future[Ended], Trial] = {start(out / "trials" / trial.name): trial for trial in waiting}
        shares: dict[str, float] = {}
        while running:
            ended, _ = wait(running, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            for future in ended:
                trial = running.pop(future)
                line = _finish(out, trial, _ended(future))
                if line is not None:
                    failed.append(line)
                over += 1
                _advance(bar, trial, 1.0, shares, work)
                write_table(out)
                say(f"{over}/{len(trials)} {line or _outcome(out, trial)}")
            for trial in running.values():
                _advance(bar, trial, _share(out, trial), shares, work)
            bar.note(f"{over}/{len(trials)} trials")
    write_table(out)
    return failed


def _ended(future: "Future[Ended]") -> Ended:
    """How a trial's process ended; also when whoever ran it lost it."""
    try:
        return future.result()
    except Exception as problem:
        return Ended(1, f"{type(problem).__name__}: {problem}".strip().splitlines()[0])


def _advance(bar: ProgressBar, trial: Trial, share: float, shares: dict[str, float], work: Mapping[str, float]) -> None:
    bar.advance(max(0.0, share - shares.get(trial.name, 0.0)) * work[trial.name])
    shares[trial.name] = max(share, shares.get(trial.name, 0.0))


def _share(out: Path, trial: Trial) -> float:
    """How much of a running trial is done, from the last line of its metrics."""
    path = out / "trials" / trial.name / RUN_FOLDER / "metrics.jsonl"
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        return min(1.0, json.loads(path.read_bytes().splitlines()[-1])["tokens"] / trial.tokens)
    return 0.0


def _finish(out: Path, trial: Trial, ended: Ended) -> str | None:
    """A line when the trial failed."""
    if ended.code == INTERRUPTED:
        raise KeyboardInterrupt
    if ended.code == 0 and result_of(out, trial.name) is not None:
        return None
    last, how = ended.stderr.strip().splitlines(), f"failed (exit code {ended.code})"
    if ended.code < 0:
        how = f"was killed ({signal_name(-ended.code)})"
    silent = "perhaps for want of memory" if ended.code == -signal.SIGKILL else "it said nothing"
    return f"{trial.name} {how}: {last[-1] if last else silent}"


def _outcome(out: Path, trial: Trial) -> str:
    result = result_of(out, trial.name)
    assert result is not None
    if result["status"] != "done":
        return f"{trial.name}: {result['status']} ({result['why']})"
    return f"{describe(trial)}: loss {result['loss']:.4f} in {format_seconds(result['seconds'])}"
