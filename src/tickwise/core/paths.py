"""Outputs that appear whole or not at all: temporary name, fsync, rename."""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tickwise.core.errors import OutputError

_LEFTOVER = re.compile(r"^(?P<target>.+)\.(?P<kind>tmp|old)-(?P<pid>\d+)-[0-9a-f]{6}$")


def output_error(problem: OSError, path: Path) -> OutputError:
    """The one line for a write that the operating system refused."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"{path}: no space left on the disk; free some or choose another folder")
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path}: not writable; choose another folder or change its permissions")
    return OutputError(f"{path}: cannot write: {problem.strerror or problem}")


def fsync_directory(path: Path) -> None:
    """Make renames inside ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, kind: str) -> Path:
    """A name of this process's own next to ``path``: ``tmp`` for what is being written, ``old`` for what is being
    replaced."""
    return path.with_name(f"{path.name}.{kind}-{os.getpid()}-{secrets.token_hex(3)}")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it replaces ``path``, on any error it is removed.

    Raises ``OutputError`` for a full disk or a folder that cannot be written.
    """
    temporary = _beside(path, "tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        fsync_directory(path.parent)
    except OSError as problem:
        raise output_error(problem, path) from problem
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_file_output(path: Path) -> None:
    """``OutputError`` now for a file that could not be written later; nothing is made."""
    there = path.absolute()
    if there.is_dir():
        raise OutputError(f"{path}: is a folder; give a file")
    while not there.exists():
        there = there.parent
    if there != path.absolute() and not there.is_dir():
        raise OutputError(f"{path}: {there.name} is a file; give another folder")
    if not os.access(there if there.is_dir() else there.parent, os.W_OK | os.X_OK):
        raise output_error(PermissionError(errno.EACCES, ""), path)


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 so that a reader sees the old file or the new one, never a part."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success it replaces ``path`` (with all its files synced), on any error
    it is removed and what stood at ``path`` is untouched.

    What a process killed in the middle leaves beside ``path``, ``remove_temporaries`` puts right.
    """
    temporary = _beside(path, "tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            fsync_directory(Path(folder))
        if path.exists():
            old = _beside(path, "old")
            os.rename(path, old)
            try:
                os.rename(temporary, path)
            except OSError:
                os.rename(old, path)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(temporary, path)
        fsync_directory(path.parent)
    except OSError as problem:
        raise output_error(problem, path) from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def remove_temporaries(folder: Path) -> None:
    """Put right what killed processes left behind in ``folder``: what was about to be replaced goes back to its
    place if that is empty, everything half-written is deleted. Files of running processes are left alone."""
    for leftover in folder.iterdir():
        match = _LEFTOVER.match(leftover.name)
        if match is None or _is_running(int(match["pid"])):
            continue
        target = folder / match["target"]
        if match["kind"] == "old" and not target.exists():
            with contextlib.suppress(FileNotFoundError):  # another process was putting it back
                os.rename(leftover, target)
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def cache_directory() -> Path:
    """``$TICKWISE_CACHE``, else ``$XDG_CACHE_HOME/tickwise``, else ``~/.cache/tickwise``."""
    explicit = os.environ.get("TICKWISE_CACHE")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tickwise"
