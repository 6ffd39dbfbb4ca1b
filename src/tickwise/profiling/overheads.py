"""What operations really cost on this machine: curves of seconds against size, measured per kind of operation.

Ceilings say what the machine can do at best; an operation of a small model reaches a fraction of that. Here each
kind of operation (matrix products, attention, pointwise, reductions, …) is timed on a coarse grid of sizes and of
footprints: the same tensor again and again, or tensors that were last used many megabytes ago. In between, ``predict``
interpolates on logarithmic axes.

Interference from other programs only ever makes a window slower: every point is measured in several rounds, spread over
the whole calibration, and the fastest is kept.
"""

import contextlib
import dataclasses
import datetime
import itertools
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tickwise.core.config import from_dict, read_json, to_dict
from tickwise.core.console import format_seconds, say
from tickwise.core.errors import ConfigError, OutputError
from tickwise.core.paths import cache_directory, write_text_atomic
from tickwise.profiling.ceilings import fingerprint

if TYPE_CHECKING:
    import torch

_Part = TypeVar("_Part")

_FORMAT_VERSION = 3
_WINDOW_S = 0.6e-3
_ROUNDS = 6
_SAID_EVERY_S = 5.0
HOT, WARM, COLD = 2**18, 2**23, 96 * 2**20
"""Bytes touched between two uses of a tensor: it stays in a core's own cache, in the shared one, in none."""

@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One measured point."""

    kind: str
    """``product`` (with a weight's transpose), ``product backward`` (both gradients), ``batched product`` …"""
    dtype: str
    """``fp32`` or ``bf16``."""
    footprint: int
    """Bytes touched between two uses of the same tensor."""
    size: tuple[int, ...]
    """What the kind is a function of: (batch, m, k, n) for products, (rows, queries, keys, width) for attention,
    (bytes of the largest tensor,) for the others."""
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overheads:
    """Everything that was calibrated, on one machine with one number of threads."""

    samples: tuple[Sample, ...]
    fresh_memory_s_per_byte: float
    """Of tensors so large that their memory goes back to the system as soon as they are gone."""
    threads: int
    seconds: float
    fingerprint: str
    date: str
    kind: str = "measured"


def clock() -> Callable[[], float]:
    """Seconds. With one thread its processor time, which other programs do not add to; else the wall clock."""
    import torch

    if torch.get_num_threads() == 1 and hasattr(time, "thread_time"):
        return time.thread_time
    return time.perf_counter


def overheads(refresh: bool = False) -> Overheads:
    """This machine's calibration from the cache, measured first (under a minute) when there is none."""
    mark = fingerprint()
    path = cache_path(mark)
    if not refresh:
        with contextlib.suppress(ConfigError):
            known = from_dict(Overheads, read_json(path, "the calibration"), where=str(path))
            if known.fingerprint == mark:
                return known
    measured = measure_overheads()
    with contextlib.suppress(OutputError, OSError):
        write_text_atomic(path, json.dumps(to_dict(measured)) + "\n")
    return measured


def cache_path(mark: str) -> Path:
    """Where the calibration of the machine with fingerprint ``mark`` is kept."""
    return cache_directory() / f"overheads-{_FORMAT_VERSION}-{mark}.json"


def is_cached() -> bool:
    """Whether ``overheads`` has a calibration to read."""
    return cache_path(fingerprint()).is_file()


def announced(what: str, rounds: int, parts: Sequence[_Part]) -> Iterator[_Part]:
    """Each of ``parts``, in so many rounds; every few seconds a line says how far that is and how long it still takes.

    Lines and no live bar, which would use the processor meanwhile.
    """
    start = last = time.monotonic()
    say(f"calibrating: {what}")
    for done, part in enumerate(part for _ in range(rounds) for part in parts):
        now, share = time.monotonic(), done / (rounds * len(parts))
        if done and now - last >= _SAID_EVERY_S:
            last = now
            say(f"calibrating: {what}, {100 * share:.0f} %, {format_seconds((now - start) * (1 / share - 1))} left")
        yield part


_Call = Callable[[], object]


@dataclasses.dataclass
class _Point:
    kind: str
    dtype: str
    footprint: int
    size: tuple[int, ...]
    call: _Call
    best: float = math.inf
    calls: int = 0


def measure_overheads(rounds: int = _ROUNDS) -> Overheads:
    """Measure now. Draws no number from torch's global generator."""
    import torch

    start = time.perf_counter()
    now = clock()
    with torch.inference_mode():
        points = [point for dtype in ("fp32", "bf16") for point in _points(dtype)]
        for point in announced(f"{len(points):,} single operations", rounds, points):
            _time(point, now)
    return Overheads(
        samples=tuple(Sample(kind=p.kind, dtype=p.dtype, footprint=p.footprint, size=p.size, seconds=p.best)
                      for p in points),
        fresh_memory_s_per_byte=_fresh_memory(),
        threads=torch.get_num_threads(),
        seconds=time.perf_counter() - start,
        fingerprint=fingerprint(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _time(point: _Point, now: Callable[[], float]) -> None:
    """One window of calls; the first window of a point also says how many calls a window takes."""
    call = point.call
    if point.calls == 0:
        call()
        begin = now()
        call()
        point.calls = max(1, min(300, round(_WINDOW_S / max(now() - begin, 1e-7))))
    begin = now()
    for _ in range(point.calls):
        call()
    point.best = min(point.best, (now() - begin) / point.calls)


class _Pool:
    """Tensors cut from one buffer of random numbers, at places that move on from call to call."""

    def __init__(self, dtype: "torch.dtype", n_bytes: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(0)
        numbers = torch.randn(n_bytes // dtype.itemsize, generator=generator) * 0.1
        self.buffer = numbers.to(dtype)
        self.place = 0

    def cut(self, *shape: int) -> "torch.Tensor":
        n = math.prod(shape)
        if self.place + n > self.buffer.numel():
            self.place = 0
        piece = self.buffer[self.place : self.place + n].view(shape)
        self.place += n + 16
        return piece

    def rotation(self, shape: Sequence[int], footprint: int, transposed: bool = False) -> "Iterator[torch.Tensor]":
        """So many tensors in turn that ``footprint`` bytes are touched before one comes again; ``transposed``: the
        second and third dimension the other way round."""
        n_bytes = math.prod(shape) * self.buffer.element_size()
        copies = max(1, min(1024, footprint // max(n_bytes, 1)))
        pieces = [self.cut(*shape) for _ in range(copies)]
        if transposed:
            pieces = [piece.transpose(1, 2) for piece in pieces]
        return itertools.cycle(pieces)


_PRODUCT_M = (1, 3, 10, 40, 160, 640, 2560)
_PRODUCT_KN = (96, 320, 1120)
_WIDE_N = 9_600
_MOST_FLOPS = 1.6e9


def _points(dtype_name: str) -> Iterator[_Point]:
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype_name]
    pool = _Pool(dtype, 2 * COLD)
    for kind, footprint, size, call in (*_products(pool), *_batched(pool), *_attention(pool), *_by_bytes(pool, dtype)):
        yield _Point(kind, dtype_name, footprint, size, call)


_Described = tuple[str, int, tuple[int, ...], _Call]


def _products(pool: _Pool) -> Iterator[_Described]:
    import torch

    def forward(m: int, k: int, n: int, footprint: int) -> _Call:
        a, weights = pool.cut(m, k), pool.rotation((n, k), footprint)
        return lambda: torch.mm(a, next(weights).t())

    def input_gradient(m: int, k: int, n: int) -> _Call:
        a, weights = pool.cut(m, k), pool.rotation((k, n), COLD)
        return lambda: torch.mm(a, next(weights))

    def weight_gradient(m: int, k: int, n: int) -> _Call:
        a, inputs = pool.cut(k, m).t(), pool.rotation((k, n), COLD)
        return lambda: torch.mm(a, next(inputs))

    for k in _PRODUCT_KN:
        for n in (*_PRODUCT_KN, _WIDE_N):
            for m in _PRODUCT_M:
                if 2 * m * k * n > _MOST_FLOPS or (n == _WIDE_N and m > 40):
                    continue
                for footprint in (HOT, WARM, COLD) if m <= 40 else (COLD,):
                    yield "product", footprint, (1, m, k, n), forward(m, k, n, footprint)
                if m >= 160:
                    yield "product backward", COLD, (1, m, k, n), input_gradient(m, k, n)
                    # The tokens are the inner side of a weight's gradient.
                    yield "product backward", COLD, (1, k, m, n), weight_gradient(k, m, n)


def _batched(pool: _Pool) -> Iterator[_Described]:
    import torch

    def call(batch: int, m: int, k: int, n: int) -> _Call:
        if m == n and m != k:  # scores and Gram matrices: the second operand is stored transposed
            first, second = pool.rotation((batch, m, k), COLD), pool.rotation((batch, n, k), COLD)
            return lambda: torch.bmm(next(first), next(second).transpose(1, 2))
        first, second = pool.rotation((batch, m, k), COLD), pool.rotation((batch, k, n), COLD)
        if m == k:  # as in attention and orthogonalisation, with a term to add
            added = pool.cut(batch, m, n)
            return lambda: torch.baddbmm(added, next(first), next(second), alpha=0.5)
        return lambda: torch.bmm(next(first), next(second))

    for batch in (3, 20, 100):
        for m in (24, 80, 224, 480):
            for k in (24, 80, 224, 480):
                for n in (24, 80, 224, 480, 1120):
                    if 2 * batch * m * k * n <= _MOST_FLOPS and len({m, k, n}) <= 2:
                        yield "batched product", COLD, (batch, m, k, n), call(batch, m, k, n)
    for batch, rows, columns in ((2, 320, 832), (8, 320, 832), (2, 640, 1600)):
        for m, k, n in ((rows, columns, rows), (rows, rows, rows), (rows, rows, columns)):
            yield "batched product", COLD, (batch, m, k, n), call(batch, m, k, n)


def _attention(pool: _Pool) -> Iterator[_Described]:
    import torch

    def call(rows: int, queries: int, keys: int, width: int) -> _Call:
        q = pool.cut(1, rows, queries, width)
        kv = (pool.rotation((1, rows, keys, width), COLD), pool.rotation((1, rows, keys, width), COLD))
        causal = queries > 1
        attend = torch.nn.functional.scaled_dot_product_attention
        return lambda: attend(q, next(kv[0]), next(kv[1]), is_causal=causal)

    for rows in (2, 10, 72):
        for width in (32, 64):
            for keys in (20, 80, 320, 900):
                yield "attention", COLD, (rows, 1, keys, width), call(rows, 1, keys, width)
                if 4 * rows * keys * keys * width <= _MOST_FLOPS:
                    yield "attention", COLD, (rows, keys, keys, width), call(rows, keys, keys, width)


_SIZES = (48, 1_536, 12_288, 98_304, 786_432, 4_718_592)
_WIDTH = 48


def _by_bytes(pool: _Pool, dtype: "torch.dtype") -> Iterator[_Described]:
    import torch

    ids = torch.randint(0, 64, (_SIZES[-1] // _WIDTH,), generator=torch.Generator().manual_seed(1))
    for numel in _SIZES:
        n_rows = numel // _WIDTH
        size = (numel * dtype.itemsize,)
        for footprint in (HOT, COLD):
            calls = _passes(pool, dtype, n_rows, ids[:n_rows], footprint)
            for kind, call in calls.items():
                if kind != "gather" or n_rows >= 64:
                    yield kind, footprint, size, call
    square = pool.cut(8, 8)
    yield "view", HOT, (1,), lambda: square.transpose(0, 1)


def _passes(pool: _Pool, dtype: "torch.dtype", n_rows: int, ids: "torch.Tensor", footprint: int) -> dict[str, _Call]:
    """Operations that pass over ``n_rows`` rows of numbers, by kind."""
    import torch

    shape = (n_rows, _WIDTH)
    # Of two operands, one was just written and the other long ago; a cold program keeps what it writes.
    x, y = pool.cut(*shape), pool.rotation(shape, footprint)
    own, table = torch.ones(shape, dtype=dtype), pool.cut(64, _WIDTH)
    kept = _Kept(footprint if footprint > HOT else 0)
    # Heads of attention: tokens outside, heads inside, seen the other way round.
    n_heads = min(6, n_rows)
    n_tokens = n_rows // n_heads
    heads = pool.rotation((1, n_tokens, n_heads, _WIDTH), footprint, transposed=True)
    angles = pool.cut(n_tokens, _WIDTH)
    wide = pool.rotation((max(1, n_rows // 8), 8 * _WIDTH), footprint) if n_rows >= 8 else y

    norm = torch.linalg.vector_norm
    return {
        "pointwise": lambda: kept.add(x * next(y)),
        "strided": lambda: kept.add(next(heads) * angles),
        "curved": lambda: kept.add(torch.nn.functional.silu(next(y))),
        "copy": lambda: kept.add(next(y).clone()),
        "in place": lambda: own.lerp_(next(y), 0.0),
        "reduction": lambda: next(y).sum(-1),
        "norm": lambda: norm(next(wide), dim=-1, dtype=torch.float32),
        "strided norm": lambda: norm(next(heads), dim=-1, dtype=torch.float32),
        "softmax": lambda: kept.add(torch.softmax(next(y), -1)),
        "gather": lambda: kept.add(torch.nn.functional.embedding(ids, table)),
    }


def _fresh_memory() -> float:
    """Seconds per byte that touching new memory takes, beyond writing it: the system hands it out page by page."""
    import torch

    n = 12 * 2**20
    now = clock()
    old = torch.zeros(n)
    fresh, again = math.inf, math.inf
    for _ in range(_ROUNDS):
        start = now()
        torch.zeros(n)
        middle = now()
        old.zero_()
        fresh, again = min(fresh, middle - start), min(again, now() - middle)
    return max(0.0, fresh - again) / old.nbytes


class _Kept:
    """The last ``n_bytes`` of outputs stay alive, as activations do, so that new ones get memory used long ago."""

    def __init__(self, n_bytes: int) -> None:
        self.limit, self.held = n_bytes, 0
        self.outputs: deque[Any] = deque()

    def add(self, output: Any) -> None:
        if self.limit:
            self.outputs.append(output)
            self.held += output.nbytes
            while self.held > self.limit:
                self.held -= self.outputs.popleft().nbytes


def by_kind(samples: Sequence[Sample]) -> Mapping[tuple[str, str, int], list[Sample]]:
    """Samples by (kind, dtype, footprint)."""
    found: dict[tuple[str, str, int], list[Sample]] = {}
    for sample in samples:
        found.setdefault((sample.kind, sample.dtype, sample.footprint), []).append(sample)
    return found
