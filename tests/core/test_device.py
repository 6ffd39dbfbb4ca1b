"""What holds for threads, in processes of their own: how many there are is settled once."""

import subprocess
import sys

import pytest

DENORMALS = """
import torch
from tickwise.core.device import flushed_denormals
torch.set_num_threads(2)
tiny = torch.full((1 << 21,), 1e-40)
left = lambda: int(((tiny * 1.5).view(torch.int32) != 0).sum())  # as bits: a comparison would flush them itself
before = left()
with flushed_denormals():
    inside = left()
print(before, inside, left())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere PyTorch has another OpenMP")
def test_denormals_are_flushed_by_all_threads_also_those_that_ran_before():
    done = subprocess.run([sys.executable, "-c", DENORMALS], capture_output=True, text=True, check=True)
    assert [int(n) for n in done.stdout.split()] == [1 << 21, 0, 1 << 21]
