"""Starting the ranks of a run with torchrun's own machinery, and what becomes of them."""

import functools
import logging
import os
import shlex
import signal
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tickwise.core import console
from tickwise.core.console import format_bytes
from tickwise.core.errors import ConfigError, MemoryLimitError, RankError
from tickwise.core.processes import signal_name
from tickwise.profiling.machine import cores, memory_bytes

_DEFAULT_PORT = 29500
_OWN_FLAGS = ("--ranks", "--nodes", "--ranks-per-node", "--rendezvous", "--restarts")
_FIRST_SPEAKS_S = 3.0
_SHUTDOWN_S = 600
"""How long ranks may take to finish a step and save after Ctrl-C; torchrun kills them after 30 s where nothing else is
said."""
_RANK_SAID_WHY = 2
"""A worker's exit code after a line of its own."""
_FRESH_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Else ranks that start again find the addresses of the dead ones in torchrun's store, and gloo calls those."""
REFUSED = signal.SIGQUIT
"""What a worker sends to whoever started it when starting again would end the same way."""


@dataclass(frozen=True)
class Launch:
    """How many ranks, and where they meet."""

    nodes: int
    ranks_per_node: int
    host: str
    port: int
    restarts: int
    name: str

    @property
    def n_ranks(self) -> int:
        return self.nodes * self.ranks_per_node


def launch_of(ranks: int | None, nodes: int | None, ranks_per_node: int | None, rendezvous: str | None,
              restarts: int) -> Launch | None:
    """What the flags ask for; ``None`` for one process. ``ConfigError`` where they contradict each other."""
    for flag, value in (("--ranks", ranks), ("--nodes", nodes), ("--ranks-per-node", ranks_per_node)):
        if value is not None and value < 1:
            raise ConfigError(f"{flag}: must be positive, got {value}")
    if restarts < 0:
        raise ConfigError(f"--restarts: must not be negative, got {restarts}")
    if ranks is not None and (nodes is not None or ranks_per_node is not None):
        raise ConfigError("--ranks is for one machine; for several give --nodes and --ranks-per-node instead")
    launch = Launch(nodes or 1, ranks if ranks is not None else ranks_per_node or 1, "localhost", 0, restarts,
                    f"tickwise-{uuid.uuid4().hex[:8]}")
    if rendezvous is not None:
        host, colon, port = rendezvous.rpartition(":")
        if not (colon and host and port.isdigit() and int(port) < 1 << 16):
            raise ConfigError(f"--rendezvous {rendezvous}: give HOST:PORT, the first node's name and a free port")
        launch = replace(launch, host=host, port=int(port))
    elif launch.nodes > 1:
        launch = replace(launch, host="HOST", port=_DEFAULT_PORT)
    if launch.nodes > 1:  # the same on every node
        launch = replace(launch, name=f"tickwise-{os.environ.get('SLURM_JOB_ID', launch.port)}")
    return launch if launch.n_ranks > 1 else None


def command(launch: Launch, words: Sequence[str]) -> str:
    """torchrun's command line: the same one on every node. ``words`` are tickwise's own."""
    return shlex.join(["env", f"{_FRESH_STORE}=1", "torchrun", f"--nnodes={launch.nodes}",
                       f"--nproc-per-node={launch.ranks_per_node}", f"--max-restarts={launch.restarts}",
                       "--rdzv-backend=c10d", f"--rdzv-endpoint={launch.host}:{launch.port}",
                       f"--rdzv-id={launch.name}", f"--shutdown-timeout={_SHUTDOWN_S}", "-m", "tickwise",
                       *without_launch_flags(words)])


def without_launch_flags(words: Sequence[str]) -> list[str]:
    """The command line of one rank."""
    kept: list[str] = []
    skip = False
    for word in words:
        flag, equals, _ = word.replace("_", "-").partition("=")
        if skip:
            skip = False
        elif flag in _OWN_FLAGS:
            skip = not equals
        elif flag not in ("--dry-run", "--no-dry-run"):
            kept.append(word)
    return kept


@functools.cache
def least_rank_bytes() -> int:
    """What every rank takes besides its model: as much as this process, with PyTorch loaded, shares with no other. Its
    first call should come before this process reads any data."""
    import psutil

    return int(psutil.Process().memory_full_info().uss)


def check_processes_fit(launch: Launch) -> None:
    """``MemoryLimitError`` when this machine has not even the memory for that many processes with PyTorch alone."""
    own, (_, available) = least_rank_bytes(), memory_bytes()
    if launch.ranks_per_node * own > available:
        raise MemoryLimitError(f"out of memory: {launch.ranks_per_node} ranks on this machine need "
                               f"{format_bytes(launch.ranks_per_node * own)} for Python and PyTorch alone, "
                               f"{format_bytes(available)} are free: start fewer")


def start_ranks(launch: Launch, words: Sequence[str], resume: str = "--resume auto") -> int:
    """Start this machine's ranks, start them again when one dies, and wait; the exit code. ``resume``: how the flag is
    called that goes on with a run.

    ``ConfigError`` for a port that is in use, ``MemoryLimitError`` where so many processes do not fit, ``RankError``
    when the ranks died once too often.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    check_meeting_place(launch)
    check_processes_fit(launch)
    _hear_deaths(launch.restarts)
    os.environ[_FRESH_STORE] = "1"
    # Where nothing was said, ranks of one machine share its cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // launch.ranks_per_node)))
    config = LaunchConfig(min_nodes=launch.nodes, max_nodes=launch.nodes, nproc_per_node=launch.ranks_per_node,
                          run_id=launch.name, rdzv_backend="c10d", rdzv_endpoint=f"{launch.host}:{launch.port}",
                          max_restarts=launch.restarts, shutdown_timeout=_SHUTDOWN_S)
    if launch.nodes == 1 and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody else's business
    try:
        elastic_launch(config, sys.executable)("-m", "tickwise", *without_launch_flags(words))
    except RendezvousError:
        raise RankError(f"the nodes lost each other: nobody answers at {launch.host}:{launch.port}, or not as many as "
                        "were to come; the others' lines say why. Where they name nothing to mend, go on with "
                        f"the same command and {resume}") from None
    except SignalException as stopped:
        _end_remaining()
        return 2 if stopped.sigval == REFUSED else 130
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        how = f"was killed ({failure.signal_name()})" if failure.exitcode < 0 else f"ended with {failure.exitcode}"
        raise RankError(f"rank {rank} {how} after {launch.restarts} restarts, which is all that --restarts allows; go "
                        f"on with the same command and {resume}") from None
    return 0


def _hear_deaths(restarts: int) -> None:
    """What torchrun logs is said in one line of ours, or not at all."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    for name, level, heard in (("multiprocessing.api", logging.ERROR, _Deaths(restarts)),
                               ("agent.server.api", logging.WARNING, _Stops())):
        logger = logging.getLogger(f"torch.distributed.elastic.{name}")
        logger.handlers, logger.propagate = [heard], False
        logger.setLevel(level)


class _Stops(logging.Handler):
    """Says that a signal was heard."""

    def emit(self, record: logging.LogRecord) -> None:
        if "death signal" in str(record.msg) and record.args != (REFUSED,):
            console.say("stopping: a step that has begun is finished and saved; press Ctrl-C again to stop at once "
                        "without saving")


class _Deaths(logging.Handler):
    """Says which rank died and whether all start again, once for every time, instead of torchrun's records."""

    def __init__(self, restarts: int) -> None:
        super().__init__()
        self._restarts = self._left = restarts

    def emit(self, record: logging.LogRecord) -> None:
        if not str(record.msg).startswith("failed (exitcode") or not isinstance(record.args, tuple):
            return
        code, rank, pid = (int(str(value)) for value in record.args[:3])
        if not self._left:  # what ``start_ranks`` raises says so
            return
        self._left -= 1
        how = f"was killed ({signal_name(-code)})" if code < 0 else f"ended with exit code {code}"
        what = "" if code == _RANK_SAID_WHY else f"local rank {rank} (process {pid}) {how}; "
        console.say(f"{what}all ranks start again from the last checkpoint; of {self._restarts} restarts {self._left} "
                    "are left")


def _end_remaining() -> None:
    """After one Ctrl-C there are no ranks any more; after several, torchrun may have left some behind."""
    import psutil

    for process in psutil.Process().children():
        if process.environ().get("TORCHELASTIC_RUN_ID"):
            process.kill()


def check_meeting_place(launch: Launch) -> None:
    """``ConfigError`` when none was given to several nodes, or another program has the port on this machine."""
    if launch.host == "HOST":
        raise ConfigError("--nodes: say where the nodes meet with --rendezvous HOST:PORT, the first node's name and a "
                          "free port there")
    if launch.port == 0:
        return
    try:
        with socket.socket(socket.AF_INET6 if ":" in launch.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((launch.host, launch.port))
            probe.listen()
            return
    except socket.gaierror:
        raise ConfigError(f"--rendezvous {launch.host}:{launch.port}: no such host") from None
    except OSError as problem:
        import errno

        if problem.errno != errno.EADDRINUSE:  # the host is another machine, which knows its own ports
            return
    if launch.nodes == 1 or not _is_meeting_place(launch):
        raise ConfigError(f"--rendezvous {launch.host}:{launch.port}: the port is in use by another program; give "
                          "another one")


def _is_meeting_place(launch: Launch) -> bool:
    """Whether ranks meet at the port already: another node, or another part of this one, came first."""
    from datetime import timedelta

    from torch.distributed import DistError, TCPStore

    try:
        TCPStore(launch.host, launch.port, is_master=False, timeout=timedelta(seconds=5))
    except (DistError, RuntimeError, ValueError):
        return False
    return True


def refuse(line: str) -> None:
    """Called by a rank that cannot go on, nor would after a restart: say why, and have its launch ended. Where all
    ranks refuse for the same reason, the first one of each machine has its others ended before they speak."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(_FIRST_SPEAKS_S)
    print(line, file=sys.stderr, flush=True)
    os.kill(os.getppid(), REFUSED)
