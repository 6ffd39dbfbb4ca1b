"""From text or prepared data to a pre-trained encoder: settings, what follows from them, and the run."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.errors import ConfigError
from tickwise.data.batches import BatchCursor
from tickwise.data.config import PrepareConfig
from tickwise.data.encoder_inputs import marks_of, with_marks
from tickwise.data.prepare import open_or_prepare
from tickwise.data.prepared import PreparedData
from tickwise.data.word_borders import WordBorders
from tickwise.interop.directory import resolve_model_path
from tickwise.interop.warm_start import warm_start
from tickwise.layers.feed_forward import Activation
from tickwise.layers.norm import NormKind
from tickwise.models.encoder import EMBEDDING_DEVIATION, Electra, ElectraConfig, Encoder, EncoderConfig
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.config import OptimizerOptions, TextConfig, need_positive
from tickwise.training.cooccurrence import positive_pmi, truncated_svd, window_counts
from tickwise.training.dial import MAX_EPOCHS_BY_DEFAULT, WIDTH_PER_LAYER, describe_run, limited
from tickwise.training.masked_language import MaskedLanguage, ReplacedTokens, WholeWordMasks
from tickwise.training.run import TrainResult, about_data, train_module

_BATCH_TOKENS = 4096
_EMBEDDING_LR_RATIO = 0.1
"""Muon's rate is for matrices of deviation 1/√width; the embedding's is 0.02, and it begins with something to lose."""
_COUNTED_TOKENS, _WINDOW = 4_000_000, 5
"""Neighbours are counted in so many tokens, this far apart at most."""


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """The encoder. Everything left out follows from ``--depth`` and ``--model.architecture``."""

    architecture: Literal["tickwise", "bert"] = "tickwise"
    """tickwise: rotary positions, RMS norms before the sublayers, SwiGLU; bert opens in other programs."""
    width: int | None = None
    """Features of the residual stream (64 per layer of depth)."""
    n_heads: int | None = None
    hidden: int | None = None
    """Features inside the feed-forward block."""
    dropout: float = 0.0
    generator_layers: int = 1
    """Of the model that replaces words for --objective electra."""


@dataclass(frozen=True, kw_only=True)
class EncoderTrainConfig(TextConfig):
    """One pre-training of an encoder."""

    depth: int = 4
    """The dial: layers. Width, heads, learning rate and batch follow from it."""
    context: int = 128
    """Tokens a window holds, its two marks included."""
    objective: Literal["masked", "electra"] = "masked"
    """masked: name the words that were hidden; electra: tell for every token whether it was replaced."""
    mask_share: float = 0.15
    """Of a window's tokens; whole words are hidden."""
    embeddings: Literal["svd", "random"] = "svd"
    """How the tokens' embedding begins: factors of the tokens' mutual information in the training text (seconds), or at
    random."""
    start: Path | None = None
    """Go on from the weights and with the tokenizer of this model directory; what fits by name is taken."""
    lowercase: bool = False
    """For raw text and bpe: read capitals as small letters."""
    model: EncoderOptions = field(default_factory=EncoderOptions)
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(embedding_lr_ratio=_EMBEDDING_LR_RATIO))

    def __post_init__(self) -> None:
        need_positive(self, ("depth", "context"))
        if self.context < 8:
            raise ConfigError(f"--context: must be at least 8, got {self.context}")
        if not 0 < self.mask_share < 1:
            raise ConfigError(f"--mask-share: must be between 0 and 1, got {self.mask_share}")
        super().__post_init__()


def encoder_from_dial(depth: int, context: int, vocab_size: int, options: EncoderOptions) -> EncoderConfig:
    """The encoder of that depth; explicit options win. ``ConfigError`` where they contradict each other."""
    width = options.width if options.width is not None else WIDTH_PER_LAYER * depth
    n_heads = options.n_heads if options.n_heads is not None else max(1, width // 64 if width >= 256 else width // 32)
    if width < 1 or n_heads < 1:
        raise ConfigError(f"--model.width {width}, --model.n-heads {n_heads}: both must be at least 1")
    if width % n_heads:
        raise ConfigError(f"--model.n-heads: {n_heads} heads do not divide the width of {width}")
    bert = options.architecture == "bert"
    norm: NormKind = "layernorm" if bert else "rmsnorm"
    activation: Activation = "gelu" if bert else "swiglu"
    # A gated block has three matrices where a plain one has two: 8/3 keeps the parameter count.
    hidden = options.hidden if options.hidden is not None else 4 * width if bert else -(-8 * width // (3 * 32)) * 32
    return EncoderConfig(
        vocab_size=vocab_size, context_length=context, width=width, n_layers=depth, n_heads=n_heads,
        head_dim=width // n_heads, hidden=hidden, positions="learned" if bert else "rope", norm=norm,
        norm_place="post" if bert else "pre", norm_epsilon=1e-12 if bert else 1e-5, activation=activation, bias=bert,
        n_segments=2 if bert else 0, dropout=options.dropout,
    )


def train_encoder(config: EncoderTrainConfig, trace: Path | None = None) -> TrainResult:
    """Train as ``config`` says; the run directory holds everything. Raises a ``UserError`` as ``train`` does."""
    config, model, data, tokenizer = plan_encoder(config)
    assert config.batch_size is not None
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
                                                  "generator_layers": config.model.generator_layers}))
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
    model = encoder_from_dial(config.depth, config.context, tokenizer.vocab_size, config.model)
    batch = config.batch_size
    if batch is None:
        batch = max(config.accumulate, _BATCH_TOKENS // config.context // config.accumulate * config.accumulate)
    lr = config.optimizer.lr
    if lr is None:
        lr = {"muon": 0.012, "adamw": 0.004, "sgd": 0.1}[config.optimizer.name] * (256 / model.width) ** 0.5
    config = dataclasses.replace(config, batch_size=batch, optimizer=dataclasses.replace(config.optimizer, lr=lr))
    return limited(config, MAX_EPOCHS_BY_DEFAULT * len(data.split("train").tokens)), model, data, tokenizer
