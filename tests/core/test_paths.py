"""Outputs appear whole or not at all."""

import os
import subprocess

import pytest

from tickwise.core.errors import OutputError
from tickwise.core.paths import atomic_directory, atomic_file, remove_temporaries, write_text_atomic


class CrashError(Exception):
    pass


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text_atomic(path, "old")
    with pytest.raises(CrashError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise CrashError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_directory_leaves_the_old_one(tmp_path):
    with atomic_directory(tmp_path / "d") as temporary:
        (temporary / "x").write_text("1")
    with pytest.raises(CrashError), atomic_directory(tmp_path / "d") as temporary:
        (temporary / "x").write_text("2")
        raise CrashError
    assert (tmp_path / "d" / "x").read_text() == "1"
    assert os.listdir(tmp_path) == ["d"]


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    for names in (["a", "b"], ["c"]):
        with atomic_directory(tmp_path / "d") as temporary:
            for name in names:
                (temporary / name).write_text(name)
    assert os.listdir(tmp_path / "d") == ["c"]
    assert os.listdir(tmp_path) == ["d"]


def test_refusals_of_the_system_are_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_text_atomic(tmp_path / "file" / "below", "x")
    with pytest.raises(OutputError), atomic_directory(tmp_path / "file" / "below"):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_says_so(tmp_path):
    with pytest.raises(OutputError, match="no space left"), atomic_file(tmp_path / "x") as temporary:
        os.symlink("/dev/full", temporary)
        with temporary.open("w") as file:
            file.write("x" * 100_000)


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_leftovers_of_killed_processes_are_put_right(tmp_path):
    dead, alive = dead_pid(), os.getpid()
    (tmp_path / f"step-5.tmp-{dead}-abcdef").mkdir()
    (tmp_path / f"x.json.tmp-{dead}-012345").write_text("half")
    (tmp_path / f"model.old-{dead}-abcdef").mkdir()  # killed between the two renames: model is missing
    (tmp_path / f"model.tmp-{dead}-abcdef").mkdir()
    (tmp_path / f"step-5.old-{dead}-abcdef").mkdir()  # killed after them: step-5 is there
    (tmp_path / "step-5").mkdir()
    (tmp_path / f"busy.tmp-{alive}-abcdef").mkdir()
    (tmp_path / "mine.tmp-1").write_text("a user's own file")
    remove_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(["step-5", "model", f"busy.tmp-{alive}-abcdef", "mine.tmp-1"])


def test_a_replacement_that_fails_half_way_puts_the_old_directory_back(tmp_path, monkeypatch):
    with atomic_directory(tmp_path / "d") as temporary:
        (temporary / "x").write_text("1")
    rename, calls = os.rename, []

    def failing(source, target):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OutputError), atomic_directory(tmp_path / "d") as temporary:
        (temporary / "x").write_text("2")
    assert os.listdir(tmp_path) == ["d"]
    assert (tmp_path / "d" / "x").read_text() == "1"
