"""What the training of a classifier is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tickwise.core.config import refuse_unused
from tickwise.core.errors import ConfigError
from tickwise.data.examples import ReadExamples
from tickwise.tasks.fine_tune_options import FineTuneOptions
from tickwise.text.augment import AugmentOptions
from tickwise.text.ngrams import LONGEST_NGRAM, NgramSettings
from tickwise.text.segment import has_chinese
from tickwise.training.config import AdaptLoopConfig, LoopConfig, OptimizerOptions, ScheduleOptions

_FEW_TEXTS = 200
LossName = Literal["cross-entropy", "hinge"]


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """What of a text the model sees."""

    word_ngrams: int = 2
    """Longest n-gram of words; 0 takes none."""
    min_characters: int | None = None
    """Shortest n-gram of characters (1 where the training texts are mostly Chinese, else 2)."""
    max_characters: int | None = None
    """Longest n-gram of characters (4 where the training texts are mostly Chinese, else 5); 0 takes none."""
    character_share: float = 1.0
    """How much the n-grams of characters weigh beside the words."""
    segment: bool = True
    """Chinese words are jieba's, not single characters."""
    min_texts: int | None = None
    """A feature that fewer training texts have is left out (1 for up to 200 texts, else 2)."""
    most: int = 1_000_000
    """Of more features, the commonest are kept."""
    idf_power: float = 0.5
    """A feature's weight falls with this power of its inverse document frequency."""

    def __post_init__(self) -> None:
        for name in ("word_ngrams", "min_characters", "max_characters"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= LONGEST_NGRAM:
                flag = f"--features.{name.replace('_', '-')}"
                raise ConfigError(f"{flag}: must be from 0 to {LONGEST_NGRAM}, got {value}")
        if not self.word_ngrams and self.max_characters == 0:
            raise ConfigError("--features.word-ngrams 0 and --features.max-characters 0: nothing of the text is left")

    def fewest_texts(self, n_texts: int) -> int:
        return self.min_texts if self.min_texts is not None else 1 if n_texts <= _FEW_TEXTS else 2

    def ngrams(self, texts: Sequence[str]) -> NgramSettings:
        """The settings, completed for these training texts; ``ConfigError`` for a longest below a shortest n-gram."""
        chinese = sum(map(has_chinese, texts)) > len(texts) / 2
        shortest = self.min_characters if self.min_characters is not None else 1 if chinese else 2
        longest = self.max_characters if self.max_characters is not None else max(4 if chinese else 5, shortest)
        if longest and longest < shortest:
            raise ConfigError(f"--features.max-characters {longest}: is below the shortest n-gram of {shortest}")
        return NgramSettings(self.word_ngrams, shortest, longest, self.segment)


@dataclass(frozen=True, kw_only=True)
class RecurrentOptions:
    """The recurrent classifier (--architecture recurrent) and its training, which has batches, passes and a learning
    rate of its own."""

    kind: Literal["lstm", "gru", "rnn"] = "lstm"
    word_width: int = 100
    """Numbers of a word; those of --vectors, if given."""
    feature_width: int = 25
    """Of a word's shape and affixes, or of pairs of characters."""
    characters: bool = True
    """Words are also spelt out and read by a convolution."""
    hidden: int = 150
    """Features of each direction."""
    n_layers: int = 1
    dropout: float = 0.5
    word_dropout: float = 0.1
    """Share of the words that an update reads as unknown."""
    min_count: int = 2
    """Words that the training texts have less often are read as unknown."""
    batch_size: int = 32
    epochs: float = 10.0
    lr: float = 2e-3

    def __post_init__(self) -> None:
        for name in ("word_width", "feature_width", "hidden", "n_layers", "min_count", "batch_size", "epochs", "lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"--recurrent.{name.replace('_', '-')}: must be positive, got {getattr(self, name)}")
        for name in ("dropout", "word_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--recurrent.{name.replace('_', '-')}: must be in [0, 1), got "
                                  f"{getattr(self, name)}")


_OF_BAGS = ("features", "width", "hidden", "dropout", "feature_dropout", "loss", "max_bytes", "batch_size", "epochs",
            "optimizer", "schedule", "ema_decay")


def unused_settings(config: "ClassifyConfig") -> tuple[str, ...]:
    """Names of the settings that a training of this architecture has no use for."""
    if config.architecture == "recurrent":
        return (*_OF_BAGS, "tuning")
    if config.architecture == "encoder":
        return (*_OF_BAGS, "recurrent", "vectors", "freeze_vectors")
    has_hidden_layer = config.hidden or config.vectors is not None
    return ("recurrent", "tuning") if has_hidden_layer else ("recurrent", "tuning", "dropout")


def refuse_unused_settings(config: "ClassifyConfig") -> None:
    """``ConfigError`` for one of them that was given."""
    where = {"bag": "on --architecture bag" + ("" if config.hidden else " without a hidden layer"),
             "recurrent": "on --architecture recurrent, which has settings of its own (--recurrent. …)",
             "encoder": "on --architecture encoder, which has settings of its own (--tuning. …)"}
    refuse_unused(config, unused_settings(config), where[config.architecture])


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(LoopConfig):
    """One training of a classifier."""

    train: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    text_column: str | None = None
    """Name or number (from 0) of the text's column or key."""
    label_column: str | None = None
    """Name or number (from 0) of the label's column or key."""
    label_until: str | None = None
    """Keep a label's part before this: with : the label COARSE:fine is COARSE."""
    labels: Path | None = None
    """File with a label per line for --train, when that file has a text per line and nothing else."""
    encoding: str = "utf-8"
    test_share: float = 0.0
    """Without --test, hold this share of --train back for it: texts go by their own hash."""
    positive: str | None = None
    """The class that a filter looks for: its precision, recall, F1 and false alarms are reported."""
    threshold: float | None = None
    """Least probability at which a filter says so (0.5)."""
    max_false_alarms: float | None = None
    """Without --threshold: the lowest one at which, with 95 % confidence, at most this share of the other texts would
    be blocked, judged by training texts that the model did not see (needs --folds)."""
    folds: int = 0
    """Cross-validate in so many parts: temperature and threshold then come from all training texts, each judged by a
    model that was trained without it."""
    refit: bool | None = None
    """Train again on training and development part together, for as many passes as were best (by default when --dev
    was left out). Figures of the development part are those of the model before."""

    train_rows: int | None = None
    """Take so many rows of --train, drawn by --seed, the development part's included."""
    architecture: Literal["bag", "recurrent", "encoder"] = "bag"
    """A bag of n-grams (seconds to train), an LSTM over the words in their order (minutes), or --encoder, fine-tuned.
    """
    encoder: Path | None = None
    """Model or run directory of an encoder (tickwise train encoder, or one in BERT's format)."""
    tuning: FineTuneOptions = field(default_factory=FineTuneOptions)
    recurrent: RecurrentOptions = field(default_factory=RecurrentOptions)
    features: FeatureOptions = field(default_factory=FeatureOptions)
    width: int = 0
    """Embedding of each feature for a hidden layer beside the linear part; 0 has none."""
    hidden: int = 0
    """Features of the hidden layer."""
    vectors: Path | None = None
    """Word vectors (a folder of tickwise vectors train, or word2vec's text format) that the words' embeddings start
    from; a bag then has a hidden layer (of --hidden features, 64 if left out) that reads them."""
    freeze_vectors: bool = False
    """Leave the word vectors as they are; what has none is not embedded."""
    dropout: float = 0.3
    """Of the embedding and the hidden layer."""
    feature_dropout: float = 0.3
    """Share of a text's features that an update does not see."""
    loss: LossName = "cross-entropy"
    """Hinge: the squared hinge loss of a support vector machine; best with SGD and --optimizer.weight-decay."""
    class_weights: str = "none"
    """Balanced: every class counts the same, however many texts it has; or LABEL=NUMBER,LABEL=NUMBER …"""
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    epochs: float = 8.0
    """Passes through the training texts, when no other limit is given."""
    find_lr: bool = False
    """Try rising learning rates first and take the steepest one's."""
    max_bytes: int | None = None
    """Also write a quantised model of at most that many bytes, all its files together, to OUT/small. (The dictionary by
    which jieba segments Chinese words is part of the program.)"""

    optimizer: OptimizerOptions = field(default_factory=lambda: OptimizerOptions(
        name="adamw", lr=0.01, weight_decay=0.0, beta2=0.99))
    schedule: ScheduleOptions = field(default_factory=lambda: ScheduleOptions(warmup=0.0, decay=1.0))
    batch_size: int | None = 64
    ema_decay: float | None = 0.995
    dtype: Literal["auto", "fp32", "bf16"] = "fp32"
    compile: Literal["auto", "on", "off"] = "off"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size is None:
            raise ConfigError("--batch-size: give a number of texts")
        if not self.epochs > 0:
            raise ConfigError(f"--epochs: must be positive, got {self.epochs}")
        for name in ("dropout", "feature_dropout", "test_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')}: must be in [0, 1), got {getattr(self, name)}")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigError(f"--threshold: must be between 0 and 1, got {self.threshold}")
        if self.folds == 1 or self.folds < 0:
            raise ConfigError(f"--folds: must be at least 2, or 0 for none, got {self.folds}")
        if self.max_false_alarms is not None:
            if not 0 <= self.max_false_alarms < 1:
                raise ConfigError(f"--max-false-alarms: must be in [0, 1), got {self.max_false_alarms}")
            if not self.folds or self.positive is None:
                raise ConfigError("--max-false-alarms: needs --folds 5, say, and --positive CLASS")
        if self.vectors is not None and self.width:
            raise ConfigError("--width: follows from --vectors; leave it out")
        if self.vectors is None and (self.width > 0) != (self.hidden > 0):
            raise ConfigError("--width and --hidden: give both, or neither")
        if self.freeze_vectors and (self.vectors is None or self.optimizer.weight_decay):
            raise ConfigError("--freeze-vectors: needs --vectors, and --optimizer.weight-decay 0")
        if (self.architecture == "encoder") != (self.encoder is not None):
            raise ConfigError("--architecture encoder and --encoder DIRECTORY: give both, or neither")
        if self.train_rows is not None and self.train_rows < 2:
            raise ConfigError(f"--train-rows: must be at least 2, got {self.train_rows}")
        if self.loss == "hinge" and self.label_smoothing:
            raise ConfigError("--label-smoothing: has no effect on --loss hinge; leave one of them out")

    @property
    def decision(self) -> dict[str, Any]:
        """What a classifier's config says of how it decides."""
        return {"positive": self.positive or "", "threshold": 0.5 if self.threshold is None else self.threshold}

    @property
    def reading(self) -> ReadExamples:
        return ReadExamples(self.text_column, self.label_column, self.label_until, self.encoding)


class AdaptClassifyConfig(ClassifyConfig):
    """What ``tickwise adapt`` asks for: its flags have other names."""

    flags = AdaptLoopConfig.flags
