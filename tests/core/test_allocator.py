"""The allocator's settings, in processes of their own: they hold for a whole process."""

import os
import subprocess
import sys

import pytest

from tickwise.core import allocator

LARGE, SMALL = 16 << 20, 1 << 20
HOLES = f"""
import sys
from tickwise.core import allocator
print(allocator.tune() if "tune" in sys.argv else "")
import psutil, torch
process = psutil.Process()
torch.zeros({LARGE}, dtype=torch.uint8)  # glibc's own threshold grows with what is freed
torch.zeros(1)
before = process.memory_info().rss
kept = []
for _ in range(20):
    large = torch.ones({LARGE}, dtype=torch.uint8)
    kept.append(torch.ones({SMALL}, dtype=torch.uint8))
    del large
    kept.append(torch.ones({SMALL}, dtype=torch.uint8))
kept = kept[-1:]
print(process.memory_info().rss - before)
"""


def run(*arguments, **environment):
    done = subprocess.run([sys.executable, "-c", HOLES, *arguments], capture_output=True, text=True, check=True,
                          env={**os.environ, **environment})
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux") or not allocator._has_huge_pages(),
                    reason="needs glibc and huge pages")
def test_what_is_freed_goes_back_although_tensors_live_behind_it():
    tuned, held = run("tune")
    assert tuned == "True"
    assert int(held) < 3 * LARGE
    (_, held_otherwise) = ["", *run()]
    assert int(held_otherwise) > int(held)


def test_why_it_is_not_set_up_is_said():
    ask = "from tickwise.core import allocator; print(allocator.state()); allocator.tune(); print(allocator.state())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True,
                          env={**os.environ, "THP_MEM_ALLOC_ENABLE": "0"})
    before, after = done.stdout.splitlines()
    assert "only the command line sets it up" in before
    assert after == "THP_MEM_ALLOC_ENABLE is set to 0"


def test_a_user_who_has_switched_it_off_is_obeyed():
    assert run("tune", THP_MEM_ALLOC_ENABLE="0")[0] == "False"


def test_it_comes_before_pytorch_or_not_at_all():
    import torch  # noqa: F401

    assert not allocator.tune()
    assert not allocator.is_tuned()
    assert "PyTorch was imported before" in allocator.state()
    assert "THP_MEM_ALLOC_ENABLE" not in os.environ


def test_a_machine_without_huge_pages_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(allocator, "_HUGE_PAGES", tmp_path / "enabled")
    assert not allocator._has_huge_pages()
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    assert not allocator._has_huge_pages()
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    assert allocator._has_huge_pages()
