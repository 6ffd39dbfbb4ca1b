"""A model directory: ``config.json``, ``model.safetensors``, ``tokenizer.json``, ``run.json``, ``README.md``.

No pickle is ever read or written.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tickwise.core.config import read_json
from tickwise.core.device import resolve_device, torch_dtype
from tickwise.core.errors import CheckpointError
from tickwise.core.paths import atomic_directory, write_text_atomic
from tickwise.interop.tensor_names import decoder_config, from_checkpoint, hugging_face_config, to_checkpoint
from tickwise.models.decoder import Decoder

if TYPE_CHECKING:
    from tickwise.tokenizers.tokenizer import Tokenizer

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_PICKLE_NAMES = ("pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.bin")


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
    raise CheckpointError(f"{path}: not a model directory ({CONFIG} is missing)")


def save_model(path: Path, module: nn.Module, tokenizer: "Tokenizer", *, state: Mapping[str, Tensor] | None = None,
               run: Mapping[str, Any] | None = None, card: str | None = None) -> None:
    """Write a model directory, whole or not at all.

    ``state`` replaces the module's own weights (float32 masters, averaged weights); ``run`` becomes
    ``run.json``; ``card`` becomes ``README.md``.
    """
    with atomic_directory(path) as temporary:
        write_model_files(temporary, module, tokenizer, state=state, run=run, card=card)


def write_model_files(folder: Path, module: nn.Module, tokenizer: "Tokenizer", *,
                      state: Mapping[str, Tensor] | None = None, run: Mapping[str, Any] | None = None,
                      card: str | None = None) -> None:
    """The files of a model directory into an existing folder."""
    assert isinstance(module, Decoder)
    config = module.config
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    write_text_atomic(folder / CONFIG, json.dumps(hugging_face_config(config, ids), indent=2) + "\n")
    write_tensors(folder / WEIGHTS, to_checkpoint(config, state if state is not None else module.state_dict()))
    tokenizer.save(folder)
    if run is not None:
        write_text_atomic(folder / "run.json", json.dumps(run, indent=2) + "\n")
    if card is not None:
        write_text_atomic(folder / "README.md", card)


def read_config(path: Path) -> Any:
    """The model's config from ``path/config.json``."""
    return decoder_config(read_json(path / CONFIG, "the model's config", CheckpointError), str(path / CONFIG))


def read_state(path: Path, module: Decoder) -> dict[str, Tensor]:
    """The weights in ``path`` as a ``state_dict`` for ``module``, in their stored number format."""
    index = path / f"{WEIGHTS}.index.json"
    if index.exists():
        shards = sorted(set(read_json(index, "the shard index", CheckpointError).get("weight_map", {}).values()))
        tensors = {name: t for shard in shards for name, t in read_tensors(path / Path(shard).name).items()}
    else:
        if not (path / WEIGHTS).exists():
            _refuse_pickles(path)
        tensors = read_tensors(path / WEIGHTS)
    return from_checkpoint(module.config, tensors, module.state_dict(), str(path / WEIGHTS))


def load_model(path: Path, *, device: str = "auto", dtype: str = "fp32") -> tuple[Decoder, "Tokenizer"]:
    """The model and tokenizer of a model (or run) directory, in evaluation mode.

    Raises ``CheckpointError`` for a file that is missing, damaged, unsafe or of another shape.
    """
    from tickwise.tokenizers.tokenizer import Tokenizer

    path = resolve_model_path(path)
    config = read_config(path)
    target = resolve_device(device)
    with torch.device("meta"):
        module = Decoder(config)
    state = read_state(path, module)
    state = {name: tensor.to(target, torch_dtype(dtype)) for name, tensor in state.items()}
    module.load_state_dict(state, strict=True, assign=True)
    if config.tie_embeddings:
        module.lm_head.weight = module.embed_tokens.weight
    tokenizer = Tokenizer.load(path)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(f"{path}: the tokenizer has {tokenizer.vocab_size} tokens, "
                              f"the model only {config.vocab_size}; they do not belong together")
    return module.requires_grad_(False).eval(), tokenizer


def read_run(path: Path) -> dict[str, Any]:
    """``run.json`` of a model or run directory (empty when there is none)."""
    file = Path(path) / "run.json"
    return read_json(file, "the run record", CheckpointError) if file.exists() else {}
