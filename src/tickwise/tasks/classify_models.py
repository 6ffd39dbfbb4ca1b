"""What the training loop takes for each architecture of classifiers: module, objective, features."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tickwise.core.console import format_bytes, say
from tickwise.core.errors import ConfigError, MemoryLimitError
from tickwise.data.bags import FeatureIndex
from tickwise.data.encoder_inputs import TextIds
from tickwise.data.examples import Examples
from tickwise.data.tag_features import UNKNOWN
from tickwise.data.word_sequences import WordSequences
from tickwise.interop.directory import resolve_model_path
from tickwise.interop.warm_start import headed_encoder
from tickwise.models.bag import Bag, BagConfig
from tickwise.models.encoder_heads import EncoderClassifier, EncoderClassifierConfig
from tickwise.models.recurrent_classifier import RecurrentClassifier, RecurrentClassifierConfig
from tickwise.models.word_vectors import NamedVectors
from tickwise.profiling.machine import memory_bytes
from tickwise.tasks.classifier import class_numbers
from tickwise.tasks.classify_config import ClassifyConfig
from tickwise.text.augment import Synonyms, augmented
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.classification import BagClassification, balanced_weights
from tickwise.training.config import OptimizerOptions, ScheduleOptions
from tickwise.training.encoder_classification import EncoderClassification
from tickwise.training.sequence_classification import SequenceClassification

_HIDDEN_OF_VECTORS = 64
_MUCH_MEMORY = 2**30
_NEIGHBOURS, _NEAREST_COSINE = 5, 0.5


@dataclass(frozen=True)
class Job:
    """A training that has not begun. ``config`` has the architecture's own settings."""

    config: ClassifyConfig
    module: Bag | RecurrentClassifier | EncoderClassifier
    objective: BagClassification | SequenceClassification | EncoderClassification
    assets: FeatureIndex | WordSequences | Tokenizer
    about: str


@dataclass(frozen=True)
class _Augmented(Examples):
    """Training texts and their altered copies."""

    sources: Sequence[int] | None
    """For each text the number of the one that it is or was made of; None where there are no copies."""


def make_job(config: ClassifyConfig, labels: tuple[str, ...], train: Examples, dev: Examples | None,
             vectors: NamedVectors | None) -> Job:
    """A fresh classifier of ``train`` and its objective, validated on ``dev``."""
    texts, names, sources = augmented(train.texts, train.labels, config.augment, config.seed,
                                      synonyms_from(vectors) if vectors is not None else None)
    examples = _Augmented(tuple(texts), tuple(names), train.name, sources if len(texts) > len(train) else None)
    classes = torch.from_numpy(class_numbers(examples, labels))
    dev_classes = torch.from_numpy(class_numbers(dev, labels)) if dev is not None else None
    weights = _example_weights(config.class_weights, classes, labels)
    make = {"bag": _bag_job, "recurrent": _recurrent_job, "encoder": _encoder_job}[config.architecture]
    return make(config, labels, train, examples, classes, dev, dev_classes, weights, vectors)


def _bag_job(config: ClassifyConfig, labels: tuple[str, ...], train: Examples, examples: _Augmented,
             classes: torch.Tensor, dev: Examples | None, dev_classes: torch.Tensor | None,
             weights: torch.Tensor | None, vectors: NamedVectors | None) -> Job:
    options = config.features
    features = FeatureIndex.fit(
        examples.texts, options.ngrams(train.texts), character_share=options.character_share,
        min_texts=options.fewest_texts(len(train)), most=options.most, idf_power=options.idf_power,
        sources=examples.sources,
    )
    width, hidden = config.width, config.hidden
    if vectors is not None:
        width, hidden = vectors.module.config.width, hidden or _HIDDEN_OF_VECTORS
    shape = BagConfig(
        labels=labels, n_features=len(features), width=width, hidden=hidden, dropout=config.dropout,
        frozen=vectors is not None and config.freeze_vectors, **config.decision,
    )
    check_memory(shape, config)
    assert config.batch_size is not None
    objective = BagClassification(
        features.encode(examples.texts), classes,
        (features.encode(dev.texts), dev_classes) if dev is not None and dev_classes is not None else None,
        batch_size=config.batch_size, seed=config.seed, feature_dropout=config.feature_dropout,
        label_smoothing=config.label_smoothing, loss=config.loss, example_weights=weights,
    )
    module = Bag(shape).initialise(config.seed)
    if vectors is not None:
        embedding = module.features.detach()[:, len(labels) :]
        _place(embedding.zero_(), features.word_rows(vectors.words), vectors, absent=-1)
    return Job(config, module, objective, features, f"{len(features):,} features")


def _recurrent_job(config: ClassifyConfig, labels: tuple[str, ...], train: Examples, examples: _Augmented,
                   classes: torch.Tensor, dev: Examples | None, dev_classes: torch.Tensor | None,
                   weights: torch.Tensor | None, vectors: NamedVectors | None) -> Job:
    options = config.recurrent
    words = WordSequences.fit(examples.texts, min_count=options.min_count if len(train) > 200 else 1,
                              sources=examples.sources)
    sizes = words.features.sizes
    word_width = options.word_width if vectors is None else vectors.module.config.width
    module = RecurrentClassifier(RecurrentClassifierConfig(
        labels=labels, feature_sizes=tuple(sizes.values()),
        feature_widths=tuple(word_width if name == "word" else options.feature_width for name in sizes),
        n_characters=words.features.n_characters if options.characters else 0, kind=options.kind,
        hidden=options.hidden, n_layers=options.n_layers, dropout=options.dropout,
        frozen=vectors is not None and config.freeze_vectors, **config.decision,
    )).initialise(config.seed)
    if vectors is not None:
        table = module.embeddings[0].get_parameter("weight").detach()
        if config.freeze_vectors:
            table.zero_()
        _place(table, words.rows(vectors.words), vectors, absent=UNKNOWN)
    objective = SequenceClassification(
        words.encode(examples.texts), classes,
        (words.encode(dev.texts), dev_classes) if dev is not None and dev_classes is not None else None,
        batch_size=options.batch_size, seed=config.seed, word_dropout=options.word_dropout,
        label_smoothing=config.label_smoothing, example_weights=weights,
    )
    if words.n_cut:
        say(f"{words.n_cut:,} texts are longer than {words.longest:,} {words.features.unit}s: their middle is not read")
    own = dataclasses.replace(
        config, batch_size=options.batch_size, epochs=options.epochs,
        optimizer=OptimizerOptions(name="adamw", lr=options.lr, weight_decay=0.0, beta2=0.999),
        schedule=ScheduleOptions(name="wsd", warmup=0.02, decay=0.7), ema_decay=0.998,
    )
    return Job(own, module, objective, words,
               f"a table of {sizes['word']:,} {words.features.unit}s, {module.n_parameters():,} parameters")


def _encoder_job(config: ClassifyConfig, labels: tuple[str, ...], train: Examples, examples: _Augmented,
                 classes: torch.Tensor, dev: Examples | None, dev_classes: torch.Tensor | None,
                 weights: torch.Tensor | None, vectors: NamedVectors | None) -> Job:
    assert config.encoder is not None
    options, folder = config.tuning, resolve_model_path(config.encoder)
    tokenizer = Tokenizer.load(folder)
    module = headed_encoder(EncoderClassifier, EncoderClassifierConfig, folder, config.seed, fresh=options.fresh,
                            labels=labels, dropout=options.dropout, **config.decision)
    reader = TextIds(tokenizer, module.config.context_length)
    objective = EncoderClassification(
        reader.encode(examples.texts), classes,
        (reader.encode(dev.texts), dev_classes) if dev is not None and dev_classes is not None else None,
        reader.marks, batch_size=options.batch_size, seed=config.seed, word_dropout=options.word_dropout,
        label_smoothing=config.label_smoothing, example_weights=weights,
    )
    if reader.n_cut:
        say(f"{reader.n_cut:,} texts are longer than the encoder's {reader.longest:,} tokens and are cut")
    own = dataclasses.replace(config, epochs=options.epochs, ema_decay=None, **options.loop_settings())
    return Job(own, module, objective, tokenizer, f"an encoder of {module.n_parameters():,} parameters")


def _place(table: torch.Tensor, rows: npt.NDArray[np.int64], vectors: NamedVectors, absent: int) -> None:
    """Write each word's vector into its row of ``table``, scaled so that their mean length is 1; of words that share a
    row the first counts."""
    own, first = np.unique(rows, return_index=True)
    own, first = own[own != absent], first[own != absent]
    if not len(own):
        raise ConfigError("--vectors: has none of the words of the training texts")
    chosen = vectors.module.weight.detach()[torch.from_numpy(first)]
    table[torch.from_numpy(own)] = chosen / chosen.norm(dim=1).mean().clamp(min=1e-12)
    say(f"word vectors: {len(own):,} words of the training texts have one")


def synonyms_from(vectors: NamedVectors) -> Synonyms:
    """The neighbours of a word among ``vectors`` whose cosine is at least 0.5, at most five."""

    @functools.cache
    def synonyms(word: str) -> Sequence[str]:
        name = word if word in vectors else word.lower()
        if name not in vectors:
            return ()
        return [near.word for near in vectors.neighbours(name, _NEIGHBOURS) if near.cosine >= _NEAREST_COSINE]

    return synonyms


def check_memory(shape: BagConfig, config: ClassifyConfig) -> None:
    """``MemoryLimitError`` for a matrix that cannot be trained here: it is there once for the weights, the gradients,
    each moment of the optimizer and the average."""
    copies = 2 + {"sgd": 1, "muon": 1, "adamw": 2}[config.optimizer.name] + (config.ema_decay is not None)
    need, (_, free) = 4 * copies * shape.n_features * shape.row_width, memory_bytes()
    if _MUCH_MEMORY < need <= free:
        say(f"{shape.n_features:,} features × {shape.row_width:,} numbers ({len(shape.labels):,} classes) take about "
            f"{format_bytes(need)} to train, and steps take as long; --features.most or --features.min-texts leave "
            "some out")
    if need > free:
        fits = free // (4 * copies * shape.row_width)
        raise MemoryLimitError(
            f"{shape.n_features:,} features × {shape.row_width:,} numbers ({len(shape.labels):,} classes) need about "
            f"{format_bytes(need)} to train, {format_bytes(free)} are free; say --features.most {max(1, fits // 2)}")


def _example_weights(said: str, classes: torch.Tensor, labels: Sequence[str]) -> torch.Tensor | None:
    """What ``--class-weights`` says, for each training text."""
    if said in ("none", "balanced"):
        return balanced_weights(classes, len(labels)) if said == "balanced" else None
    given: dict[int, float] = {}
    for pair in said.split(","):
        label, equals, number = pair.rpartition("=")
        try:
            given[labels.index(label.strip())] = float(number)
        except ValueError:
            raise ConfigError(f"--class-weights {pair}: say none, balanced, or LABEL=NUMBER for labels among "
                              f"{', '.join(labels[:10])}") from None
        if not equals or not given[labels.index(label.strip())] > 0:
            raise ConfigError(f"--class-weights {pair}: the number must be positive")
    return balanced_weights(classes, len(labels), given)


def resolved(job: Job, passes: float | None) -> ClassifyConfig:
    """Limits and intervals in steps, where they were not given; ``passes`` through the texts replace all limits."""
    config, steps = job.config, job.objective.steps_per_epoch
    changes: dict[str, Any] = {"evaluate_every": config.evaluate_every or steps}
    if passes is not None:
        changes |= {"max_steps": max(1, round(passes * steps)), "max_tokens": None, "max_seconds": None,
                    "patience": None, "stop_at_loss": None}
    elif all(limit is None for limit in (config.max_steps, config.max_tokens, config.max_seconds)):
        changes["max_steps"] = max(1, round(config.epochs * steps))
    return dataclasses.replace(config, **changes)
