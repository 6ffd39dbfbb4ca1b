"""A model directory: ``config.json``, ``model.safetensors``, ``tokenizer.json``, ``run.json``, ``README.md``.

No pickle is ever read or written.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tickwise.core.config import read_json
from tickwise.core.console import say
from tickwise.core.device import resolve_device, torch_dtype
from tickwise.core.errors import CheckpointError
from tickwise.core.paths import atomic_directory, write_text_atomic
from tickwise.interop.bert import hugging_face_bert, is_bert, to_bert
from tickwise.interop.foreign import FOREIGN
from tickwise.interop.tensor_names import decoder_config, from_checkpoint, hugging_face_config, to_checkpoint
from tickwise.interop.writing_rules import with_writing_rules
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.models.encoder import EncoderConfig
from tickwise.models.encoder_decoder import EncoderDecoderConfig
from tickwise.models.families import DECODER, FAMILIES, USED_BY, Family, config_from_values, config_values, family_of

if TYPE_CHECKING:
    from tickwise.tokenizers.tokenizer import Tokenizer

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_PICKLE_NAMES = ("pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.bin")


class Assets(Protocol):
    """What makes a module usable on text, saved beside it: a tokenizer, features, label names."""

    def save(self, folder: Path) -> None:
        """Write its files into an existing folder."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file; ``CheckpointError`` when it is missing, cut off or a pickle."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: file is missing") from None
    except OSError as problem:
        raise CheckpointError(f"{path}: cannot read: {problem.strerror}") from None
    # A safetensors file starts with the length of its header, which may look like anything, and then the header.
    if head[8:] != b"{" and head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise CheckpointError(f"{path}: this is a pickle, which can run code; refused. Convert it to safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as problem:
        raise CheckpointError(f"{path}: damaged or cut off ({problem}); copy it again") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file (CPU copies, contiguous)."""
    plain = {name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}
    try:
        save_file(plain, path, metadata={"format": "pt"})
    except SafetensorError as problem:  # the library reports a full disk as its own error
        raise OSError(28 if "No space" in str(problem) else 5, str(problem)) from problem


def _refuse_pickles(folder: Path) -> None:
    for name in _PICKLE_NAMES:
        if (folder / name).exists():
            raise CheckpointError(f"{folder / name}: this is a pickle, which can run code; refused. "
                                  "Convert it to safetensors")


def checkpoint_paths(run: Path) -> list[Path]:
    """The checkpoints of a run directory, oldest first."""
    found = [p for p in (run / "checkpoints").glob("step-*") if p.name.removeprefix("step-").isdigit()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def resolve_model_path(path: Path) -> Path:
    """``path`` itself if it is a model directory; for a run directory its best model, else its newest checkpoint."""
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such model directory")
    if not path.is_dir():
        raise CheckpointError(f"{path}: not a directory; give the folder that holds {CONFIG} and {WEIGHTS}")
    if (path / CONFIG).exists() or (path / WEIGHTS).exists():
        return path
    if (path / "model" / CONFIG).exists():
        return path / "model"
    steps = checkpoint_paths(path)
    if steps:
        return steps[-1]
    _refuse_pickles(path)
    names = sorted(entry.name for entry in path.iterdir())
    found = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "nothing"
    raise CheckpointError(f"{path}: not a model directory ({CONFIG} is missing); found {found}, expected the Hugging "
                          f"Face layout: {CONFIG}, {WEIGHTS} and tokenizer.json")


def save_model(path: Path, module: nn.Module, assets: Assets, *, state: Mapping[str, Tensor] | None = None,
               run: Mapping[str, Any] | None = None, card: str | None = None) -> None:
    """Write a model directory, whole or not at all.

    ``state`` replaces the module's own weights (float32 masters, averaged weights); ``run`` becomes
    ``run.json``; ``card`` becomes ``README.md``.
    """
    with atomic_directory(path) as temporary:
        write_model_files(temporary, module, assets, state=state, run=run, card=card)


def write_model_files(folder: Path, module: nn.Module, assets: Assets, *,
                      state: Mapping[str, Tensor] | None = None, run: Mapping[str, Any] | None = None,
                      card: str | None = None) -> None:
    """The files of a model directory into an existing folder."""
    model_type, family = family_of(module)
    tensors = state if state is not None else module.state_dict()
    if isinstance(module, Decoder):
        ids = {name: getattr(assets, name.replace("_token", ""), None) for name in ("bos_token_id", "eos_token_id")}
        config = hugging_face_config(module.config, ids)
        tensors = to_checkpoint(module.config, tensors)
    elif isinstance(module.config, EncoderConfig) and is_bert(module.config):
        config = hugging_face_bert(module.config, getattr(assets, "pad_id", None))
        tensors = to_bert(module.config, tensors)
    else:
        config = {"model_type": model_type, "architectures": [family.module_name], **config_values(module)}
        twins = {name for names in _tied_names(module) for name in names[1:]}
        tensors = {name: tensor for name, tensor in tensors.items() if name not in twins}
    write_text_atomic(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_tensors(folder / WEIGHTS, tensors)
    assets.save(folder)
    if run is not None:
        write_text_atomic(folder / "run.json", json.dumps(run, indent=2) + "\n")
    if card is not None:
        write_text_atomic(folder / "README.md", card)


def read_config(path: Path) -> tuple[Family, Any]:
    """The family and config of the model that ``path/config.json`` describes."""
    return _read_config(path)[:2]


def _read_config(path: Path) -> tuple[Family, Any, list[str]]:
    """``read_config``, and the directory's settings for writing that are not followed."""
    file = path / CONFIG
    values = read_json(file, "the model's config", CheckpointError)
    family, config = model_config(values, str(file))
    if values.get("model_type") in FOREIGN and isinstance(config, EncoderDecoderConfig):
        return family, *with_writing_rules(path, values, config)
    return family, config, []


def model_config(values: Mapping[str, Any], where: str) -> tuple[Family, Any]:
    """The family and config that the values of a ``config.json`` describe; ``CheckpointError`` if there is none."""
    kind = str(values.get("model_type"))
    if kind in FOREIGN:
        return FOREIGN[kind].family, FOREIGN[kind].config(values, where)
    family = FAMILIES.get(kind, DECODER)
    if family is DECODER:
        return family, decoder_config(values, where)
    own = {name: value for name, value in values.items() if name not in ("model_type", "architectures")}
    return family, config_from_values(family, own, where)


def stored_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in ``path`` under the names and in the number format in which they are stored."""
    index = path / f"{WEIGHTS}.index.json"
    if index.exists():
        shards = sorted(set(read_json(index, "the shard index", CheckpointError).get("weight_map", {}).values()))
        return {name: t for shard in shards for name, t in read_tensors(path / Path(shard).name).items()}
    if not (path / WEIGHTS).exists():
        _refuse_pickles(path)
    return read_tensors(path / WEIGHTS)


def read_state(path: Path, module: nn.Module) -> dict[str, Tensor]:
    """The weights in ``path`` as a ``state_dict`` for ``module``, in their stored number format."""
    tensors = stored_tensors(path)
    expected, where = module.state_dict(), str(path / WEIGHTS)
    if isinstance(module.config, DecoderConfig):
        return from_checkpoint(module.config, tensors, expected, where)
    kind = str(read_json(path / CONFIG, "the model's config", CheckpointError).get("model_type"))
    if kind in FOREIGN:
        return FOREIGN[kind].state(module.config, tensors, expected, where)
    first = {twin: names[0] for names in _tied_names(module) for twin in names}
    state = {}
    for name, like in expected.items():
        source = first.get(name, name)
        if source not in tensors:
            raise CheckpointError(f"{where}: tensor '{source}' is missing")
        if tensors[source].shape != like.shape:
            raise CheckpointError(f"{where}: tensor '{source}' has shape {tuple(tensors[source].shape)}, "
                                  f"the config asks for {tuple(like.shape)}")
        state[name] = tensors[source]
    left = sorted(set(tensors) - set(expected))
    if left:
        raise CheckpointError(f"{where}: tensor '{left[0]}' has no place in this model ({len(left)} such)")
    return state


def _tied_names(module: nn.Module) -> list[list[str]]:
    """Groups of names under which one and the same parameter stands in the module."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _tie(module: nn.Module, groups: list[list[str]]) -> None:
    for first, *others in groups:
        parameter = module.get_parameter(first)
        for name in others:
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, parameter)


def load_module(path: Path, *, device: str = "auto", dtype: str = "fp32") -> nn.Module:
    """The module of a model (or run) directory of any family, in evaluation mode.

    Raises ``CheckpointError`` for a file that is missing, damaged, unsafe or of another shape.
    """
    path = resolve_model_path(path)
    family, config, not_followed = _read_config(path)
    if not_followed:
        say(f"{path}: of its settings for writing, these are not followed: {', '.join(not_followed)}")
    target, number = resolve_device(device), torch_dtype(dtype)
    with torch.device("meta"):
        module = family.module_class()(config)
    groups = _tied_names(module)
    state = {name: tensor.to(target, number if tensor.is_floating_point() else tensor.dtype)
             for name, tensor in read_state(path, module).items()}
    module.load_state_dict(state, strict=True, assign=True)
    _tie(module, groups)
    return module.requires_grad_(False).eval()


def load_model(path: Path, *, device: str = "auto", dtype: str = "fp32") -> tuple[Any, "Tokenizer"]:
    """A model that writes text, and its tokenizer, from a model (or run) directory, in evaluation mode.

    Raises ``CheckpointError`` as ``load_module`` does, and for a model of another purpose.
    """
    from tickwise.tokenizers.tokenizer import Tokenizer

    path = resolve_model_path(path)
    family, _ = read_config(path)
    if family.purpose not in ("language model", "text-to-text model"):
        verbs = USED_BY[family.purpose]
        raise CheckpointError(f"{path}: not a language model but a model of another kind ({family.purpose})"
                              + (f"; use it with tickwise {verbs[0]}" if verbs else ""))
    module = load_module(path, device=device, dtype=dtype)
    tokenizer = Tokenizer.load(path)
    vocab_size = module.config.vocab_size  # type: ignore[union-attr]
    if tokenizer.vocab_size > vocab_size:  # type: ignore[operator]
        raise CheckpointError(f"{path}: the tokenizer has {tokenizer.vocab_size} tokens, "
                              f"the model only {vocab_size}; they do not belong together")
    return module, tokenizer


def read_run(path: Path) -> dict[str, Any]:
    """``run.json`` of a model or run directory (empty when there is none)."""
    file = Path(path) / "run.json"
    return read_json(file, "the run record", CheckpointError) if file.exists() else {}
