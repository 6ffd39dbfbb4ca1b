"""Bytes that code would hold, against what is known of the code."""

import torch
import torch.nn.functional as F
from torch import nn

from tickwise.profiling.dry_run import DryRun, convert

MB = 1 << 20


def numbers(megabytes):
    return torch.zeros(megabytes * MB // 4)


def test_what_is_gone_no_longer_counts_and_the_peak_stays():
    with DryRun() as dry:
        x = numbers(8)
        y = x + 1
        assert (dry.now, dry.peak) == (16 * MB, 16 * MB)
        del y
        assert (dry.now, dry.peak) == (8 * MB, 16 * MB)
        dry.reset_peak()
        assert dry.peak == 8 * MB


def test_views_and_updates_in_place_cost_nothing():
    with DryRun() as dry:
        x = numbers(8).view(-1, 64)
        x.transpose(0, 1)[3:5].add_(1)
        assert dry.peak == 8 * MB
        z = x[:1]
        del x
        assert (dry.now, z.shape) == (8 * MB, (1, 64))  # a view keeps all of its memory


def test_autograd_keeps_what_the_backward_pass_needs():
    with DryRun() as dry:
        weight = nn.Parameter(numbers(4))
        kept = (weight * weight).sum()  # saves the weight itself
        assert dry.now < 4 * MB + 1024
        exponential = weight.exp().sum()  # saves its result
        assert dry.now > 8 * MB - 1
        (kept + exponential).backward()
        del kept, exponential
        assert weight.grad is not None
        assert abs(dry.now - 8 * MB) < 4096  # the weight and its gradient


def test_a_module_converted_in_place_has_half_the_bytes():
    with DryRun() as dry:
        module = nn.Linear(1024, 1024, bias=False)
        assert dry.now == 4 * MB
        convert(module, torch.bfloat16)
        assert (dry.now, module.weight.dtype) == (2 * MB, torch.bfloat16)
        out = module(torch.zeros(3, 1024, dtype=torch.bfloat16))
        assert (out.shape, out.dtype) == ((3, 1024), torch.bfloat16)


def test_terabytes_can_be_counted():
    with DryRun() as dry, torch.no_grad():
        x = torch.empty(1 << 20, 1 << 20)
        F.softmax(x, -1)
        assert dry.peak == 2 * (1 << 42)
