"""From text or prepared data to a pre-trained encoder: settings, what follows from them, and the run."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.data.batches import BatchCursor
from tickwise.data.config import PrepareConfig
from tickwise.data.encoder_inputs import marks_of, with_marks
from tickwise.data.prepare import open_or_prepare
from tickwise.data.prepared import PreparedData
from tickwise.data.word_borders import WordBorders
from tickwise.interop.directory import read_config, resolve_model_path
from tickwise.interop.warm_start import warm_start
from tickwise.layers.feed_forward import Activation
from tickwise.layers.norm import NormKind
from tickwise.models.decoder import DecoderConfig
from tickwise.models.encoder import EMBEDDING_DEVIATION, Electra, ElectraConfig, Encoder, EncoderConfig
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.config import OptimizerOptions, TextConfig, need_positive
from tickwise.training.cooccurrence import positive_pmi, truncated_svd, window_counts
from tickwise.training.dial import (
    MAX_EPOCHS_BY_DEFAULT,
    describe_run,
    hidden_width,
    limited,
    width_and_heads,
    with_batch_and_lr,
)
from tickwise.training.masked_language import MaskedLanguage, ReplacedTokens, WholeWordMasks
from tickwise.training.run import TrainResult, about_data, train_module

_DEPTH, _CONTEXT = 4, 128
_EMBEDDING_LR_RATIO = 0.1
"""Muon's rate is for matrices of deviation 1/√width; the embedding's is 0.02, and it begins with something to lose."""
_COUNTED_TOKENS, _WINDOW = 4_000_000, 5
"""Neighbours are counted in so many tokens, this far apart at most."""


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """The encoder. Everything left out follows from ``--depth`` and ``--model.architecture``, or is as in ``--start``.
    """

    architecture: Literal["tickwise", "bert"] | None = None
    """tickwise (the usual one): rotary positions, RMS norms before the sublayers, SwiGLU; bert opens in other programs.
    """
    width: int | None = None
    """Features of the residual stream (64 per layer of depth)."""
    n_heads: int | None = None
    hidden: int | None = None
    """Features inside the feed-forward block."""
    dropout: float = 0.0
    generator_layers: int | None = None
    """Of the model that replaces words for --objective electra (1)."""


@dataclass(frozen=True, kw_only=True)
class EncoderTrainConfig(TextConfig):
    """One pre-training of an encoder."""

    depth: int | None = None
    """The dial: layers (4; with --start as many as there). Width, heads, learning rate and batch follow from it."""
    context: int | None = None
    """Tokens a window holds, its two marks included (128; with --start as many as there)."""
    objective: Literal["masked", "electra"] = "masked"
    """masked: name the words that were hidden; electra: tell for every token whether it was replaced."""
    mask_share: float = 0.15
    """Of a window's tokens; whole words are hidden."""
    embeddings: Literal["svd", "random"] = "svd"
    """How the tokens' embedding begins: factors of the tokens' mutual information in the training text (seconds), or at
    random."""
    start: Path | None = None
    """Go on from the weights and with the tokenizer of this model directory, an encoder or decoder, in its shape; what
    fits by name is taken."""
    lowercase: bool = False
    """For raw text and bpe: read capitals as small letters."""
    model: EncoderOptions = field(default_factory=EncoderOptions)
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(embedding_lr_ratio=_EMBEDDING_LR_RATIO))

    def __post_init__(self) -> None:
        need_positive(self, ("depth", "context"))
        if self.context is not None and self.context < 8:
            raise ConfigError(f"--context: must be at least 8, got {self.context}")
        if not 0 < self.mask_share < 1:
            raise ConfigError(f"--mask-share: must be between 0 and 1, got {self.mask_share}")
        super().__post_init__()


def encoder_from_dial(depth: int, context: int, vocab_size: int, options: EncoderOptions) -> EncoderConfig:
    """The encoder of that depth; explicit options win. ``ConfigError`` where they contradict each other."""
    width, n_heads = width_and_heads(depth, options.width, options.n_heads)
    bert = options.architecture == "bert"
    norm: NormKind = "layernorm" if bert else "rmsnorm"
    activation: Activation = "gelu" if bert else "swiglu"
    hidden = options.hidden if options.hidden is not None else hidden_width(width, gated=not bert)
    return EncoderConfig(
        vocab_size=vocab_size, context_length=context, width=width, n_layers=depth, n_heads=n_heads,
        head_dim=width // n_heads, hidden=hidden, positions="learned" if bert else "rope", norm=norm,
        norm_place="post" if bert else "pre", norm_epsilon=1e-12 if bert else 1e-5, activation=activation, bias=bert,
        n_segments=2 if bert else 0, dropout=options.dropout,
    )


def encoder_like(source: Path, depth: int | None, context: int | None, vocab_size: int,
                 options: EncoderOptions) -> EncoderConfig:
    """An encoder in the shape of the encoder or decoder in ``source``; depth and context are its own unless given.
    ``ConfigError`` for options that another shape would have, ``CheckpointError`` for a model of another family."""
    family, config = read_config(source)
    for name in ("width", "n_heads", "hidden"):
        wanted = getattr(options, name)
        if wanted is not None and wanted != getattr(config, name, wanted):
            raise ConfigError(f"--model.{name.replace('_', '-')} {wanted}: the model of --start has "
                              f"{getattr(config, name)}, and no weights would fit; leave it out")
    if isinstance(config, EncoderConfig):
        if options.architecture not in (None, "bert" if config.norm_place == "post" else "tickwise"):
            raise ConfigError(f"--model.architecture {options.architecture}: --start has another one; leave it out")
        shape = {f.name: getattr(config, f.name) for f in dataclasses.fields(EncoderConfig)}
        if context is not None and context > config.context_length and config.positions == "learned":
            raise ConfigError(f"--context {context}: {source} has learned positions for {config.context_length:,} "
                              "tokens")
    elif isinstance(config, DecoderConfig) and config.positions == "rope" and options.architecture != "bert":
        shape = {name: getattr(config, name) for name in (
            "context_length", "width", "n_layers", "n_heads", "head_dim", "hidden", "rope_theta", "norm_epsilon")}
    else:
        raise CheckpointError(f"{source}: a {family.name}; an encoder starts from an encoder, or from a decoder with "
                              "rotary positions")
    changed = {"vocab_size": vocab_size, "masked_head": True, "dropout": options.dropout}
    changed |= {name: value for name, value in (("n_layers", depth), ("context_length", context)) if value is not None}
    return EncoderConfig(**shape | changed)


def train_encoder(config: EncoderTrainConfig, trace: Path | None = None) -> TrainResult:
    """Train as ``config`` says; the run directory holds everything. Raises a ``UserError`` as ``train`` does."""
    config, model, data, tokenizer = plan_encoder(config)
    assert config.batch_size is not None
    assert config.context is not None
    marks = marks_of(tokenizer)
    cursor = BatchCursor(data.split("train").tokens, batch_size=config.batch_size, context=config.context - 2,
                         seed=config.seed, vocab_size=data.tokenizer.vocab_size)
    validation = data.split("validation").tokens if "validation" in data.splits else None
    if validation is not None and len(validation) < config.context:
        validation = None
    words = np.array([i for i in range(data.tokenizer.vocab_size) if not data.tokenizer.is_special(i)], dtype=np.int64)
    replaces = config.objective == "electra"
    masks = WholeWordMasks(WordBorders(tokenizer), marks, words, config.mask_share, always=replaces)
    objective = (ReplacedTokens if replaces else MaskedLanguage)(cursor, validation, masks, marks)
    module: Encoder
    if replaces:
        shape = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
        module = Electra(ElectraConfig(**shape | {"masked_head": False,
                                                  "generator_layers": config.model.generator_layers or 1}))
    else:
        module = Encoder(model)
    module.initialise(config.seed)
    if config.embeddings == "svd" and config.start is None:
        with torch.no_grad():
            rows_VC = cooccurrence_rows(data.split("train").tokens, data.tokenizer.vocab_size, model.width, config.seed)
            module.embed_tokens.weight[: len(rows_VC)] = rows_VC
    started = [] if config.start is None else warm_start(module, config.start).lines()
    lines = [
        f"model: encoder, depth {model.n_layers}, width {model.width}, {model.n_heads} heads of {model.head_dim}, "
        f"{model.activation} {model.hidden}, vocabulary {model.vocab_size:,}, {module.n_parameters():,} parameters",
        f"objective: {'replaced tokens' if replaces else 'masked words'}, {config.mask_share:.0%} of the tokens",
        describe_run(config, config.context), *started,
    ]
    return train_module(config, module, objective, tokenizer, data=about_data(data, config.data), lines=lines,
                        trace=trace)


def cooccurrence_rows(tokens: NDArray[Any], n_words: int, width: int, seed: int) -> Tensor:
    """(V, C) a vector for each token: factors of the shifted positive mutual information of neighbours (Levy & Goldberg
    2014), as long as a fresh embedding's; of tokens without neighbours at random. Where an encoder begins with what
    each word keeps company with, attention has something to look for at once."""
    length = EMBEDDING_DEVIATION * width**0.5
    rows_VC = torch.randn(n_words, width, generator=torch.Generator().manual_seed(seed)) * EMBEDDING_DEVIATION
    sample = np.array(tokens[:_COUNTED_TOKENS], dtype=np.int64)
    left_VR, values_R, _ = truncated_svd(positive_pmi(window_counts(sample, n_words, _WINDOW)), width, seed)
    factors_VR = left_VR * values_R.sqrt()
    norms_V1 = factors_VR.norm(dim=1, keepdim=True)
    found = norms_V1[:, 0] > 1e-6
    rows_VC[found] = 0
    rows_VC[found, : factors_VR.shape[1]] = (factors_VR / norms_V1 * length)[found]
    return rows_VC


def plan_encoder(config: EncoderTrainConfig) -> tuple[EncoderTrainConfig, EncoderConfig, PreparedData, Tokenizer]:
    """The settings with every derived one filled in, the model's shape, the data (prepared now if it is raw), and its
    tokenizer with the marks."""
    start = None if config.start is None else resolve_model_path(config.start)
    data = open_or_prepare(config.data, PrepareConfig(
        tokenizer=config.tokenizer, vocab_size=config.vocab_size, word_style=config.word_style,
        unknown=config.tokenizer == "char", lowercase=config.lowercase, tokenizer_from=start))
    tokenizer = with_marks(data.tokenizer)
    if start is not None and tokenizer.fingerprint != with_marks(Tokenizer.load(start)).fingerprint:
        raise ConfigError(f"{config.data}: was prepared with another tokenizer than that of {start}; give raw text, or "
                          f"prepare it with --tokenizer-from {start}")
    if start is None:
        depth, context = config.depth or _DEPTH, config.context or _CONTEXT
        model = encoder_from_dial(depth, context, tokenizer.vocab_size, config.model)
    else:
        model = encoder_like(start, config.depth, config.context, tokenizer.vocab_size, config.model)
    config = dataclasses.replace(config, depth=model.n_layers, context=model.context_length)
    config = with_batch_and_lr(config, model.context_length, model.width)
    return limited(config, MAX_EPOCHS_BY_DEFAULT * len(data.split("train").tokens)), model, data, tokenizer
