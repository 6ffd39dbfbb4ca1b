"""From an assembled training to one rank of several."""

from pathlib import Path
from typing import TYPE_CHECKING

from tickwise.core import console
from tickwise.core.device import torch_dtype
from tickwise.core.errors import ConfigError
from tickwise.training.checkpoint import has_shards, restore_checkpoint
from tickwise.training.distributed.ranks import Joined, Ranks, check_split, is_one_of_several
from tickwise.training.memory_saving import is_hollow
from tickwise.training.parallel import Alone

if TYPE_CHECKING:
    from tickwise.training.loop import Training


def join_ranks(training: "Training", trace: Path | None) -> Alone:
    """Meet the other ranks, if there are any. ``ConfigError`` for ranks that differ, and for settings that several
    ranks cannot have."""
    if not is_one_of_several():
        return Alone()
    config = training.config
    if trace is not None:
        raise ConfigError("--trace: one process is traced, not several ranks")
    if config.compile == "on":
        raise ConfigError("--compile on: several ranks compute without torch.compile; leave it out")
    joined = Joined(config.parallel.timeout_seconds, training.device)
    if training.objective.fixed_shapes:
        check_split(config, joined.n_ranks)
    ranks = Ranks(joined)
    with ranks.faults_named(training):
        joined.check_same(training)
    training.record |= {"ranks": joined.n_ranks, "launchers": joined.launchers}
    if training.peak_flops_per_s is not None and training.device.type == "cuda":
        training.peak_flops_per_s *= joined.n_ranks
    console.say(f"{joined.n_ranks} ranks, {config.parallel.strategy}")
    return ranks


def spread(training: "Training", resumed_from: Path | None) -> None:
    """Restore what is to be resumed, and share out over the ranks what each is to hold."""
    several = isinstance(training.parallel, Ranks)
    sharded = several and training.config.parallel.strategy == "fsdp"
    reads_shares = sharded and resumed_from is not None and has_shards(resumed_from)
    if resumed_from is not None and not reads_shares:
        if is_hollow(training.module):
            from tickwise.training.distributed.sharded import hold_all

            hold_all(training)
        restore_checkpoint(training, resumed_from)
    if isinstance(training.parallel, Ranks):
        training.counters.compiled = False
        joined, dtype = training.parallel.joined, torch_dtype(training.dtype_name)
        if sharded:
            from tickwise.training.distributed.sharded import Sharded

            training.parallel = Sharded(joined, training, dtype)
        else:
            from tickwise.training.distributed.replicated import Replicated

            training.parallel = Replicated(joined, training, dtype)
    if resumed_from is not None and reads_shares:
        restore_checkpoint(training, resumed_from)
        training.counters.compiled = False
