"""What a training run is told. Fields that are ``None`` are derived from the dial ``depth`` and printed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from tickwise.core.errors import ConfigError
from tickwise.data.config import TokenizerKind
from tickwise.tokenizers.train import WordStyle


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The decoder. Everything left out follows from ``--depth`` and ``--model.architecture``."""

    architecture: Literal["qwen3", "llama", "gpt2", "tickwise"] = "qwen3"
    """``qwen3``, ``llama`` and ``gpt2`` open in other programs, unless a flag below changes what they compute;
    ``tickwise`` is ``qwen3`` with value residuals, which no other program computes and which lowered the loss of a
    small model by about 0.01. A run says before its first step which it is."""
    width: int | None = None
    """Features of the residual stream (64 per layer of depth)."""
    n_heads: int | None = None
    n_kv_heads: int | None = None
    """Key-value heads; fewer than heads means grouped queries."""
    hidden: int | None = None
    """Features inside the feed-forward block."""
    activation: Literal["swiglu", "gelu", "gelu_tanh", "relu2"] | None = None
    tie_embeddings: bool | None = None
    """One matrix for the input embedding and the output head."""
    bias: bool | None = None
    qk_norm: bool | None = None
    value_residual: bool | None = None
    logit_soft_cap: float | None = None
    rope_theta: float = 10_000.0
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """The optimizer. Muon takes the 2-D weights of the layers and leaves the rest to AdamW."""

    name: Literal["muon", "adamw", "sgd"] = "muon"
    lr: float | None = None
    """Peak learning rate (derived from the width)."""
    embedding_lr_ratio: float = 1.0
    """Learning rate of embeddings, head and vectors as a multiple of ``lr``."""
    weight_decay: float = 0.1
    """On matrices only; decoupled from the gradient (with SGD: added to it)."""
    beta1: float = 0.9
    beta2: float = 0.95
    momentum: float = 0.9
    """Of Muon and SGD."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient; larger ones are scaled down."""
    layer_decay: float = 1.0
    """For fine-tuning with AdamW or SGD: each layer learns at this times the rate of the one above it, embeddings below
    the first."""


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """Learning rate over the run: linear warm-up, then cosine, or constant with a linear end (wsd)."""

    name: Literal["cosine", "wsd", "constant"] = "wsd"
    warmup: float = 0.02
    """Share of the run."""
    decay: float = 0.5
    """Share of the run in which ``wsd`` falls to the floor."""
    floor: float = 0.0
    """Lowest learning rate as a share of the peak."""


@dataclass(frozen=True, kw_only=True)
class ParallelOptions:
    """How several ranks train one model together (``--ranks``, or torchrun). One process alone has no use for it."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """ddp: every rank holds the model and its optimizer state; fsdp: each holds a share and gathers a layer at a time
    (FSDP2), which takes less memory."""
    timeout_seconds: float = 600.0
    """When a rank lets the others wait longer than this, the run ends with its name and whether it hangs or is slow;
    it starts again from its last checkpoint, --restarts times."""


@dataclass(frozen=True)
class FlagNames:
    """How the flags are called, in messages, that the verb of a training has for what the loop is told."""

    resume: str = "--resume auto"
    lr: str = "--optimizer.lr"


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """When a training has nothing more to gain."""

    patience: int | None = None
    """Early stopping: end after that many validations without a new best."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig(EarlyStopping):
    """What the training loop is told, whatever it trains."""

    flags: ClassVar[FlagNames] = FlagNames()

    out: Path = Path("out/run")
    """Run directory."""
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)

    batch_size: int | None = None
    """Sequences in one update."""
    accumulate: int = 1
    """Micro-batches that one update's sequences (of several ranks: each rank's) are split into."""
    checkpoint_activations: bool = False
    """Keep only what goes from layer to layer and compute the rest again in the backward pass: less memory, about a
    third more time."""
    parallel: ParallelOptions = field(default_factory=ParallelOptions)
    label_smoothing: float = 0.0
    max_steps: int | None = None
    """Updates. The run ends at the first limit that it reaches, or without any of the three after 20 tokens per
    parameter or 10 epochs, whichever is less."""
    max_tokens: int | None = None
    """Tokens trained on (see --max-steps for a run without limits)."""
    max_seconds: float | None = None
    """Wall-clock time of the training loop, earlier parts of a resumed run included (see --max-steps for a run
    without limits)."""
    stop_at_loss: float | None = None
    """End as soon as the validation loss is at most this."""
    ema_decay: float | None = None
    """Average the weights with this decay; validation and the saved model use the average."""

    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the computation; weights and optimizer state stay fp32. Auto takes bf16 where the
    hardware has it and a measured product is faster in it."""
    device: str = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto measures whether it pays. A resumed run keeps what was decided at its start."""
    seed: int = 1

    evaluate_every: int | None = None
    """Steps between validations."""
    evaluate_tokens: int = 65_536
    """Tokens per validation, the same ones every time (spread over the split when it has more)."""
    log_every: int = 10
    """Steps between lines in metrics.jsonl."""
    checkpoint_seconds: float = 300.0
    """Time between checkpoints; one is also written at the end and on Ctrl-C."""
    checkpoint_every: int | None = None
    """Steps between checkpoints, instead of by time."""
    keep_checkpoints: int = 2
    resume: Literal["never", "auto"] = "never"
    """Auto goes on from the newest checkpoint in ``out``, or starts when there is none."""
    overwrite: bool = False
    """Replace a run that is already in ``out``."""

    def __post_init__(self) -> None:
        if isinstance(self.out, str):  # plain strings from Python are welcome
            object.__setattr__(self, "out", Path(self.out))
        positive = ("batch_size", "accumulate", "max_steps", "max_tokens", "max_seconds",
                    "patience", "evaluate_every", "evaluate_tokens", "log_every", "checkpoint_every",
                    "checkpoint_seconds", "keep_checkpoints")
        need_positive(self, positive)
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"--label-smoothing: must be in [0, 1), got {self.label_smoothing}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"--ema-decay: must be between 0 and 1, got {self.ema_decay}")
        if self.batch_size is not None and self.batch_size % self.accumulate:
            raise ConfigError(f"--accumulate: {self.accumulate} does not divide the batch of {self.batch_size}")
        if self.optimizer.lr is not None and not self.optimizer.lr > 0:
            raise ConfigError(f"--optimizer.lr: must be positive, got {self.optimizer.lr}")
        if not self.optimizer.clip_norm > 0:
            raise ConfigError(f"--optimizer.clip-norm: must be positive, got {self.optimizer.clip_norm}")
        for name in ("beta1", "beta2", "momentum"):
            value = getattr(self.optimizer, name)
            if not 0 <= value < 1:
                raise ConfigError(f"--optimizer.{name}: must be in [0, 1), got {value}")
        for name in ("weight_decay", "embedding_lr_ratio"):
            value = getattr(self.optimizer, name)
            if not value >= 0:
                raise ConfigError(f"--optimizer.{name.replace('_', '-')}: must not be negative, got {value}")
        if not 0 < self.optimizer.layer_decay <= 1:
            raise ConfigError(f"--optimizer.layer-decay: must be in (0, 1], got {self.optimizer.layer_decay}")
        if self.optimizer.layer_decay != 1 and self.optimizer.name == "muon":
            raise ConfigError("--optimizer.layer-decay: Muon gives all layers one rate; take --optimizer.name adamw")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"--seed: must be in [0, 2^63), got {self.seed}")
        if not self.parallel.timeout_seconds > 0:
            raise ConfigError(f"--parallel.timeout-seconds: must be positive, got {self.parallel.timeout_seconds}")
        if self.overwrite and self.resume == "auto":
            raise ConfigError(f"--overwrite and {self.flags.resume} contradict each other; give one of them")
        for name in ("warmup", "decay", "floor"):
            value = getattr(self.schedule, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"--schedule.{name}: must be in [0, 1], got {value}")


class TaskLoopConfig(LoopConfig):
    """Of a training that ``tickwise run`` asks for: its flags have other names."""

    flags = FlagNames(resume="--resume", lr="--options.lr")


class AdaptLoopConfig(LoopConfig):
    """Of a fine-tuning that ``tickwise adapt`` asks for."""

    flags = FlagNames(resume="--resume", lr="--tuning.lr")


@dataclass(frozen=True, kw_only=True)
class TextConfig(LoopConfig):
    """A training on plain text."""

    data: Path
    """Prepared directory, text file or folder, or the name of a known data set."""
    tokenizer: TokenizerKind = "bpe"
    """For raw text: char, word or bpe. Prepared data brings its own."""
    word_style: WordStyle = "natural"
    """spaces: the text is tokenized already, its tokens separated by spaces (WikiText, Penn Treebank)."""
    vocab_size: int | None = None
    """For raw text: most entries of the vocabulary."""

    def __post_init__(self) -> None:
        if isinstance(self.data, str):  # plain strings from Python are welcome
            object.__setattr__(self, "data", Path(self.data))
        need_positive(self, ("vocab_size",))
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TextConfig):
    """One training run of a decoder. ``tickwise train --dry-run`` prints the resolved values."""

    depth: int = 4
    """The dial: layers. Width, heads and learning rate follow from it."""
    context: int = 256
    """Tokens a window holds."""
    model: ModelOptions = field(default_factory=ModelOptions)

    def __post_init__(self) -> None:
        need_positive(self, ("depth", "context"))
        super().__post_init__()


def need_positive(config: LoopConfig, names: tuple[str, ...]) -> None:
    """``ConfigError`` for one of those settings that is given and not above zero."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"--{name.replace('_', '-')}: must be positive, got {value}")
