"""A tiny decoder with weights large enough that its next token depends on all earlier ones."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tickwise.engine.language_model import LanguageModel
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import char_tokenizer

CHARACTERS = "abcdefghijklmnopqrstuvwxyz .,\nABCDE"
TINY = {
    "vocab_size": 36, "context_length": 32, "width": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
    "head_dim": 8, "hidden": 48,
}


def build_tiny_decoder(seed: int = 0, **changes: Any) -> Decoder:
    module = Decoder(DecoderConfig(**{**TINY, **changes}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" not in name and "value_mix" not in name:
                parameter.normal_(0, 1.5 * parameter.shape[-1] ** -0.5, generator=generator)
        if module.config.positions == "learned":
            module.embed_positions.weight.normal_(0, 1, generator=generator)
    return module.requires_grad_(False).eval()


@pytest.fixture
def tiny_decoder() -> Callable[..., Decoder]:
    return build_tiny_decoder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return char_tokenizer(Counter(CHARACTERS), vocab_size=None, end_of_text=True, unknown=False)


@pytest.fixture
def model(tokenizer: Tokenizer) -> LanguageModel:
    return LanguageModel(build_tiny_decoder(vocab_size=tokenizer.vocab_size), tokenizer)
