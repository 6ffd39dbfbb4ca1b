"""Flags that every verb has."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonArguments:
    """Base of every verb's ``Arguments``."""

    config: Path | None = None
    """YAML file with any of these settings; flags on the command line win."""
    json: bool = False
    """Print the result as JSON, alone on stdout."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Print errors only."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Print notes on what is decided and why."""
