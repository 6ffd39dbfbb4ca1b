"""A tiny decoder with weights large enough that its next token depends on all earlier ones."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tickwise.engine.language_model import LanguageModel
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
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


TINY_ENCODER_DECODER = {
    "vocab_size": 40, "source_length": 24, "context_length": 20, "width": 16, "n_encoder_layers": 2,
    "n_decoder_layers": 2, "n_heads": 4, "n_kv_heads": 4, "head_dim": 4, "hidden": 24, "pad_id": 0, "start_id": 0,
    "eos_id": 1,
}


def build_tiny_encoder_decoder(seed: int = 0, eos_bias: float = 0.0, **changes: Any) -> EncoderDecoder:
    """``eos_bias`` is added to the logit of the end mark."""
    config = EncoderDecoderConfig(**{**TINY_ENCODER_DECODER, "logit_bias": True, **changes})
    module = EncoderDecoder(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" not in name:
                deviation = 1.0 if "relative" in name else 1.5 * parameter.shape[-1] ** -0.5
                parameter.normal_(0, 0.3 if parameter.ndim == 1 else deviation, generator=generator)
        module.lm_head.bias[config.eos_id] = eos_bias
    return module.requires_grad_(False).eval()


@pytest.fixture
def tiny_encoder_decoder() -> Callable[..., EncoderDecoder]:
    return build_tiny_encoder_decoder
