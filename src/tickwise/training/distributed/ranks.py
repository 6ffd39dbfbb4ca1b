"""The ranks of a run: joining them, what they agree on, and telling which one hangs.

Data: every rank draws the same global batches from the same cursor and computes its own micro-batches of each, so that
order and place in the data do not depend on the number of ranks. What is random in a micro-batch (dropout) follows from
the seed, the step and the micro-batch's number.
"""

import contextlib
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from tickwise.core import console
from tickwise.core.config import to_dict
from tickwise.core.errors import ConfigError, RankError
from tickwise.training.config import LoopConfig
from tickwise.training.objective import Batch, Objective
from tickwise.training.parallel import Alone, MicroBatch, Plain, divisors

if TYPE_CHECKING:
    from tickwise.training.loop import Training

_LONGEST_ROLL_CALL_S = 30.0
_COMMUNICATION = re.compile(r"Timed out waiting|[Cc]onnection (closed|reset|refused)|gloo|NCCL|Broken pipe")


def is_one_of_several() -> bool:
    """torchrun, Ray or another launcher started this process as a rank among others."""
    if dist.is_initialized():
        return dist.get_world_size() > 1
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_leader() -> bool:
    """This process alone, or the rank that shows and writes."""
    if dist.is_initialized():
        return dist.get_rank() == 0
    return not is_one_of_several() or os.environ.get("RANK", "0") == "0"


def launch_name() -> str | None:
    """What all ranks of one launch have in common, also after a restart."""
    return os.environ.get("TORCHELASTIC_RUN_ID") if is_one_of_several() else None


def after_restart(config: LoopConfig) -> LoopConfig:
    """``config``; where its launch has begun to write the run already, it goes on whatever the flags said at first."""
    name = launch_name()
    if name is None:
        return config
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    with contextlib.suppress(OSError, ValueError):  # a restart of other nodes does not count here
        restarted = restarted or json.loads((config.out / "run.json").read_text(encoding="utf-8"))["launch"] == name
    return replace(config, resume="auto", overwrite=False) if restarted else config


def own_device(device: torch.device) -> torch.device:
    """The accelerator of this rank, among those of its machine."""
    if device.type == "cuda" and is_one_of_several():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def check_split(config: LoopConfig, n_ranks: int) -> None:
    """``ConfigError`` for a batch that cannot be shared out evenly."""
    n_parts = n_ranks * config.accumulate
    if config.batch_size is not None and config.batch_size % n_parts:
        micro = f" × {config.accumulate} micro-batches" if config.accumulate > 1 else ""
        raise ConfigError(f"--batch-size: {n_ranks} ranks{micro} do not divide the batch of {config.batch_size}; give "
                          f"a multiple of {n_parts}")


class Ranks(Alone):
    """One rank of several, between ``join`` and ``leave``. How gradients are exchanged is its subclasses' part."""

    def __init__(self, joined: "Joined") -> None:
        self.joined = joined
        self.rank, self.n_ranks = joined.rank, joined.n_ranks

    def parts(self, objective: Objective, batch: Batch, accumulate: int) -> list[MicroBatch]:
        """Every n-th part. All ranks compute the same number: where a batch has too few parts, one counts for
        nothing."""
        pieces = objective.split(batch, self.n_ranks * accumulate)
        whole = divisors(pieces)
        own = [MicroBatch(number, pieces[number], whole[number] / self.n_ranks)
               for number in range(self.rank, len(pieces), self.n_ranks)]
        if len(own) < -(-len(pieces) // self.n_ranks):
            own.append(MicroBatch(len(pieces), pieces[0], float("inf")))
        return own

    @contextlib.contextmanager
    def computing(self, training: "Training", part: MicroBatch, last: bool) -> Iterator[None]:
        key = f"{training.config.seed} {training.counters.step} {part.number}".encode()
        torch.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1)
        with self.exchanging(last):
            yield

    def exchanging(self, wanted: bool) -> contextlib.AbstractContextManager[None]:
        """Whether the forward and backward pass inside exchanges gradients."""
        raise AssertionError("replicated or sharded")

    def carry(self, objective: Objective, state: tuple[Tensor, ...], part: MicroBatch) -> None:
        """Every rank keeps the state of all: a checkpoint has it whole, whoever goes on from it."""
        if not state:
            return
        gathered = [[torch.empty_like(one) for _ in range(self.n_ranks)] for one in state]
        for one, places in zip(state, gathered, strict=True):
            dist.all_gather(places, one.detach().contiguous())
        for rank, states in enumerate(zip(*gathered, strict=True)):
            objective.carry(states, part.number - self.rank + rank)

    def mean(self, value: float) -> float:
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return total.item() / self.n_ranks

    def agree(self, value: Plain) -> Plain:
        said = torch.tensor(float(value), dtype=torch.float64)
        dist.broadcast(said, 0)
        return type(value)(said.item())

    def tell(self, value: Any) -> Any:
        said = [value]
        dist.broadcast_object_list(said, 0)
        return said[0]

    @contextlib.contextmanager
    def faults_named(self, training: "Training") -> Iterator[None]:
        try:
            yield
        except RuntimeError as problem:
            if not (isinstance(problem, dist.DistError) or _COMMUNICATION.search(str(problem))):
                raise
            raise self.joined.fault(problem, training) from None

    def leave(self) -> None:
        dist.barrier()
        if not self.joined.found_here:
            dist.destroy_process_group()


class Joined:
    """A process group, and one more for the roll call, on which nothing else is sent."""

    def __init__(self, timeout_s: float, device: torch.device) -> None:
        os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "64")  # the flight recorder: the last collectives
        self.found_here = dist.is_initialized()
        """Someone else (Ray) made the group, and will end it."""
        self.timeout_s = timeout_s
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            if not self.found_here:
                dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                                        timeout=timedelta(seconds=timeout_s))
            self.rank, self.n_ranks = dist.get_rank(), dist.get_world_size()
            self._roll_call = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
            self.hosts: list[str] = [""] * self.n_ranks
            dist.all_gather_object(self.hosts, f"process {os.getpid()} on {socket.gethostname()}")
        except RuntimeError as problem:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            why = str(problem).splitlines()[0]
            if "EADDRINUSE" in why:
                raise ConfigError(f"the ranks cannot meet at {where}: the port is in use; give another one") from None
            raise RankError(f"the ranks do not find each other at {where}: {why}") from None
        if self.rank != 0:
            console.set_verbosity(console.QUIET)

    def name(self, rank: int) -> str:
        return f"rank {rank} ({self.hosts[rank]})"

    def check_same(self, training: "Training") -> None:
        """``ConfigError`` that names the first rank whose code, data or settings are not those of rank 0."""
        from tickwise import __version__

        settings = to_dict(training.config) | {"dtype": training.dtype_name}
        own = {"code": f"{code_fingerprint()} of tickwise {__version__} with torch {torch.__version__}",
               "data": training.data_fingerprint,
               "settings": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()}
        everyone: list[dict[str, str]] = [{}] * self.n_ranks
        dist.all_gather_object(everyone, own)
        for rank, other in enumerate(everyone):
            for what, mend in (("code", "install the same version on every node"), ("data", "give all ranks the same"),
                               ("settings", "give all nodes the same flags")):
                if other[what] != everyone[0][what]:
                    raise ConfigError(f"{self.name(rank)} has other {what} than {self.name(0)} "
                                      f"({_differing(other[what], everyone[0][what])}): {mend}")

    def fault(self, problem: RuntimeError, training: "Training") -> BaseException:
        """What to end with when a collective failed: a line that names the ranks that hang. The other end of a broken
        connection has its own story; whoever started the ranks tells it."""
        if not re.search(r"[Tt]imed? ?out", str(problem)):
            console.note(f"rank {self.rank}: another rank is gone")
            return SystemExit(1)
        collective = last_collective()
        grace = min(self.timeout_s, _LONGEST_ROLL_CALL_S)
        try:
            dist.monitored_barrier(self._roll_call, timeout=timedelta(seconds=grace), wait_all_ranks=True)
        except RuntimeError as missing:
            named = re.search(r"Ranks? ([\d, ]+) failed to pass", str(missing))
            if named is not None:
                absent = [int(number) for number in re.findall(r"\d+", named.group(1))]
            elif re.search(r"[Tt]imed? ?out", str(missing)):
                absent = [0]
            else:
                return SystemExit(1)  # rank 0 has named whoever is missing
            names = " and ".join(self.name(rank) for rank in absent)
            return RankError(f"step {training.counters.step + 1}: {names} hung: no answer for {self.timeout_s:g} s "
                             f"while the others waited in {collective}")
        if self.rank != 0:
            return SystemExit(1)
        return RankError(f"step {training.counters.step + 1}: a rank took more than {self.timeout_s:g} s to join "
                         f"{collective}, but all answer now: slow, not hung; raise --parallel.timeout-seconds")


def _differing(one: str, other: str) -> str:
    """The two, as short as tells them apart."""
    return f"{one[:12]} and {other[:12]}" if one[:12] != other[:12] else f"{one} and {other}"


def last_collective() -> str:
    """The newest collective that this rank took part in, as the flight recorder has it: its name and sizes."""
    recorder: Any = torch._C._distributed_c10d
    record = json.loads(recorder._dump_fr_trace_json(includeCollectives=True, onlyActive=False))
    entries = record.get("entries") or []
    if not entries:
        return "a collective"
    newest = max(entries, key=lambda entry: int(entry["time_created_ns"]))
    sizes = "+".join("×".join(map(str, size)) or "1" for size in newest.get("input_sizes") or [])
    of = f" of {sizes} numbers" if sizes else ""
    return f"{newest['profiling_name']} number {newest['collective_seq_id']}{of}"


def code_fingerprint() -> str:
    """SHA-256 of tickwise's own source files."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parents[2]
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
