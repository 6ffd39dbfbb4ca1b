"""The model families by the ``model_type`` under which they are saved; their code is imported when it is needed."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from tickwise.core.config import from_dict, to_dict
from tickwise.core.errors import CheckpointError, ConfigError

Purpose = Literal["language model", "text-to-text model", "classifier", "tagger", "autoencoder", "adversary", "encoder",
                  "span reader", "sentence embedder", "word vectors", "latent generator"]


USED_BY: dict[Purpose, tuple[str, ...]] = {
    "language model": ("generate", "trace", "evaluate", "run next-word"),
    "text-to-text model": ("run translate", "run text-to-text", "run summarise", "attention", "generate", "trace"),
    "classifier": ("run classify",),
    "tagger": ("run entities",),
    "autoencoder": ("run sample", "run reconstruct", "run interpolate", "run likelihood"),
    "latent generator": ("run sample",),
    "adversary": (),
    "encoder": ("run fill-mask", "adapt"),
    "span reader": ("run answer",),
    "sentence embedder": ("run embed", "run similar"),
    "word vectors": ("vectors neighbours", "vectors analogy", "vectors export"),
}
"""The verbs that a model of each purpose is used with; ``disasm`` lists every model."""


@dataclass(frozen=True)
class Family:
    """One file of ``models/``: a frozen config and the module that it describes."""

    name: str
    """As people say it: "decoder", "LSTM"."""
    purpose: Purpose
    home: str
    config_name: str
    module_name: str

    def config_class(self) -> type[Any]:
        found: type[Any] = getattr(importlib.import_module(self.home), self.config_name)
        return found

    def module_class(self) -> type[nn.Module]:
        found: type[nn.Module] = getattr(importlib.import_module(self.home), self.module_name)
        return found


DECODER = Family("decoder", "language model", "tickwise.models.decoder", "DecoderConfig", "Decoder")
ENCODER = Family("encoder", "encoder", "tickwise.models.encoder", "EncoderConfig", "Encoder")
_HEADS = "tickwise.models.encoder_heads"

FAMILIES: dict[str, Family] = {
    "tickwise-decoder": DECODER,
    "tickwise-encoder-decoder": Family("encoder–decoder", "text-to-text model", "tickwise.models.encoder_decoder",
                                       "EncoderDecoderConfig", "EncoderDecoder"),
    "tickwise-tagger": Family("BiLSTM-CRF", "tagger", "tickwise.models.tagger", "TaggerConfig", "Tagger"),
    "tickwise-bag": Family("bag of n-grams", "classifier", "tickwise.models.bag", "BagConfig", "Bag"),
    "tickwise-recurrent-classifier": Family(
        "recurrent classifier", "classifier", "tickwise.models.recurrent_classifier", "RecurrentClassifierConfig",
        "RecurrentClassifier"),
    "tickwise-recurrent": Family("recurrent", "language model", "tickwise.models.recurrent", "RecurrentConfig",
                                 "Recurrent"),
    "tickwise-ngram": Family("n-gram", "language model", "tickwise.models.ngram", "NgramConfig", "Ngram"),
    "tickwise-factorised": Family("factorised", "language model", "tickwise.models.factorised", "FactorisedConfig",
                                  "Factorised"),
    "tickwise-word-vectors": Family("word vectors", "word vectors", "tickwise.models.word_vectors", "WordVectorsConfig",
                                    "WordVectors"),
    "tickwise-vae": Family("text VAE", "autoencoder", "tickwise.models.vae", "VaeConfig", "Vae"),
    "tickwise-discriminator": Family("discriminator", "adversary", "tickwise.models.gan", "DiscriminatorConfig",
                                     "Discriminator"),
    "tickwise-latent-gan": Family("latent GAN", "latent generator", "tickwise.models.gan", "LatentGanConfig",
                                  "LatentGan"),
    "tickwise-encoder": ENCODER,
    "tickwise-electra": Family("ELECTRA", "encoder", "tickwise.models.encoder", "ElectraConfig", "Electra"),
    "tickwise-encoder-classifier": Family("encoder classifier", "classifier", _HEADS, "EncoderClassifierConfig",
                                          "EncoderClassifier"),
    "tickwise-encoder-tagger": Family("encoder with a CRF", "tagger", _HEADS, "EncoderTaggerConfig", "EncoderTagger"),
    "tickwise-span-reader": Family("span reader", "span reader", _HEADS, "SpanReaderConfig", "SpanReader"),
    "tickwise-sentence-embedder": Family("sentence embedder", "sentence embedder", _HEADS, "SentenceEmbedderConfig",
                                         "SentenceEmbedder"),
}
"""By ``model_type``. Other programs know decoders under further names (``interop/tensor_names.py``)."""


def family_of(module: nn.Module) -> tuple[str, Family]:
    """The ``model_type`` and family of a module of ours."""
    for model_type, family in FAMILIES.items():
        if type(module).__name__ == family.module_name and type(module).__module__ == family.home:
            return model_type, family
    raise AssertionError(f"{type(module).__name__} is in no family")


def config_values(module: nn.Module) -> dict[str, Any]:
    """The module's config as JSON-ready values."""
    return to_dict(module.config)


def config_from_values(family: Family, values: Mapping[str, Any], where: str) -> Any:
    """The family's config from its values; ``CheckpointError`` for keys that are missing, unknown or wrong."""
    try:
        return from_dict(family.config_class(), values, where=where)
    except ConfigError as problem:
        raise CheckpointError(f"{where}: {problem}".replace(f"{where}: {where}", where)) from None
