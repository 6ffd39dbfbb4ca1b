"""A tiny random decoder with a tokenizer that knows every byte."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from tickwise.engine.language_model import LanguageModel
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.tokenizers.train import char_tokenizer


def build_tiny_model(end_of_text: bool = True, seed: int = 0) -> LanguageModel:
    characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,'=<>@-\né中文"
    tokenizer = char_tokenizer(Counter(characters), vocab_size=None, end_of_text=end_of_text, unknown=False)
    module = Decoder(DecoderConfig(
        vocab_size=tokenizer.vocab_size, context_length=16, width=24, n_layers=2, n_heads=3, n_kv_heads=3,
        head_dim=8, hidden=32,
    ))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" not in name:
                parameter.normal_(0, 1.5 * parameter.shape[-1] ** -0.5, generator=generator)
    return LanguageModel(module.requires_grad_(False), tokenizer)


@pytest.fixture
def tiny_model() -> Callable[..., LanguageModel]:
    return build_tiny_model


@pytest.fixture
def model() -> LanguageModel:
    return build_tiny_model()
