"""What a model costs on this machine: ceilings, FLOP counts, stage times. Reads any ``torch.nn.Module``."""
