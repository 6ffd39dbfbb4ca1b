"""One way to load every model: what comes back can do what the model is for."""

from pathlib import Path
from typing import Any

from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.engine.language_model import load as load_language_model
from tickwise.interop.directory import read_config, resolve_model_path


def load(path: str | Path, device: str = "auto", dtype: str | None = None) -> Any:
    """The model in a model directory or a run directory (then its best or newest model), ready to use.

    What it is for decides its class: ``LanguageModel`` (language and text-to-text models: ``generate``, ``stream``,
    ``score``), ``Classifier`` (``predict``, ``explain``), ``EntityTagger`` (``tag``), ``TextVae`` (``sample``,
    ``reconstruct``, ``interpolate``, ``likelihood``; a GAN in its latent space samples too), ``NamedVectors``
    (``neighbours``, ``analogy``), ``MaskFiller`` (``fill``), ``Reader`` (``answer``), ``Embedder`` (``embed``).

    ``dtype`` is ``"fp32"`` (also the default) or, of language models, ``"bf16"``. Raises ``CheckpointError`` in one
    line for a directory that is missing or damaged, and for a discriminator, which is used by its training alone.

    >>> import tickwise
    >>> model = tickwise.load("runs/shakespeare", dtype="bf16")                           # doctest: +SKIP
    >>> tickwise.load("out/topics").predict(["stocks fell again"])[0].label               # doctest: +SKIP
    'Business'
    """
    folder = resolve_model_path(Path(path))
    purpose = read_config(folder)[0].purpose
    if purpose in ("language model", "text-to-text model"):
        return load_language_model(folder, device, dtype)
    if dtype not in (None, "fp32"):
        raise ConfigError(f"dtype: {dtype!r} is for language models; {folder} holds a model of another kind "
                          f"({purpose})")
    if purpose == "word vectors":
        from tickwise.interop.word_vectors import load_word_vectors

        return load_word_vectors(folder)
    if purpose == "classifier":
        from tickwise.tasks.classifier import Classifier

        return Classifier.load(folder, device=device)
    if purpose == "tagger":
        from tickwise.tasks.tag import EntityTagger

        return EntityTagger.load(folder, device)
    if purpose in ("autoencoder", "latent generator"):
        from tickwise.tasks.sentences import TextVae

        return TextVae.load(folder, device=device)
    if purpose == "span reader":
        from tickwise.tasks.answer import Reader

        return Reader.load(folder, device)
    if purpose in ("encoder", "sentence embedder"):
        from tickwise.tasks.embed import Embedder
        from tickwise.tasks.fill_mask import MaskFiller

        return MaskFiller.load(folder, device) if purpose == "encoder" else Embedder.load(folder, device)
    raise CheckpointError(f"{folder}: a model of a kind ({purpose}) that is used by its training alone")
