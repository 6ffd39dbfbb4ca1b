"""The ranks of a run: joining them, what they agree on, and telling which one hangs.

Data: every rank draws the same global batches from the same cursor and computes its own micro-batches of each, so that
order and place in the data do not depend on the number of ranks. What is random in a micro-batch (dropout) follows from
the seed, the step and the micro-batch's number, as it does in one process with as many micro-batches.
"""

import atexit
import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from tickwise.core import console
from tickwise.core.config import differing_keys, to_dict
from tickwise.core.errors import ConfigError, RankError
from tickwise.training.config import LoopConfig
from tickwise.training.distributed.pulse import Pulse, is_timeout, last_collective
from tickwise.training.objective import Batch, Objective
from tickwise.training.parallel import Alone, MicroBatch, Plain, divisors, seed_micro_batch

if TYPE_CHECKING:
    from tickwise.training.loop import Training

_TOLD_SETTINGS = 3
_SHOWN_CHARACTERS = 60
_MORE_FOR_FILES = 10
"""Timeouts that the first rank may take to write files, as long as its process lives."""
_COMMUNICATION = re.compile(r"Timed out waiting|[Cc]onnection (closed|reset|refused)|gloo|NCCL|Broken pipe")


def is_one_of_several() -> bool:
    """torchrun, Ray or another launcher started this process as a rank among others."""
    if dist.is_initialized():
        return dist.get_world_size() > 1
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def n_ranks() -> int:
    """Of all machines together."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def ranks_here() -> int:
    """On this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_one_of_several() else 1


def is_first_here() -> bool:
    """This process alone, or the rank of this machine that checks what all of them need."""
    return not is_one_of_several() or os.environ.get("LOCAL_RANK", "0") == "0"


def is_leader() -> bool:
    """This process alone, or the rank that shows and writes."""
    if dist.is_initialized():
        return dist.get_rank() == 0
    return not is_one_of_several() or os.environ.get("RANK", "0") == "0"


def launcher() -> str | None:
    """The process that started this rank and starts it again: another one for every launch, unlike the launch's name.
    ``None`` where nobody starts ranks again in the same launch."""
    if not (is_one_of_several() and "TORCHELASTIC_RUN_ID" in os.environ):
        return None
    import psutil

    agent = psutil.Process(os.getppid())
    return f"process {agent.pid} on {socket.gethostname()} since {agent.create_time():.2f}"


def is_restart(out: Path, launchers: Iterable[str]) -> bool:
    """Whether the run in ``out`` was begun, or gone on with, by one of these."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        wrote = json.loads((out / "run.json").read_text(encoding="utf-8")).get("launchers", [])
        return not set(launchers).isdisjoint(wrote)
    return False


def own_device(device: torch.device) -> torch.device:
    """The accelerator of this rank, among those of its machine."""
    if device.type == "cuda" and is_one_of_several():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def check_split(config: LoopConfig, n_ranks: int, flag: str = "--batch-size") -> None:
    """``ConfigError`` for a batch, the one that ``flag`` gives, that cannot be shared out evenly."""
    n_parts = n_ranks * config.accumulate
    if config.batch_size is not None and config.batch_size % n_parts:
        micro = f" × {config.accumulate} micro-batches" if config.accumulate > 1 else ""
        raise ConfigError(f"{flag}: {n_ranks} ranks{micro} do not divide the batch of {config.batch_size}; give "
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
        seed_micro_batch(training, part)
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
        dist.all_reduce(total, group=self.joined.group)
        return total.item() / self.n_ranks

    def agree(self, value: Plain) -> Plain:
        said = torch.tensor(float(value), dtype=torch.float64)
        dist.broadcast(said, 0, group=self.joined.group)
        return type(value)(said.item())

    def tell(self, text: str) -> str:
        return self.joined.texts(text)[0]

    def after_restart(self, config: LoopConfig) -> LoopConfig:
        if not self.agree(is_restart(config.out, self.joined.launchers)):
            return config
        return replace(config, resume="auto", overwrite=False)

    @contextlib.contextmanager
    def leader_writes(self) -> Iterator[None]:
        yield
        self.joined.wait_for_leader()

    @contextlib.contextmanager
    def faults_named(self, training: "Training") -> Iterator[None]:
        try:
            yield
        except RuntimeError as problem:
            if not (isinstance(problem, dist.DistError) or _COMMUNICATION.search(str(problem))):
                raise
            raise self.joined.fault(problem, training) from None

    def leave(self) -> None:
        dist.barrier(group=self.joined.group)
        self.joined.pulse.stop()
        if not self.joined.found_here:
            dist.destroy_process_group()


_met: dict[str, tuple[dist.Store, int, int, Iterator[int]]] = {}
"""By host and port. Stores are kept as long as the process lives: one that is taken down between two trainings would be
found half gone by whoever is first in the second."""


def _meet(limit: timedelta) -> tuple[dist.Store, int, int]:
    """A store of this training's own, this rank, and how many there are: what ranks wrote there in the training before
    is not taken for this one's."""
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    if where not in _met:
        _met[where] = *next(iter(dist.rendezvous("env://", timeout=limit))), itertools.count()
    store, rank, n_ranks, numbers = _met[where]
    store.set_timeout(limit)
    return dist.PrefixStore(f"training {next(numbers)}", store), rank, n_ranks


class Joined:
    """A process group, and what its ranks say to each other besides tensors."""

    def __init__(self, timeout_s: float, device: torch.device) -> None:
        os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "64")  # the flight recorder: the last collectives
        self.found_here = dist.is_initialized()
        """Someone else (Ray) made the group, and will end it."""
        self.timeout_s = timeout_s
        if device.type == "cuda":
            torch.cuda.set_device(device)
        limit = timedelta(seconds=timeout_s)
        try:
            if not self.found_here:
                store, rank, n_ranks = _meet(limit)
                dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=limit,
                                        store=store, rank=rank, world_size=n_ranks)
            self.rank, self.n_ranks = dist.get_rank(), dist.get_world_size()
            # Figures and texts are on the CPU, which a group that someone else made for GPUs may not serve.
            self.group = None if device.type == "cpu" else dist.new_group(backend="gloo", timeout=limit)
            self.pulse = Pulse(self.rank, self.n_ranks, timeout_s)
            self.hosts = self.texts(f"process {os.getpid()} on {socket.gethostname()}")
            self.launchers = sorted({name for name in self.texts(launcher() or "") if name})
        except RuntimeError as problem:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            why = str(problem).splitlines()[0]
            if "EADDRINUSE" in why:
                raise ConfigError(f"the ranks cannot meet at {where}: the port is in use; give another one") from None
            raise RankError(f"the ranks do not find each other at {where}: {why}") from None
        self._n_written = 0
        if self.rank != 0:
            console.set_verbosity(console.QUIET)

    def texts(self, own: str) -> list[str]:
        """What every rank says, in bytes: what torch has for objects would unpickle whatever it gets."""
        data = torch.frombuffer(bytearray(own.encode() or b" "), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.long) for _ in range(self.n_ranks)]
        dist.all_gather(sizes, torch.tensor([len(data)]), group=self.group)
        longest = max(int(size) for size in sizes)
        all_bytes = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.n_ranks)]
        dist.all_gather(all_bytes, torch.nn.functional.pad(data, (0, longest - len(data))), group=self.group)
        return [bytes(piece[: int(size)].tolist()).decode().strip()
                for piece, size in zip(all_bytes, sizes, strict=True)]

    def wait_for_leader(self) -> None:
        """Until the first rank, too, has come here: it may have written files meanwhile, which takes long on a slow
        disk, and a collective would give up on it. ``RankError`` when its process gives no sign of life."""
        self._n_written += 1
        if self.rank == 0:
            self.pulse.written = self._n_written
            self.pulse.say()
        elif not self.pulse.wait_for_writing(self._n_written, self.timeout_s, _MORE_FOR_FILES * self.timeout_s):
            if self.pulse.lost:
                raise SystemExit(1)
            time.sleep(min(self.rank - 1, 5))  # one line is enough
            raise RankError(f"{self.name(0)} hung: no answer for {self.timeout_s:g} s while the others waited for the "
                            "files that it writes")

    def name(self, rank: int) -> str:
        return f"rank {rank} ({self.hosts[rank]})"

    def check_same(self, training: "Training") -> None:
        """``ConfigError`` that names the first rank whose code, data or settings are not those of rank 0."""
        from tickwise import __version__

        settings = to_dict(training.config) | {"dtype": training.dtype_name}
        own = {"dtype": training.config.dtype,
               "code": f"{code_fingerprint()} of tickwise {__version__} with torch {torch.__version__}",
               "data": training.data_fingerprint, "settings": json.dumps(settings, sort_keys=True)}
        everyone = [json.loads(text) for text in self.texts(json.dumps(own))]
        for rank, other in enumerate(everyone):
            for what, mend in (("code", "install the same version on every node"), ("data", "give all ranks the same"),
                               ("settings", "give all nodes the same flags")):
                if other[what] != everyone[0][what]:
                    tell = _differing_settings if what == "settings" else _differing
                    if what == "settings" and _auto_differs(other, everyone[0]):
                        mend += ", and a --dtype that all of them have, since auto is not the same on all"
                    raise ConfigError(f"{self.name(rank)} has other {what} than {self.name(0)} "
                                      f"({tell(other[what], everyone[0][what])}): {mend}")

    def fault(self, problem: RuntimeError, training: "Training") -> BaseException:
        """What to end with when a collective failed: one line, of one rank, that names those who hang."""
        end = self._fault(problem, training)
        if launcher() is not None:
            # Gloo still waits for the ranks that are gone; taken apart in the middle of that, this one would abort.
            atexit.register(_end_at_once, 2 if isinstance(end, RankError) else 1)
        return end

    def _fault(self, problem: RuntimeError, training: "Training") -> BaseException:
        step = f"step {training.counters.step + 1}"
        if not is_timeout(problem):
            # The other end is gone, and whoever started it tells why; or it has waited too long for a third one, and
            # is about to tell.
            time.sleep(4 * self.pulse.pause_s)
            console.note(f"rank {self.rank}: another rank is gone")
            return SystemExit(1)
        _, collective = last_collective()
        found = self.pulse.roll_call()
        if not found.speaks:
            time.sleep(4 * self.pulse.pause_s)
            return SystemExit(1)
        if found.silent:
            if self.rank > 1 and found.silent == [0]:  # nothing tells who speaks
                time.sleep(min(self.rank - 1, 5))
            return RankError(f"{step}: {self._names(found.silent)} hung: no answer for {self.timeout_s:g} s while the "
                             f"others waited in {collective}")
        if found.behind:
            return RankError(f"{step}: {self._names(found.behind)} let the others wait for {self.timeout_s:g} s in "
                             f"{collective}, but lives: slow, not hung; raise --parallel.timeout-seconds")
        return RankError(f"{step}: {collective} took more than {self.timeout_s:g} s, though all ranks live and take "
                         "part: a slow network; raise --parallel.timeout-seconds")

    def _names(self, ranks: list[int]) -> str:
        return " and ".join(self.name(rank) for rank in ranks)


def _end_at_once(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _differing_settings(one: str, other: str) -> str:
    """Up to three settings that differ, each with both values."""
    def value(part: Any, key: str) -> str:
        for name in key.split("."):
            part = part.get(name) if isinstance(part, Mapping) else None
        return json.dumps(part, ensure_ascii=False)

    first, second = json.loads(one), json.loads(other)
    keys = differing_keys(first, second)
    more = f" and {len(keys) - _TOLD_SETTINGS} more" if len(keys) > _TOLD_SETTINGS else ""
    return ", ".join(f"{key}: {_differing_parts(value(first, key), value(second, key))}"
                     for key in keys[:_TOLD_SETTINGS]) + more


def _differing_parts(one: str, other: str) -> str:
    """Both from the start or, where that is too long, from shortly before they differ."""
    same = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    start = 0 if same < _SHOWN_CHARACTERS - 10 else same - 10

    def shown(text: str) -> str:
        part = text[start:start + _SHOWN_CHARACTERS]
        return ("…" if start else "") + part + ("…" if len(text) > start + _SHOWN_CHARACTERS else "")

    return f"{shown(one)} and {shown(other)}"


def _auto_differs(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether a number format that ``--dtype auto`` chose is not that of the other rank."""
    chosen = [json.loads(said["settings"])["dtype"] for said in (one, other)]
    return chosen[0] != chosen[1] and "auto" in (one["dtype"], other["dtype"])


def _differing(one: str, other: str) -> str:
    """The two, as short as tells them apart."""
    return f"{one[:12]} and {other[:12]}" if one[:12] != other[:12] else f"{one} and {other}"


@functools.cache
def code_fingerprint() -> str:
    """SHA-256 of tickwise's own source files."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parents[2]
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
