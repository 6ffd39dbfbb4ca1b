"""What layers keep between calls is made of real numbers, whatever ran them."""

import torch

from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.dry_run import DryRun

CONFIG = DecoderConfig(vocab_size=11, context_length=37, width=16, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=8,
                       hidden=16)


def test_a_run_without_data_leaves_nothing_that_a_real_one_would_use():
    module = Decoder(CONFIG).initialise(1)
    ids = torch.zeros(1, 37, dtype=torch.long)
    with DryRun():
        module(ids)
        Decoder(CONFIG)(torch.zeros(1, 37, dtype=torch.long))
    assert torch.isfinite(module(ids)).all()
