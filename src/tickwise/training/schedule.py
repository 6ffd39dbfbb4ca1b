"""The learning rate as a share of its peak."""

import math

from tickwise.training.config import ScheduleOptions


def lr_scale(options: ScheduleOptions, progress: float) -> float:
    """``progress`` is the share of the run that is done, in [0, 1]; returns a factor in [floor, 1]."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < options.warmup:
        # Half a thousandth of the run ahead, so that the very first update is not of size zero.
        return (progress + 0.0005) / (options.warmup + 0.0005)
    if options.name == "constant":
        return 1.0
    if options.name == "cosine":
        share = (progress - options.warmup) / max(1.0 - options.warmup, 1e-9)
        return options.floor + (1.0 - options.floor) * 0.5 * (1.0 + math.cos(math.pi * share))
    left = (1.0 - progress) / max(options.decay, 1e-9)
    return options.floor + (1.0 - options.floor) * min(1.0, left)
