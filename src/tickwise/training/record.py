"""What ``run.json`` says of any training: how it was called, on what, with what."""

import platform
import shlex
import sys
import time
from typing import Any

import torch
from torch import nn

from tickwise.core.config import to_dict
from tickwise.models.families import config_values, family_of
from tickwise.training.config import LoopConfig


def run_facts(config: LoopConfig, module: nn.Module, data: dict[str, Any], *, dtype: str,
              device: torch.device) -> dict[str, Any]:
    """What is known of a run before its first step, JSON-ready; ``data`` as ``train_module`` takes it."""
    return {
        "command": shlex.join(sys.argv), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "config": to_dict(config),
        "family": family_of(module)[1].name, "model": config_values(module),
        "parameters": sum(p.numel() for p in module.parameters()), "dtype": dtype, "device": str(device),
        "threads": torch.get_num_threads(), "seed": config.seed, "data": data, "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    import numpy
    import safetensors

    import tokenizers
    from tickwise import __version__

    return {"tickwise": __version__, "python": platform.python_version(), "torch": torch.__version__,
            "numpy": numpy.__version__, "tokenizers": tokenizers.__version__, "safetensors": safetensors.__version__}
