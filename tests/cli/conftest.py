"""One tiny model for the tests of all verbs. They only read it; a test that writes into it makes a copy."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from tickwise.interop.directory import save_model
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.tokenizers.train import char_tokenizer

CHARACTERS = "abcdefghij \n.é中"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a model of 16 tokens (15 characters and the end of a text), 2 layers of width 16, and a
    context of 32; its weights are large enough that the next token depends on the ones before."""
    tokenizer = char_tokenizer(Counter(CHARACTERS), vocab_size=None, end_of_text=True, unknown=False)
    module = Decoder(DecoderConfig(
        vocab_size=tokenizer.vocab_size, context_length=32, width=16, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=8,
        hidden=32,
    ))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" not in name:
                parameter.normal_(0, 0.3, generator=generator)
    run = tmp_path_factory.mktemp("run")
    save_model(run / "model", module, tokenizer)
    return run


@pytest.fixture(scope="session")
def tiny_model(tiny_run: Path) -> Path:
    """The directory of the model."""
    return tiny_run / "model"
