"""Flags of verbs whose training several ranks can share."""

import dataclasses
import os
import sys
from typing import TYPE_CHECKING

from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    from tickwise.training.distributed.launch import Launch


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchFlags:
    """Where to train; left out, in this process."""

    ranks: int | None = None
    """Processes on this machine that train one model together: one per GPU, or sharing the processor's cores."""
    nodes: int | None = None
    """Machines that train one model together. Run the same command on each; --dry-run prints torchrun's."""
    ranks_per_node: int | None = None
    """Processes on each of them."""
    rendezvous: str | None = None
    """HOST:PORT where they meet: the first node's name and a free port there."""
    restarts: int = 3
    """How often the ranks start again from their last checkpoint when one of them dies or hangs."""

    def _refuse_what_one_process_ignores(self) -> None:
        """``ConfigError`` for flags that say how ranks meet or share a model where none are asked for."""
        parallel = getattr(self, "parallel", None)
        for flag, given in (("--rendezvous", self.rendezvous is not None),
                            ("--restarts", self.restarts != LaunchFlags.restarts),
                            ("--parallel.strategy fsdp", parallel is not None and parallel.strategy == "fsdp")):
            if given:
                raise ConfigError(f"{flag}: means nothing to one process; give --ranks, or --nodes and "
                                  "--ranks-per-node, or leave it out")

    def launch(self) -> "Launch | None":
        """What is to be started; ``None`` for a training in this process, as which every rank sees itself.
        ``ConfigError`` for flags that contradict each other."""
        if self.ranks is None and self.nodes is None and self.ranks_per_node is None:
            if "TORCHELASTIC_RUN_ID" not in os.environ:
                self._refuse_what_one_process_ignores()
            return None
        # Before torch is there: what goes wrong between ranks is told in one line of ours.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
        from tickwise.training.distributed.launch import launch_of
        from tickwise.training.distributed.ranks import is_one_of_several

        if is_one_of_several():
            return None
        return launch_of(self.ranks, self.nodes, self.ranks_per_node, self.rendezvous, self.restarts)


def check_launch(launch: "Launch") -> None:
    """``UserError`` where the ranks cannot meet, or so many do not fit, before time goes into anything else."""
    from tickwise.training.distributed.launch import check_meeting_place, check_processes_fit

    check_meeting_place(launch)
    check_processes_fit(launch)


def start(launch: "Launch", resume: str = "--resume auto") -> int:
    """Start the ranks with this process's own command line; the exit code. ``resume``: how the verb's flag is called
    that goes on with a run."""
    from tickwise.training.distributed.launch import start_ranks

    return start_ranks(launch, sys.argv[1:], resume)


def torchrun(launch: "Launch") -> str:
    """The command line that starts one node's ranks."""
    from tickwise.training.distributed.launch import command

    return command(launch, sys.argv[1:])
