"""From text or prepared data to a recurrent language model: settings, what follows from them, and the run."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import open_or_prepare
from tickwise.data.prepared import PreparedData
from tickwise.layers.recurrent import CellKind
from tickwise.models.recurrent import Recurrent, RecurrentConfig
from tickwise.training.config import OptimizerOptions, TextConfig, need_positive
from tickwise.training.dial import MAX_EPOCHS_BY_DEFAULT, describe_run, limited
from tickwise.training.recurrent_objective import RecurrentObjective, RecurrentPenalties
from tickwise.training.run import TrainResult, about_data, train_module


@dataclass(frozen=True, kw_only=True)
class RecurrentOptions:
    """The recurrent model."""

    cell: CellKind = "lstm"
    width: int = 256
    """Features of a token's embedding."""
    hidden: int | None = None
    """Features of every layer (as many as ``width``)."""
    tie_embeddings: bool = True
    """One matrix for the input embedding and the output head."""
    cutoffs: tuple[int, ...] = ()
    """Ids at which clusters of rare words begin, visited only when needed; needs a word tokenizer."""
    word_dropout: float = 0.0
    input_dropout: float = 0.0
    dropout: float = 0.0
    """Between layers."""
    output_dropout: float = 0.0
    weight_drop: float = 0.0
    """On the matrices from state to state."""


@dataclass(frozen=True, kw_only=True)
class RecurrentTrainConfig(TextConfig):
    """One training run of a recurrent language model."""

    depth: int = 1
    """Layers."""
    context: int = 48
    """Tokens that the gradient flows back through; the state flows on from batch to batch."""
    model: RecurrentOptions = field(default_factory=RecurrentOptions)
    optimizer: OptimizerOptions = field(default_factory=lambda: OptimizerOptions(name="adamw", clip_norm=0.5))
    compile: Literal["auto", "on", "off"] = "off"
    """torch.compile takes minutes for the unrolled steps of a window."""
    activation_penalty: float = 0.0
    """Times the mean square of the last layer's outputs."""
    slowness_penalty: float = 0.0
    """Times the mean square of the change of the last layer's outputs from token to token."""

    def __post_init__(self) -> None:
        need_positive(self, ("depth", "context"))
        super().__post_init__()


def train_recurrent(config: RecurrentTrainConfig, trace: Path | None = None) -> TrainResult:
    """Train as ``config`` says; the run directory holds everything. Raises a ``UserError`` as ``train`` does."""
    config, model, data = plan_recurrent(config)
    assert config.batch_size is not None
    train_tokens = data.split("train").tokens
    validation = data.split("validation").tokens if "validation" in data.splits else None
    objective = RecurrentObjective(
        train_tokens, validation, vocab_size=model.vocab_size, batch_size=config.batch_size, context=config.context,
        seed=config.seed, penalties=RecurrentPenalties(
            activation=config.activation_penalty, slowness=config.slowness_penalty,
            label_smoothing=config.label_smoothing,
        ),
    )  # fmt: skip
    module = Recurrent(model).initialise(config.seed)
    lines = [
        f"model: {model.cell}, {model.n_layers} layers of {model.hidden}, embeddings of {model.width}, vocabulary "
        f"{model.vocab_size:,}, {sum(p.numel() for p in module.parameters()):,} parameters",
        describe_run(config, config.context),
    ]
    return train_module(config, module, objective, data.tokenizer, data=about_data(data, config.data),
                        lines=lines, trace=trace)


def plan_recurrent(config: RecurrentTrainConfig) -> tuple[RecurrentTrainConfig, RecurrentConfig, PreparedData]:
    """The settings with every derived one filled in, the model's shape, and the data (prepared now if it is raw)."""
    data = open_or_prepare(config.data, PrepareConfig(
        tokenizer=config.tokenizer, vocab_size=config.vocab_size, word_style=config.word_style))
    options = config.model
    model = RecurrentConfig(
        vocab_size=data.tokenizer.vocab_size, cell=options.cell, width=options.width,
        hidden=options.width if options.hidden is None else options.hidden, n_layers=config.depth,
        tie_embeddings=options.tie_embeddings, cutoffs=options.cutoffs, word_dropout=options.word_dropout,
        input_dropout=options.input_dropout, dropout=options.dropout, output_dropout=options.output_dropout,
        weight_drop=options.weight_drop,
    )
    batch = config.batch_size if config.batch_size is not None else 32 * config.accumulate
    lr = config.optimizer.lr
    if lr is None:
        by_optimizer: dict[Literal["muon", "adamw", "sgd"], float] = {"muon": 0.01, "adamw": 0.003, "sgd": 1.0}
        lr = by_optimizer[config.optimizer.name]
    config = dataclasses.replace(config, batch_size=batch, optimizer=dataclasses.replace(config.optimizer, lr=lr))
    return limited(config, MAX_EPOCHS_BY_DEFAULT * len(data.split("train").tokens)), model, data
