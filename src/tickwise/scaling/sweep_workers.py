"""Where the trials of a sweep run: processes of this machine, or a Ray cluster. Each trial is a process of its own."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tickwise.core.errors import ConfigError
from tickwise.core.signals import TerminatedError, handled_by, postponed

_PR_SET_PDEATHSIG = 1
_STDERR_TAIL = 2000
Start = Callable[[Path], "Future[Ended]"]


@dataclass(frozen=True)
class Ended:
    """How a trial's process ended."""

    code: int
    stderr: str


def _die_with_parent() -> None:
    """A sweep that is killed must not leave a trial behind that the next one would start a second time."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run_process(folder: Path, threads: int) -> Ended:
    """Run the trial of ``folder`` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "tickwise.scaling.sweep_trial", str(folder)], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    return Ended(done.returncode, done.stderr[-_STDERR_TAIL:])


@contextlib.contextmanager
def local_workers(workers: int, threads: int) -> Iterator[Start]:
    """``workers`` trials at a time on this machine."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield lambda folder: pool.submit(run_process, folder, threads)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def has_ray() -> bool:
    from importlib.util import find_spec

    return find_spec("ray") is not None


def ray_fits(workers: int, threads: int) -> bool:
    """Whether this machine has the CPUs that a Ray of its own would be started for; a cluster knows by itself."""
    from tickwise.profiling.machine import cores

    return bool(os.environ.get("RAY_ADDRESS")) or workers * threads <= cores()


def check_ray(workers: int, threads: int) -> None:
    """``ConfigError`` where Ray is missing, or would be started here for more CPUs than this machine has: it believes
    what it is told of them."""
    from tickwise.profiling.machine import cores

    if not has_ray():
        raise ConfigError("--scheduler ray: Ray is not installed; pip install 'tickwise[distributed]', or take "
                          "--scheduler local")
    if not ray_fits(workers, threads):
        raise ConfigError(f"Ray would reserve {workers * threads} CPUs, {threads} for each trial at a time, and "
                          f"this machine has {cores()}; lower --threads or --workers, take --scheduler local, or "
                          "name a cluster with RAY_ADDRESS")


@contextlib.contextmanager
def ray_workers(workers: int, threads: int, gpus: float) -> Iterator[Start]:
    """Trials as Ray tasks, each of which reserves ``threads`` CPUs and ``gpus`` GPUs: in the cluster that
    ``RAY_ADDRESS`` names, else in one that is started here for ``workers`` trials at a time. The folder of the sweep
    must be one that all nodes share. A trial whose node fails is started again, and goes on from its checkpoint.

    ``ConfigError`` where Ray does not start, or no node has what a trial reserves. SIGTERM raises
    ``TerminatedError``, after Ray is taken down if it comes then."""
    check_ray(workers, threads)
    import ray

    with handled_by(_terminate, signal.SIGTERM) as heard:
        try:
            _start_ray(workers * threads)
            if heard:  # again: Ray has put a handler of its own there, which would dump its stack
                signal.signal(signal.SIGTERM, _terminate)
            check_room([node["Resources"] for node in ray.nodes() if node["Alive"]], threads, gpus)
            task = ray.remote(run_process).options(num_cpus=threads, num_gpus=gpus, max_retries=3)
            yield lambda folder: task.remote(folder.resolve(), threads).future()
        finally:
            with postponed(signal.SIGTERM):  # half taken down, Ray would leave its processes behind
                ray.shutdown()


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise TerminatedError


def _start_ray(cpus: int) -> None:
    import logging

    import ray

    address = os.environ.get("RAY_ADDRESS")
    own: dict[str, object] = {} if address else {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as problem:  # Ray has no type of its own for this
        why = str(problem).strip().partition("\n")[0] or type(problem).__name__
        what = f"Ray cannot be reached at RAY_ADDRESS={address}" if address else "Ray did not start"
        raise ConfigError(f"{what} ({why}); try again, or take --scheduler local") from None


def check_room(nodes: Sequence[Mapping[str, float]], threads: int, gpus: float) -> None:
    """``ConfigError`` when no node has what a trial reserves: Ray would wait for one without a word."""
    if not any(node.get("CPU", 0.0) >= threads and node.get("GPU", 0.0) >= gpus for node in nodes):
        have = ", ".join(f"{node.get('CPU', 0.0):g} CPUs and {node.get('GPU', 0.0):g} GPUs" for node in nodes[:3])
        raise ConfigError(f"a trial reserves {threads} CPUs and {gpus:g} GPUs, and no node of Ray has these (they have "
                          f"{have}); lower --threads or --gpus, or start a node that has them")
