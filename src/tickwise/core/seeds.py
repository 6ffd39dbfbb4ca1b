"""Seeds and random-number states: same seed, same text; same state, same continuation."""

import random
from typing import Any


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The torch generators' states as uint8 tensors, by device name."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    for index in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        states[f"cuda:{index}"] = torch.cuda.get_rng_state(index)
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_rng_state(states: dict[str, Any]) -> None:
    """Undo everything drawn since ``rng_state`` was called (devices that are not here are skipped)."""
    import torch

    torch.set_rng_state(states["cpu"])
    if torch.backends.mps.is_available() and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
    for index in range(torch.cuda.device_count()):
        if f"cuda:{index}" in states:
            torch.cuda.set_rng_state(states[f"cuda:{index}"], index)
