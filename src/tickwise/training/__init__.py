"""From prepared data and a config to a run directory: the visible loop, optimizers, schedules, checkpoints."""
