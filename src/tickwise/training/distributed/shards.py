"""Checkpoints of which every rank writes its share: ``checkpoints/step-N/shards/*.safetensors``.

Written and read by ``torch.distributed.checkpoint``, whose readers put shares together for any number of ranks, one
process included. Names: ``weights.P``, ``average.P``, ``optimizer.STATE`` for a parameter P and the optimizer's states.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from tickwise.core.errors import CheckpointError
from tickwise.core.paths import output_error
from tickwise.training.checkpoint import SHARDS
from tickwise.training.distributed.sharded import ShardedWeights, as_dtensor

if TYPE_CHECKING:
    from tickwise.training.loop import Training


def write_shards(training: "Training", checkpoint: Path) -> None:
    """Every rank's share of weights, averages and optimizer state into an existing folder. All ranks take part."""
    folder = checkpoint / SHARDS
    try:
        dcp.save(_state(training), storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as problem:
        rank, (why, _) = min(problem.failures.items())
        if isinstance(why, OSError):
            raise output_error(why, folder) from None
        raise CheckpointError(f"{folder}: rank {rank} could not write its share: {why}") from None


def read_shards(training: "Training", checkpoint: Path, n_updates: int) -> None:
    """The weights, averages and optimizer state that ``write_shards`` wrote, into a training of any number of ranks."""
    folder = checkpoint / SHARDS
    state = _state(training)
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized", UserWarning)
    try:
        reader = dcp.HuggingFaceStorageReader(str(folder))
        _check_names(reader.read_metadata().state_dict_metadata, state, folder)
        dcp.load(state, storage_reader=reader, no_dist=not training.parallel.shards)
    except (OSError, ValueError, KeyError, RuntimeError, CheckpointException) as problem:
        if isinstance(problem, CheckpointError):
            raise
        why = " ".join(str(problem).split())[:200]
        raise CheckpointError(f"{folder}: damaged or incomplete ({why}); copy it again, or remove {checkpoint.name} "
                              "to go on from the checkpoint before") from None
    training.weights.publish()
    states = {name.removeprefix("optimizer."): _share(value) for name, value in state.items()
              if name.startswith("optimizer.")}
    training.optimizer.load_parameter_states(states, n_updates)


def _share(value: Any) -> Tensor:
    share: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return share


def _state(training: "Training") -> dict[str, Any]:
    """What a checkpoint holds, by name; of a sharded training as distributed tensors of the shares."""
    weights = training.weights
    rows: dict[str, tuple[int, Tensor]] = {f"weights.{n}": (i, m) for i, (n, m) in
                                           enumerate(zip(weights.names, weights.masters, strict=True))}
    if training.average is not None:
        rows |= {f"average.{n}": (i, a) for i, (n, a) in
                 enumerate(zip(weights.names, training.average, strict=True))}
    rows |= {f"optimizer.{name}": found for name, found in training.optimizer.parameter_states().items()}
    if isinstance(weights, ShardedWeights):
        return {name: as_dtensor(share, weights.dtensor(i)) for name, (i, share) in rows.items()}
    return {name: whole for name, (_, whole) in rows.items()}


def _check_names(stored: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    for name, value in wanted.items():
        if name not in stored:
            raise CheckpointError(f"{folder}: '{name}' is missing; resume with the run's own --optimizer.name and "
                                  "--ema-decay")
        if torch.Size(stored[name].size) != value.shape:
            raise CheckpointError(f"{folder}: '{name}' has shape {tuple(stored[name].size)}, this run needs "
                                  f"{tuple(value.shape)}")
