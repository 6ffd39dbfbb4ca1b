"""Three ranks and one that does not come: whoever tells names that one, and nobody else."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

PROGRAM = """
import os, signal, sys, time
from types import SimpleNamespace
import torch
import torch.distributed as dist
from tickwise.training.distributed.ranks import Joined, Ranks

rank, what, timeout = int(os.environ["RANK"]), sys.argv[1], float(sys.argv[2])
joined = Joined(timeout, torch.device("cpu"))
ranks = Ranks(joined)
training = SimpleNamespace(counters=SimpleNamespace(step=6))
assert joined.texts(f"rank {rank} ß") == [f"rank {other} ß" for other in range(3)]
assert ranks.tell(f"from {rank}") == "from 0"
assert ranks.mean(float(rank)) == 1.0
print("joined", flush=True)
try:
    with ranks.faults_named(training):
        if what == "stopped" and rank == 2 or what == "first stopped" and rank == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        if what == "late" and rank == 1:
            time.sleep(2.2 * timeout)
        if what == "staggered":
            time.sleep(rank * 0.6 * timeout)
            if rank == 2:
                os.kill(os.getpid(), signal.SIGSTOP)
        if what == "writing":
            with ranks.leader_writes():
                if rank == 0:
                    time.sleep(2.2 * timeout)
        if what == "writing, stopped":
            with ranks.leader_writes():
                if rank == 0:
                    os.kill(os.getpid(), signal.SIGSTOP)
        ranks.mean(1.0)
    ranks.leave()
    print("left", flush=True)
except BaseException as end:
    print(f"{type(end).__name__}: {end}", flush=True)
    if type(end).__name__ == "SystemExit":
        time.sleep(20)  # a rank that leaves in silence would have its launcher end the one that tells
    os._exit(1)
"""
TIMEOUT = 4.0


def run_three(what, timeout=TIMEOUT):
    """What each rank printed at last, and its process id; stopped ones are killed when the others are done."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    common = os.environ | {"WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
                           "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "FATAL", "GLOO_SOCKET_IFNAME": "lo"}
    started = [subprocess.Popen([sys.executable, "-c", PROGRAM, what, str(timeout)], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, env=common | {"RANK": str(rank)})
               for rank in range(3)]
    deadline = time.monotonic() + 120
    try:
        while time.monotonic() < deadline and any(
                one.poll() is None and psutil.Process(one.pid).status() != psutil.STATUS_STOPPED for one in started):
            time.sleep(0.1)
    finally:
        for one in started:
            if one.poll() is None:
                one.send_signal(signal.SIGKILL)
    said = [one.communicate()[0].strip().splitlines() for one in started]
    assert all(lines and lines[0] == "joined" for lines in said), said
    return [lines[-1] for lines in said], [one.pid for one in started]


@pytest.mark.slow
@pytest.mark.parametrize(("what", "hung"), [("stopped", 2), ("first stopped", 0), ("staggered", 2)])
def test_healthy_ranks_accuse_nobody_but_the_one_that_hangs(what, hung):
    said, pids = run_three(what)
    named = [line for line in said if line.startswith("RankError")]
    assert named, said
    for line in named:
        assert f"step 7: rank {hung} (process {pids[hung]} on " in line
        assert line.count("(process") == 1
        assert "hung: no answer for 4 s while the others waited in gloo:" in line
    if hung != 0:
        assert len(named) == 1, said


@pytest.mark.slow
def test_a_late_rank_is_called_slow_and_not_hung():
    said, pids = run_three("late")
    named = [line for line in said if line.startswith("RankError")]
    assert len(named) == 1, said
    assert f"rank 1 (process {pids[1]} on " in named[0]
    assert "slow, not hung; raise --parallel.timeout-seconds" in named[0]


@pytest.mark.slow
def test_the_others_wait_for_files_that_the_first_rank_writes_for_long():
    said, _ = run_three("writing")
    assert said == ["left"] * 3


@pytest.mark.slow
def test_a_first_rank_that_hangs_while_it_writes_is_named():
    said, pids = run_three("writing, stopped")
    for line in said[1:]:
        assert line.startswith(f"RankError: rank 0 (process {pids[0]} on "), said
        assert "hung: no answer for 4 s while the others waited for the files that it writes" in line
