"""tickwise: train and run language models, and know what every token costs.

The public names are loaded on first use, so that ``import tickwise`` costs milliseconds.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tickwise.core.errors import UserError
    from tickwise.engine.engine import Engine
    from tickwise.engine.language_model import LanguageModel
    from tickwise.engine.requests import Request
    from tickwise.engine.settings import GenerationSettings
    from tickwise.evaluation.perplexity import evaluate
    from tickwise.tasks.loading import load
    from tickwise.training.config import TrainConfig
    from tickwise.training.run import train

_HOME = {
    "Engine": "tickwise.engine.engine",
    "GenerationSettings": "tickwise.engine.settings",
    "LanguageModel": "tickwise.engine.language_model",
    "Request": "tickwise.engine.requests",
    "TrainConfig": "tickwise.training.config",
    "UserError": "tickwise.core.errors",
    "evaluate": "tickwise.evaluation.perplexity",
    "load": "tickwise.tasks.loading",
    "train": "tickwise.training.run",
}
__all__ = [
    "Engine", "GenerationSettings", "LanguageModel", "Request", "TrainConfig", "UserError", "evaluate", "load", "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tickwise' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
