"""From sentences to a text VAE: settings, what follows from them, and the run."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from tickwise.core.console import say
from tickwise.core.errors import ConfigError
from tickwise.data.config import PrepareConfig, TokenizerKind
from tickwise.data.prepare import open_or_prepare
from tickwise.data.prepared import PreparedData
from tickwise.data.sentences import Sentences, split_sentences
from tickwise.models.vae import Vae, VaeConfig, VaeOptions
from tickwise.training.config import OptimizerOptions, TextConfig
from tickwise.training.dial import limited
from tickwise.training.run import TrainResult, about_data, train_module
from tickwise.training.vae_objective import KlSchedule, VaeObjective

_EPOCHS_AT_FULL_WEIGHT = 10
_COLLAPSED_NATS = 0.5
"""Of what is latent about a sentence, on average; below it that is said."""


@dataclass(frozen=True, kw_only=True)
class SentenceDataConfig(TextConfig):
    """A training whose examples are sentences."""

    tokenizer: TokenizerKind = "word"
    """For raw text: char, word or bpe. Prepared data brings its own."""
    longest: int = 128
    """Sentences of so many tokens or more, their end counted, are left out."""

    def __post_init__(self) -> None:
        if self.longest < 2:
            raise ConfigError(f"--longest: must be at least 2, got {self.longest}")
        if self.label_smoothing:
            raise ConfigError("--label-smoothing: has no meaning here; leave it out")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class VaeTrainConfig(SentenceDataConfig):
    """One training run of a text VAE."""

    depth: int = 1
    """Layers of the decoder, and of a Transformer encoder."""
    model: VaeOptions = field(default_factory=VaeOptions)
    kl: KlSchedule = field(default_factory=KlSchedule)
    word_dropout: float = 0.0
    """Share of the decoder's input words that are blanked, so that it needs the latent vector."""
    optimizer: OptimizerOptions = field(
        default_factory=lambda: OptimizerOptions(name="adamw", clip_norm=5.0, weight_decay=0.0, beta2=0.999))

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError(f"--depth: must be positive, got {self.depth}")
        if not 0.0 <= self.word_dropout < 1.0:
            raise ConfigError(f"--word-dropout: must be in [0, 1), got {self.word_dropout}")
        super().__post_init__()


def open_sentences(config: SentenceDataConfig) -> tuple[PreparedData, Sentences, Sentences | None]:
    """The data, prepared now if it is raw, and its sentences for training and validation."""
    # Where spaces separate the tokens, a line's end is one of them.
    documents = "auto" if config.word_style == "spaces" else "line"
    data = open_or_prepare(config.data, PrepareConfig(
        tokenizer=config.tokenizer, vocab_size=config.vocab_size, word_style=config.word_style, documents=documents))
    eos_id, parts = data.tokenizer.eos_id, {}
    for name in ("train", "validation"):
        if name in data.splits:
            split = data.split(name)
            parts[name] = split_sentences(split.tokens, eos_id, config.longest, f"{config.data} ({name})")
    for name, sentences in parts.items():
        left_out = int((data.split(name).tokens == eos_id).sum()) - len(sentences)
        if left_out > 0:
            what = "training" if name == "train" else name
            say(f"{config.data}: left out {left_out:,} {what} sentences that are empty or have {config.longest} tokens "
                "or more")
    return data, parts["train"], parts.get("validation")


def train_vae(config: VaeTrainConfig, trace: Path | None = None) -> TrainResult:
    """Train as ``config`` says; the run directory holds everything. Raises a ``UserError`` as ``train`` does."""
    data, sentences, validation = open_sentences(config)
    options = config.model
    assert data.tokenizer.eos_id is not None
    model = VaeConfig(
        vocab_size=data.tokenizer.vocab_size, eos_id=data.tokenizer.eos_id, context_length=config.longest,
        n_layers=config.depth, **dataclasses.asdict(options),
    )
    batch = config.batch_size if config.batch_size is not None else 32 * config.accumulate
    lr = config.optimizer.lr if config.optimizer.lr is not None else {"muon": 0.01, "adamw": 0.001, "sgd": 1.0}[
        config.optimizer.name]
    config = dataclasses.replace(config, batch_size=batch, optimizer=dataclasses.replace(config.optimizer, lr=lr))
    kl = config.kl
    epochs = kl.autoencoder_epochs + 2 * kl.warmup_epochs * kl.cycles + _EPOCHS_AT_FULL_WEIGHT
    n_tokens = int(sentences.lengths.sum()) + len(sentences)
    config = limited(config, int(epochs * n_tokens))
    objective = VaeObjective(sentences, validation, batch_size=batch, seed=config.seed, schedule=kl,
                             word_dropout=config.word_dropout)
    module = Vae(model).initialise(config.seed)
    lines = [
        f"model: {model.encoder} encoder, {model.latent} latent features, {model.decoder} decoder of {model.n_layers} "
        f"layers, vocabulary {model.vocab_size:,}, {module.n_parameters():,} parameters",
        f"data: {len(sentences):,} sentences of {n_tokens / len(sentences):.1f} tokens; batches of {batch}; "
        f"{config.optimizer.name} at {lr:.2g}; the loss is in nats per sentence",
    ]
    result = train_module(config, module, objective, data.tokenizer, trace=trace, lines=lines,
                          data=about_data(data, config.data) | {"sentences": len(sentences)})
    if result.validation.get("kl", _COLLAPSED_NATS) < _COLLAPSED_NATS:
        say(f"the posterior has collapsed: what is latent tells {result.validation['kl']:.2f} nats of a sentence, in "
            f"{result.validation['active_units']:.0f} of {model.latent} dimensions; raise --kl.free-nats or "
            "--word-dropout, or begin with --kl.autoencoder-epochs 1")
    return result
