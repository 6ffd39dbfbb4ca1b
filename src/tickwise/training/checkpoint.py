"""Checkpoints: ``checkpoints/step-N/`` is a model directory plus the state that training goes on from.

``training.json`` holds the counters, the data cursor and the config; ``training.safetensors`` the optimizer's
tensors, averaged weights and random-number states.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

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
from tickwise.training.optimizers import total_norm

if TYPE_CHECKING:
    from tickwise.training.loop import Training

FORMAT = 1
_STATE, _TENSORS = "training.json", "training.safetensors"


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
    save_model(training.config.out / "model", training.module, training.assets,
               state=training.weights.state_dict(training.module, values), run=record, card=model_card(record))


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
    if not torch.isfinite(total_norm(training.weights.masters)):
        raise NumericsError(f"step {training.counters.step}: the weights are not finite and were not saved; lower "
                            "--optimizer.lr, or use --dtype fp32")
    folder = training.config.out / "checkpoints"
    path = folder / f"step-{training.counters.step}"
    tensors: dict[str, Tensor] = dict(training.optimizer.state_tensors())
    tensors |= {f"rng.{name}": value for name, value in rng_state().items()}
    tensors |= {f"carried.{name}": value for name, value in training.objective.state_tensors().items()}
    if training.average is not None:
        tensors |= {f"average.{n}": t for n, t in zip(training.weights.names, training.average, strict=True)}
    state = {
        "format": FORMAT, "counters": dataclasses.asdict(training.counters), "cursor": training.objective.state(),
        "data_fingerprint": training.data_fingerprint, "dtype": training.dtype_name,
        "model": config_values(training.module), "run": training.run_record(),
    }
    with atomic_directory(path) as temporary:
        masters = training.weights.state_dict(training.module, training.weights.masters)
        write_model_files(temporary, training.module, training.assets, state=masters)
        write_tensors(temporary / _TENSORS, tensors)
        write_text_atomic(temporary / _STATE, json.dumps(state, indent=2) + "\n")
    for old in checkpoint_paths(training.config.out)[: -training.config.keep_checkpoints]:
        shutil.rmtree(old, ignore_errors=True)
    remove_temporaries(folder)
    return path


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
    tensors = read_tensors(path / _TENSORS)
    training.weights.load(training.module, read_state(path, training.module))
    training.optimizer.load_state_tensors(tensors, str(path / _TENSORS))
    if training.average is not None:
        for name, average in zip(training.weights.names, training.average, strict=True):
            if f"average.{name}" not in tensors:
                raise CheckpointError(f"{path / _TENSORS}: has no averaged weights; resume without --ema-decay")
            average.copy_(tensors[f"average.{name}"])
    training.counters = from_dict(Counters, state["counters"], where=str(path / _STATE))
    training.objective.restore(state["cursor"], {name.removeprefix("carried."): tensor for name, tensor in
                                                 tensors.items() if name.startswith("carried.")})
    restore_rng_state({n.removeprefix("rng."): t.to(torch.uint8) for n, t in tensors.items() if n.startswith("rng.")})


def _refuse_difference(path: Path, stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    for key, value in current.items():
        if key != "dropout" and stored.get(key) != value:
            raise CheckpointError(f"{path}: model.{key} was {stored.get(key)}, this run asks for {value}; "
                                  "give the same, or a new --out")


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
