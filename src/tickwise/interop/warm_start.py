"""Weights of another model as a beginning: what fits by name and shape is taken, and every other tensor is named."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tickwise.core.console import note, say
from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.interop.bert import bert_names, from_bert
from tickwise.interop.directory import load_module, read_config, resolve_model_path, stored_tensors
from tickwise.models.encoder import Encoder, EncoderConfig
from tickwise.models.families import DECODER, ENCODER

_SHOWN = 8
# A decoder's layers compute the same as a pre-norm encoder's; only their norms are called otherwise.
_DECODER_NAMES = {".input_layernorm.": ".attention_norm.", ".post_attention_layernorm.": ".mlp_norm."}


@dataclass(frozen=True)
class WarmStart:
    """What became of the tensors on both sides, by name."""

    source: Path
    loaded: tuple[str, ...]
    partly: tuple[str, ...]
    """Embeddings, and whatever else has a row for each token, that have more rows here: ``name (rows there of rows
    here)``; the other rows are new."""
    new: tuple[str, ...]
    """Of the module, without one of that name in the source: they keep what they were initialised with."""
    left: tuple[str, ...]
    """Of the source, without a place in the module."""
    mismatched: tuple[str, ...]
    """Of both, but of another shape: ``name (shape there, shape here)``; they are new too."""

    def lines(self) -> list[str]:
        """For people: how many, and the names."""
        said = [f"warm start from {self.source}: {len(self.loaded):,} tensors loaded"]
        for what, names in (("loaded in part", self.partly), ("new", self.new), ("left behind", self.left),
                            ("of another shape", self.mismatched)):
            if names:
                more = f" and {len(names) - _SHOWN:,} more (-v names them)" if len(names) > _SHOWN else ""
                said.append(f"  {what}: {', '.join(names[:_SHOWN])}{more}")
        return said

    def note(self) -> None:
        """Every name, for ``-v``."""
        for what, names in (("loaded", self.loaded), ("loaded in part", self.partly), ("new", self.new),
                            ("left behind", self.left), ("of another shape", self.mismatched)):
            if names:
                note(f"warm start, {what}: {', '.join(names)}")


@torch.no_grad()
def warm_start(module: nn.Module, source: Path) -> WarmStart:
    """Copy into ``module`` every tensor of the model (or run) directory that has a namesake of the same shape in it.

    An embedding that has more rows in ``module``, and what has a row for each token there and here (a head, its bias),
    take those that there are. A tensor that has two names here is filled by the first of them that fits. Raises
    ``CheckpointError`` for a directory that cannot be read, and when nothing fits: the source is no model of a related
    family.
    """
    folder = resolve_model_path(Path(source))
    tensors, without_name = _named_tensors(folder, module)
    own = module.state_dict()
    tables = {f"{name}.weight" for name, child in module.named_modules() if isinstance(child, nn.Embedding)}
    vocabularies = tuple(getattr(config, "vocab_size", 0) for config in (read_config(folder)[1], module.config))
    filled: dict[int, str] = {}  # by the place of its storage
    for name, target in own.items():
        given = tensors.get(name)
        if given is None or target.data_ptr() in filled:
            continue
        if given.shape == target.shape:
            target.copy_(given)
        elif _has_fewer_rows(given, target) and (name in tables or (len(given), len(target)) == vocabularies):
            target[: len(given)].copy_(given)
        else:
            continue
        filled[target.data_ptr()] = name
    loaded, partly, mismatched, left = [], [], [], []
    for name, target in own.items():
        given, first = tensors.get(name), filled.get(target.data_ptr())
        if first is not None:
            if tensors[first].shape == target.shape:
                loaded.append(name)
            else:
                partly.append(f"{name} ({len(tensors[first]):,} of {len(target):,} rows)")
            if given is not None and not torch.equal(given, tensors[first]):
                left.append(name)
        elif given is not None:
            mismatched.append(f"{name} ({_shape(given)} there, {_shape(target)} here)")
    if not loaded:
        raise CheckpointError(f"{folder}: no tensor of it fits this model by name and shape: it has "
                              f"{', '.join([*tensors, *without_name][:3])} …, this model {', '.join(list(own)[:3])} …")
    done = WarmStart(
        source=folder, loaded=tuple(loaded), partly=tuple(partly),
        new=tuple(name for name, target in own.items() if name not in tensors and target.data_ptr() not in filled),
        left=tuple([name for name in tensors if name not in own] + left + without_name), mismatched=tuple(mismatched),
    )
    done.note()
    return done


def _has_fewer_rows(given: Tensor, target: Tensor) -> bool:
    return 0 < given.ndim == target.ndim and given.shape[1:] == target.shape[1:] and len(given) < len(target)


def _named_tensors(folder: Path, module: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The source's tensors under the names of our families, and names that no family of ours has."""
    family, _ = read_config(folder)
    if family is ENCODER:
        stored = stored_tensors(folder)
        return from_bert(stored) if bert_names(stored) else (stored, [])
    state = load_module(folder, device="cpu").state_dict()
    if family is DECODER and isinstance(module, Encoder):
        for old, new in _DECODER_NAMES.items():
            state = {name.replace(old, new): tensor for name, tensor in state.items()}
    return state, []


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"


Headed = TypeVar("Headed", bound=Encoder)


def encoder_like(kind: type[Headed], config_kind: type[Any], source: Path, seed: int, **fields: Any) -> Headed:
    """A fresh encoder with a head on, of the shape of the encoder in ``source``; ``fields`` are those of the config
    that the head adds or changes.

    Raises ``CheckpointError`` where ``source`` is no encoder, ``ConfigError`` for more learned positions than it has.
    """
    folder = resolve_model_path(Path(source))
    family, config = read_config(folder)
    if not isinstance(config, EncoderConfig):
        raise CheckpointError(f"{folder}: a {family.name}, not an encoder; make one with tickwise train encoder")
    longer = fields.get("context_length", 0) > config.context_length
    if longer and config.positions == "learned":
        raise ConfigError(f"{folder}: has learned positions for {config.context_length:,} tokens, not for "
                          f"{fields['context_length']:,}")
    shape = {f.name: getattr(config, f.name) for f in dataclasses.fields(EncoderConfig)}
    module = kind(config_kind(**shape | {"masked_head": False} | fields))
    module.initialise(seed)
    return module


def headed_encoder(kind: type[Headed], config_kind: type[Any], source: Path, seed: int, *, fresh: bool = False,
                   **fields: Any) -> Headed:
    """``encoder_like`` the one in ``source``, with its weights. Says what was loaded. ``fresh`` leaves the weights."""
    module = encoder_like(kind, config_kind, source, seed, **fields)
    folder = resolve_model_path(Path(source))
    if fresh:
        say(f"fresh weights in the shape of {folder}")
    else:
        for line in warm_start(module, folder).lines():
            say(line)
    return module
