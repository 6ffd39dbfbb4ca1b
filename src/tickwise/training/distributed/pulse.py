"""Signs of life: every rank writes one into the store where the ranks met, and reads the others' when it must know.

A thread of its own does both, because a process that is stopped leaves whoever asks its store waiting without end; the
main thread only looks at what was read.
"""

import contextlib
import itertools
import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

_LONGEST_PAUSE_S = 2.0
_SILENT_AFTER = 2.5
"""Pauses between two signs of life, after which a process is taken for stopped."""
_WATCHED_EVERY_S = 0.05
_GROUPS = itertools.count()
"""A process may join several groups after each other; all ranks count alike."""


@dataclass(frozen=True)
class Sign:
    """What a rank says of itself."""

    beat: int = 0
    collectives: int = 0
    """In how many it took part, the one that it waits in included."""
    written: int = 0
    """How often the first rank has finished writing files that the others wait for."""
    gave_up: bool = False
    """A collective took too long for it."""


class Pulse:
    """This rank's signs, and the others' while somebody waits for them."""

    def __init__(self, rank: int, n_ranks: int, timeout_s: float) -> None:
        self.pause_s = min(_LONGEST_PAUSE_S, timeout_s / 5)
        self.written = 0
        self.gave_up = False
        self.lost = False
        """The store is gone, and with it the process that had it."""
        self._rank, self._n_ranks = rank, n_ranks
        # A connection of its own: the others' operations wait in theirs.
        store: Any = dist.distributed_c10d._get_default_store()
        self._store = store.clone()
        self._store.set_timeout(timedelta(seconds=max(60.0, timeout_s)))
        self._name = f"pulse-{next(_GROUPS)}"
        self._beat = 0
        self._signs: dict[int, Sign] = {}
        self._changed: dict[int, float] = {}
        self._read = 0.0
        self._watched: Sequence[int] = ()
        self._stopped = False
        self._wake = threading.Event()
        self._give_sign()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        self._thread.join(timeout=self.pause_s)

    def say(self) -> None:
        """Give a sign at once."""
        self._wake.set()

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._wake.clear()
                self._give_sign()
                if self._watched:
                    self._look(self._watched)
                self._wake.wait(_WATCHED_EVERY_S if self._watched else self.pause_s)
        except RuntimeError:
            self.lost = True

    def _give_sign(self) -> None:
        self._beat += 1
        own = Sign(self._beat, last_collective()[0], self.written, self.gave_up)
        self._store.set(f"{self._name}/{self._rank}", json.dumps(asdict(own)))

    def _look(self, ranks: Sequence[int]) -> None:
        for rank, said in zip(ranks, self._store.multi_get([f"{self._name}/{rank}" for rank in ranks]), strict=True):
            sign = Sign(**json.loads(said))
            if sign != self._signs.get(rank):
                self._signs[rank], self._changed[rank] = sign, time.monotonic()
        self._read = time.monotonic()

    @contextlib.contextmanager
    def _watching(self, ranks: Sequence[int]) -> Iterator[None]:
        """Inside, the signs of these ranks are read; each of them has given one before."""
        self._signs.clear()
        self._watched = ranks
        self._wake.set()
        try:
            yield
        finally:
            self._watched = ()

    def wait_for_writing(self, number: int, silence_s: float, longest_s: float) -> bool:
        """Until the first rank has written that often. False when nothing is heard of it for so long, or it goes on
        for that long."""
        started = time.monotonic()
        with self._watching([0]):
            while self._signs.get(0, Sign()).written < number:
                now = time.monotonic()
                silent = now - max(started, self._changed.get(0, 0.0)) > silence_s
                if self.lost or silent or now - started > longest_s:
                    return False
                time.sleep(_WATCHED_EVERY_S)
        return True

    def roll_call(self) -> "RollCall":
        """Who lives and how far everyone is, by signs of the last seconds."""
        started = time.monotonic()
        self.gave_up = True
        with self._watching(range(self._n_ranks)):
            time.sleep(_SILENT_AFTER * self.pause_s)
            # Whoever waits gives signs quickly, the others once a pause.
            latest = time.monotonic() - (_SILENT_AFTER - 1) * self.pause_s
            if self.lost:
                return RollCall([0], [], False)  # it has ended, and whoever started it tells why
            if self._read < started:
                return RollCall([0], [], True)  # its process is where the store is
            silent = [rank for rank in range(self._n_ranks) if self._changed.get(rank, 0.0) < latest]
            signs = [self._signs.get(rank, Sign()) for rank in range(self._n_ranks)]
        furthest = max(sign.collectives for sign in signs)
        behind = [rank for rank, sign in enumerate(signs) if sign.collectives < furthest and rank not in silent]
        speakers = [rank for rank, sign in enumerate(signs) if sign.gave_up and rank not in silent]
        return RollCall(silent, behind, self._rank == min([*speakers, self._rank]))


@dataclass(frozen=True)
class RollCall:
    """Ranks that give no sign of life, those that live but have not come to the collective in which the others wait,
    and whether this rank is the one to tell."""

    silent: list[int]
    behind: list[int]
    speaks: bool


def last_collective() -> tuple[int, str]:
    """The newest collective that this rank took part in, as the flight recorder has it: how many there were, and its
    name and sizes."""
    recorder: Any = torch._C._distributed_c10d
    record = json.loads(recorder._dump_fr_trace_json(includeCollectives=True, onlyActive=False))
    entries = record.get("entries") or []
    if not entries:
        return 0, "a collective"
    newest = max(entries, key=lambda entry: int(entry["time_created_ns"]))
    sizes = "+".join("×".join(map(str, size)) or "1" for size in newest.get("input_sizes") or [])
    of = f" of {sizes} numbers" if sizes else ""
    number = int(newest["collective_seq_id"])
    return number, f"{newest['profiling_name']} number {number}{of}"


def is_timeout(problem: RuntimeError) -> bool:
    return re.search(r"[Tt]imed? ?out", str(problem)) is not None
