"""Models without weights, from a ``config.json``: tickwise's own, or any architecture that transformers has.

They live on the meta device, so their size does not matter. No code that comes with a model is ever run.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tickwise.core.config import read_json
from tickwise.core.console import say
from tickwise.core.device import torch_dtype
from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.interop.config_keys import HONOURED
from tickwise.interop.directory import CONFIG, model_config, resolve_model_path
from tickwise.models.families import FAMILIES

_LONGEST_LINE = 200
Library = Literal["auto", "tickwise", "transformers"]


def model_from_config(path: Path, *, dtype: str = "fp32", library: Library = "auto") -> nn.Module:
    """The model that a model directory, a run directory or a ``config.json`` describes, on the meta device.

    ``auto`` takes tickwise's own code where it computes that config, else transformers'; where tickwise has the
    architecture and refuses the config, it says so. ``CheckpointError`` for a config that neither knows,
    ``ConfigError`` where transformers is needed and not installed.
    """
    file = path if path.is_file() else resolve_model_path(path) / CONFIG
    values = read_json(file, "the model's config", CheckpointError)
    own = library == "tickwise" or values.get("model_type") in FAMILIES
    refusal: CheckpointError | None = None
    if library != "transformers" or own:
        try:
            family, config = model_config(values, str(file))
            with torch.device("meta"):
                return family.module_class()(config).to(torch_dtype(dtype)).eval()
        except CheckpointError as problem:
            if own:
                raise
            refusal = problem if values.get("model_type") in HONOURED else None
    try:
        module = _from_transformers(values, str(file)).to(torch_dtype(dtype)).eval()
    except CheckpointError as problem:
        raise (refusal or problem) from None
    if refusal is not None:
        say(f"tickwise refuses this config ({refusal}); this is transformers' code, which train and generate do not "
            "run")
    return module


def _from_transformers(values: Mapping[str, Any], where: str) -> nn.Module:
    kind = values.get("model_type")
    if not isinstance(kind, str):
        raise CheckpointError(f"{where}: key 'model_type' is missing")
    try:
        import transformers
    except ImportError:
        raise ConfigError(f"{where}: for a model of type '{kind}' transformers is needed, and it is not installed; "
                          "pip install transformers") from None
    transformers.logging.set_verbosity_error()
    settings = {name: value for name, value in values.items() if name != "model_type"}
    try:
        config = transformers.AutoConfig.for_model(kind, **settings)
    except Exception as problem:  # whatever transformers says of a value that it does not like
        raise CheckpointError(f"{where}: transformers {transformers.__version__} cannot use this config: "
                              f"{_first_line(problem)}") from None
    width = config.attribute_map.get("hidden_size", "hidden_size")
    if hasattr(config, width) and not {"hidden_size", width} & settings.keys():  # else it is that of some other model
        raise CheckpointError(f"{where}: key '{width}' is missing")
    try:
        with _without_weights():
            return _build(config, values.get("architectures") or [])
    except Exception as problem:
        raise CheckpointError(f"{where}: transformers {transformers.__version__} cannot build this model: "
                              f"{_first_line(problem)}") from None


def _build(config: Any, architectures: list[str]) -> nn.Module:
    """The class that the config names, else with the head that it is trained with, else the bare model."""
    import transformers

    for name in architectures:
        named = getattr(transformers, str(name), None)
        if isinstance(named, type) and issubclass(named, transformers.PreTrainedModel):
            return named(config)
    kinds: list[Any] = [transformers.AutoModelForCausalLM]
    if getattr(config, "is_encoder_decoder", False):
        kinds.insert(0, transformers.AutoModelForSeq2SeqLM)
    elif not getattr(config, "is_decoder", False):
        kinds.insert(0, transformers.AutoModelForMaskedLM)
    for auto in kinds:
        if type(config) in auto._model_mapping:
            model: nn.Module = auto.from_config(config)
            return model
    bare: nn.Module = transformers.AutoModel.from_config(config)
    return bare


def _first_line(problem: Exception) -> str:
    """The first line, or, where that only announces another error, the next one."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or [type(problem).__name__]
    line = re.sub(r"^\w+Error: ", "", lines[1]) if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    return line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + " …"


class _NothingIsDrawn(TorchDispatchMode):
    """Skips in-place operations on meta tensors: PyTorch loads its compiler to do nothing on them."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        draws = torch.Tag.nondeterministic_seeded in func.tags or func._schema.name in ("aten::fill_", "aten::zero_")
        if draws and func._schema.is_mutable and args and isinstance(args[0], torch.Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _without_weights() -> Iterator[None]:
    with torch.device("meta"), _NothingIsDrawn():
        yield
