"""Worker processes that share nothing: a message goes in, a message comes out, in order.

``multiprocessing`` would import the caller's main module again in every child (and break callers without a
``__main__`` guard) and pickle every message. Here a child is ``python -m tickwise.data.workers`` and a message is
a JSON header followed by raw buffers.
"""

import collections
import contextlib
import importlib
import json
import os
import queue
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from tickwise.core import errors
from tickwise.core.errors import MemoryLimitError, UserError

# Values are JSON values, bytes or numpy arrays.
Message = dict[str, Any]
Job = Callable[[Message], Message]
_LENGTH = struct.Struct("<Q")


def write_message(stream: BinaryIO, message: Message) -> None:
    """Send one message."""
    plain: dict[str, Any] = {}
    buffers: list[tuple[str, str, int]] = []
    parts: list[Any] = []
    for key, value in message.items():
        if isinstance(value, bytes):
            buffers.append((key, "bytes", len(value)))
            parts.append(value)
        elif isinstance(value, np.ndarray):
            assert value.ndim == 1
            buffers.append((key, value.dtype.str, value.nbytes))
            parts.append(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
        else:
            plain[key] = value
    header = json.dumps({"plain": plain, "buffers": buffers}).encode()
    stream.write(_LENGTH.pack(len(header)))
    stream.write(header)
    for part in parts:
        stream.write(part)
    stream.flush()


def read_message(stream: BinaryIO) -> Message:
    """Receive one message; ``EOFError`` when the other side is gone."""
    (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
    header = json.loads(_read_exactly(stream, length))
    message: Message = header["plain"]
    for key, kind, n_bytes in header["buffers"]:
        data = _read_exactly(stream, n_bytes)
        message[key] = data if kind == "bytes" else np.frombuffer(data, dtype=np.dtype(kind))
    return message


def _read_exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise EOFError
    return data


class Workers:
    """``count`` processes that run ``job``, the name of a function ``module:factory``, where ``factory(settings)``
    gives the function from message to message. With ``count`` 0 it runs in this process."""

    def __init__(self, job: str, settings: Message, count: int) -> None:
        self._local: Job | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None
        if count == 0:
            self._local = _make_job(job, settings)
            return
        environment = dict(os.environ, TOKENIZERS_PARALLELISM="false")
        root = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = "1"
        for _ in range(count):
            # A session of its own keeps Ctrl-C away from the children; they end when their input does.
            process = subprocess.Popen(
                [sys.executable, "-m", "tickwise.data.workers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env=environment, start_new_session=True,
            )
            self._processes.append(process)
            write_message(cast(BinaryIO, process.stdin), {"job": job, "settings": json.dumps(settings)})
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(max_workers=count)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    cast(BinaryIO, stream).close()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def map(self, messages: Iterable[Message]) -> Iterator[Message]:
        """The answers in the order of ``messages``, of which only a few are taken ahead.

        Raises the ``UserError`` that a job raised.
        """
        if self._local is not None:
            yield from map(self._local, messages)
            return
        assert self._threads is not None
        window: collections.deque[Future[Message]] = collections.deque()
        for message in messages:
            window.append(self._threads.submit(self._ask, message))
            if len(window) > 2 * len(self._processes):
                yield window.popleft().result()
        while window:
            yield window.popleft().result()

    def _ask(self, message: Message) -> Message:
        process = self._idle.get()
        try:
            write_message(cast(BinaryIO, process.stdin), message)
            answer = read_message(cast(BinaryIO, process.stdout))
        except (OSError, EOFError, ValueError) as problem:
            if process.wait() == -9:
                raise MemoryLimitError(
                    "a worker process was killed, most likely for lack of memory; free some, or use --workers 0"
                ) from problem
            raise RuntimeError(f"a worker process ended with code {process.returncode}") from problem
        finally:
            self._idle.put(process)
        if "error" in answer:
            kind = getattr(errors, answer["error"], None)
            if isinstance(kind, type) and issubclass(kind, UserError):
                raise kind(answer["text"])
            raise RuntimeError(answer["text"])
        return answer


def _make_job(job: str, settings: Message) -> Job:
    module, factory = job.split(":")
    return cast(Job, getattr(importlib.import_module(module), factory)(settings))


def main() -> None:
    """The child's life: a job, then messages until the input ends."""
    inward, outward = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing but messages may go to the pipe
    start = read_message(inward)
    job = _make_job(start["job"], json.loads(start["settings"]))
    while True:
        try:
            message = read_message(inward)
        except EOFError:
            return
        try:
            answer = job(message)
        except UserError as problem:
            answer = {"error": type(problem).__name__, "text": str(problem)}
        except Exception:
            import traceback

            answer = {"error": "", "text": traceback.format_exc()}
        with contextlib.suppress(BrokenPipeError):
            write_message(outward, answer)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, EOFError):
        main()
