"""Checkpoints: ``checkpoints/step-N/`` is a model directory plus the state that training goes on from.

``training.json`` holds the counters, the data cursor and the config; ``training.safetensors`` the optimizer's
tensors, averaged weights and random-number states. Of ranks that hold shares, weights, averages and optimizer state are
in ``shards/`` instead (``training/distributed/shards.py``), and the model files are left out. Any number of ranks goes
on from either.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tickwise.core import console
from tickwise.core.config import from_dict, read_json
from tickwise.core.errors import CheckpointError, NumericsError
from tickwise.core.paths import atomic_directory, remove_temporaries, write_text_atomic
from tickwise.core.seeds import restore_rng_state, rng_state
from tickwise.interop.directory import (
    checkpoint_paths,
    read_state,
    read_tensors,
    save_model,
    write_model_files,
    write_tensors,
)
from tickwise.models.families import config_values

if TYPE_CHECKING:
    from tickwise.training.loop import Training

FORMAT = 1
_STATE, _TENSORS = "training.json", "training.safetensors"
_FREE = frozenset({
    "out", "resume", "overwrite", "device", "compile", "log_every", "keep_checkpoints", "checkpoint_seconds",
    "checkpoint_every",
})
"""Settings that change nothing of what is learned."""
SHARDS = "shards"


@dataclasses.dataclass(kw_only=True)
class Counters:
    """How far a run is; everything that the loop changes besides tensors."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int = 0
    best_figures: dict[str, float] = dataclasses.field(default_factory=dict)
    """All of the validation's figures at the best step."""
    evaluations_without_gain: int = 0
    compiled: bool | None = None
    """Whether torch.compile is used; ``None`` until decided. A resumed run keeps the decision, because
    compiled and plain arithmetic differ in the last bits."""


def save_best_model(training: "Training") -> None:
    """Write the run's ``model/`` from the averaged weights if there are any, else from the masters."""
    values = training.average if training.average is not None else training.weights.masters
    record = training.run_record()
    state = training.weights.state_dict(training.module, values)
    with training.parallel.leader_writes():
        if training.parallel.leads:
            save_model(training.config.out / "model", training.module, training.assets, state=state, run=record,
                       card=model_card(record))


def model_card(record: Mapping[str, Any]) -> str:
    """The ``README.md`` of a model directory."""
    family, result = record["family"], record["result"]
    shape = ", ".join(f"{name} {value:,}" for name, value in record["model"].items()
                      if isinstance(value, int) and not isinstance(value, bool) and value > 0)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in result["best_figures"].items()) or "not measured"
    data = record["data"]
    size = f" ({data['train_tokens']:,} tokens)" if "train_tokens" in data else ""
    article = "an" if family[0] in "aeiou" else "a"
    return (
        f"# {article.capitalize()} {family}\n\n"
        f"- {record['parameters']:,} parameters: {shape}\n"
        f"- trained on `{Path(data['source']).name}`{size} for "
        f"{result['step']:,} steps, {result['tokens']:,} tokens, {result['seconds']:.0f} s\n"
        f"- on the validation part: {figures} (loss in nats)\n"
        f"- computed in {record['dtype']} on {record['device']}, seed {record['seed']}\n\n"
        f"Trained with tickwise {record['versions']['tickwise']}. `run.json` has the exact command and versions.\n"
    )


def save_checkpoint(training: "Training") -> Path:
    """Write ``checkpoints/step-N`` whole or not at all, then drop the oldest beyond ``keep_checkpoints``."""
    if not torch.isfinite(training.parallel.norm(training.weights.masters)):
        raise NumericsError(f"step {training.counters.step}: the weights are not finite and were not saved; lower "
                            f"{training.config.flags.lr}, or use --dtype fp32")
    folder = training.config.out / "checkpoints"
    path = folder / f"step-{training.counters.step}"
    with _shared_directory(training, path) as temporary:
        if training.parallel.shards:
            from tickwise.training.distributed.shards import write_shards

            write_shards(training, temporary)
        if training.parallel.leads:
            _write_state(training, temporary)
    with training.parallel.leader_writes():
        if training.parallel.leads:
            for old in checkpoint_paths(training.config.out)[: -training.config.keep_checkpoints]:
                shutil.rmtree(old, ignore_errors=True)
            remove_temporaries(folder)
    return path


@contextlib.contextmanager
def _shared_directory(training: "Training", path: Path) -> Iterator[Path]:
    """``atomic_directory`` of the leading process, in which all ranks that hold shares write."""
    parallel = training.parallel
    if not parallel.shards:
        with atomic_directory(path) if parallel.leads else contextlib.nullcontext(path) as own:
            yield own
    elif parallel.leads:
        with atomic_directory(path) as own:
            yield Path(parallel.tell(str(own)))
    else:
        yield Path(parallel.tell(""))


def _write_state(training: "Training", folder: Path) -> None:
    """All of a checkpoint, or of one with shards what does not belong to a parameter."""
    tensors = {f"rng.{name}": value for name, value in rng_state().items()}
    tensors |= {f"carried.{name}": value for name, value in training.objective.state_tensors().items()}
    state = {
        "format": FORMAT, "counters": dataclasses.asdict(training.counters), "cursor": training.objective.state(),
        "data_fingerprint": training.data_fingerprint, "dtype": training.dtype_name,
        "model": config_values(training.module), "run": training.run_record(),
    }
    if not training.parallel.shards:
        tensors |= training.optimizer.state_tensors()
        if training.average is not None:
            tensors |= {f"average.{n}": t for n, t in zip(training.weights.names, training.average, strict=True)}
        masters = training.weights.state_dict(training.module, training.weights.masters)
        write_model_files(folder, training.module, training.assets, state=masters)
    write_tensors(folder / _TENSORS, tensors)
    write_text_atomic(folder / _STATE, json.dumps(state, indent=2) + "\n")


def restore_checkpoint(training: "Training", path: Path) -> None:
    """Bring a freshly built ``training`` to where ``path`` was written; refuses another model, data or dtype."""
    state = read_json(path / _STATE, "the training state", CheckpointError)
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path / _STATE}: format {state.get('format')}, this version reads {FORMAT}")
    for key in ("counters", "cursor", "data_fingerprint", "dtype", "model"):
        if key not in state:
            raise CheckpointError(f"{path / _STATE}: key '{key}' is missing")
    _refuse_difference(path, state["model"], config_values(training.module))
    if state["data_fingerprint"] != training.data_fingerprint:
        raise CheckpointError(f"{path}: was trained on other data (or another tokenizer); give the same data, "
                              "or a new --out")
    if state["dtype"] != training.dtype_name:
        raise CheckpointError(f"{path}: was trained in {state['dtype']}; give --dtype {state['dtype']}, "
                              "or a new --out")
    _say_changes(state, training)
    tensors = read_tensors(path / _TENSORS)
    training.counters = from_dict(Counters, state["counters"], where=str(path / _STATE))
    if has_shards(path):
        from tickwise.training.distributed.shards import read_shards

        read_shards(training, path, training.counters.step)
    else:
        _restore_whole(training, path, tensors)
    training.objective.restore(state["cursor"], {name.removeprefix("carried."): tensor for name, tensor in
                                                 tensors.items() if name.startswith("carried.")})
    restore_rng_state({n.removeprefix("rng."): t.to(torch.uint8) for n, t in tensors.items() if n.startswith("rng.")})


def has_shards(path: Path) -> bool:
    """Whether several ranks wrote a share each of the checkpoint."""
    return (path / SHARDS).is_dir()


def _restore_whole(training: "Training", path: Path, tensors: Mapping[str, Tensor]) -> None:
    training.weights.load(training.module, read_state(path, training.module))
    training.optimizer.load_state_tensors(tensors, str(path / _TENSORS))
    if training.average is not None:
        for name, average in zip(training.weights.names, training.average, strict=True):
            if f"average.{name}" not in tensors:
                raise CheckpointError(f"{path / _TENSORS}: has no averaged weights; resume without --ema-decay")
            average.copy_(tensors[f"average.{name}"])


def _refuse_difference(path: Path, stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    for key, value in current.items():
        if key != "dropout" and stored.get(key) != value:
            raise CheckpointError(f"{path}: model.{key} was {stored.get(key)}, this run asks for {value}; "
                                  "give the same, or a new --out")


def _say_changes(state: Mapping[str, Any], training: "Training") -> None:
    """One line for the settings that a resumed run has and its first part had not; ``CheckpointError`` for another
    tokenizer."""
    before, now = (json.loads(json.dumps(run)) for run in (state.get("run", {}), training.record))
    tokenizers = [run.get("data", {}).get("tokenizer") for run in (before, now)]
    if None not in tokenizers and tokenizers[0] != tokenizers[1]:
        raise CheckpointError(f"{training.config.out}: was trained with another tokenizer; give the same settings, or "
                              "a new --out")
    changes = _changes(before.get("config", {}), now["config"], "")
    changes += _changes({"dropout": state["model"].get("dropout")}, {"dropout": now["model"].get("dropout")}, "model.")
    if changes:
        console.say(f"other settings than before: {', '.join(changes)}")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> list[str]:
    found = []
    for name in (name for name in now if name in before and name not in _FREE and now[name] != before[name]):
        if isinstance(now[name], dict) and isinstance(before[name], dict):
            found += _changes(before[name], now[name], f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name} {before[name]} → {now[name]}")
    return found


def drop_metrics_after(path: Path, step: int) -> None:
    """Cut ``metrics.jsonl`` back to ``step``: what was logged after the checkpoint will be logged again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row: Mapping[str, Any] = json.loads(line)
        except ValueError:
            break  # the line that a killed process was writing
        if row.get("step", 0) > step:
            break
        kept.append(line)
    write_text_atomic(path, "".join(line + "\n" for line in kept))
