"""Classifying texts: train on labelled texts, predict with calibrated probabilities, say which words decided."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tickwise.core.console import format_bytes, say
from tickwise.core.device import resolve_device
from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.data.bags import FeatureIndex
from tickwise.data.examples import (
    Examples,
    distinct_texts,
    joined,
    read_examples,
    split_examples,
    stratified_folds,
    unify_labels,
    without_texts,
)
from tickwise.evaluation.calibration import decide, fit_temperature, softmax, threshold_for
from tickwise.evaluation.classification import ClassificationResult, evaluate_classes
from tickwise.interop.directory import load_module, read_run, resolve_model_path, save_model
from tickwise.models.bag import Bag, BagConfig, product_quantise
from tickwise.tasks.classify_config import ClassifyConfig
from tickwise.text.augment import augmented
from tickwise.text.ngrams import Family, NgramSettings, ngrams
from tickwise.training.classification import BagClassification, balanced_weights, classify_bags
from tickwise.training.run import TrainResult, check_outputs, train_module

_DEV_SHARE = 0.1
_FEWEST_FOR_DEV = 20


@dataclass(frozen=True)
class Prediction:
    """The class of a text, its probability, and every class's."""

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Word:
    """A piece of a text by its characters, and how much it spoke for the class (logits; against it below 0)."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Explanation:
    """Which words drove a decision. ``words`` lie one after the other; spaces belong to none."""

    text: str
    label: str
    probability: float
    words: tuple[Word, ...]

    def strongest(self, n: int) -> list[tuple[str, float]]:
        """The n different words of the largest effect, for or against."""
        total: dict[str, float] = {}
        for word in self.words:
            name = self.text[word.start : word.end]
            total[name] = total.get(name, 0.0) + word.score
        return sorted(total.items(), key=lambda item: -abs(item[1]))[:n]


class Classifier:
    """A trained classifier. ``predict`` and ``explain`` take texts; ``load`` reads a model or run directory.

    >>> classifier = Classifier.load("out/topics")            # doctest: +SKIP
    >>> classifier.predict(["stocks fell again"])[0].label     # doctest: +SKIP
    'Business'
    """

    def __init__(self, module: Bag, features: FeatureIndex, path: Path | None = None) -> None:
        self.module, self.features, self.path = module.eval(), features, path

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> "Classifier":
        """Raises ``CheckpointError`` for a directory that holds no classifier, or a damaged one."""
        folder = resolve_model_path(Path(path))
        module = load_module(folder, device=device)
        if not isinstance(module, Bag):
            raise CheckpointError(f"{path}: not a classifier of bags but a {type(module).__name__}; train one with "
                                  "tickwise run classify --train FILE --out DIRECTORY")
        features = FeatureIndex.load(folder)
        if len(features) != module.config.n_features:
            raise CheckpointError(f"{folder}: {len(features):,} features, but the model has rows for "
                                  f"{module.config.n_features:,}; they do not belong together")
        return cls(module, features, folder)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.module.config.labels

    @property
    def device(self) -> torch.device:
        return self.module.bias.device

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, C), not divided by the temperature."""
        logits = classify_bags(self.module, self.features.encode(texts), self.device)
        return logits.reshape(len(texts), len(self.labels)).numpy().astype(np.float64)

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, C), calibrated."""
        return softmax(self.logits(texts), self.module.config.temperature)

    def classes(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """(N,) what the probabilities decide: the likeliest class, or a filter's by its threshold."""
        config = self.module.config
        if not config.positive:
            return probabilities.argmax(axis=1)
        return decide(probabilities, self.labels.index(config.positive), config.threshold)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order. A text without any known feature gets what the labels' shares say."""
        probabilities = self.probabilities(texts)
        return [Prediction(self.labels[c], float(row[c]), dict(zip(self.labels, map(float, row), strict=True)))
                for c, row in zip(self.classes(probabilities), probabilities, strict=True)]

    def explain(self, text: str, label: str | None = None) -> Explanation:
        """The words that spoke for ``label`` (the predicted class by default): gradient × input of each feature on the
        class's logit less the mean of the others', shared out to the characters that the feature stands for."""
        prediction = self.predict([text])[0]
        label = prediction.label if label is None else label
        if label not in self.labels:
            raise ConfigError(f"no class '{label}'; the model has {', '.join(self.labels[:10])}")
        bag = self.features.encode([text])
        weights = bag.weights.to(self.device).requires_grad_()
        target = self.labels.index(label)
        with torch.enable_grad():
            logits = self.module(bag.rows.to(self.device), weights, bag.offsets[:-1].to(self.device))[0]
            others = (logits.sum() - logits[target]) / (len(self.labels) - 1)
            gradient, = torch.autograd.grad(logits[target] - others, weights)
        effect = (gradient * weights).detach().cpu().double().numpy()
        found = self.features.occurrences(text)
        place = np.searchsorted(bag.rows.numpy(), found.rows)  # rows of one text are distinct and rising
        share = effect[place] / np.bincount(place, minlength=len(effect))[place] if len(place) else effect
        length = np.maximum(found.end - found.start, 1)
        steps = np.zeros(len(text) + 1)
        np.add.at(steps, found.start, share / length)
        np.add.at(steps, np.minimum(found.start + length, len(text)), -share / length)
        totals = np.concatenate(([0.0], np.cumsum(np.cumsum(steps[:-1]))))
        units = _units(text, self.features.settings)
        words = tuple(Word(a, b, float(totals[b] - totals[a])) for a, b in units)
        return Explanation(text, label, prediction.probabilities[label], words)

    def evaluate(self, examples: Examples, task: str, *, bootstrap_samples: int = 1000,
                 seed: int = 0) -> ClassificationResult:
        """Metrics with intervals on labelled texts; ``DataError`` for labels that the model does not know."""
        classes = class_numbers(examples, self.labels)
        probabilities = self.probabilities(examples.texts)
        return evaluate_classes(
            probabilities, classes, self.labels, task=task, predicted=self.classes(probabilities),
            positive=self.module.config.positive or None, bootstrap_samples=bootstrap_samples, seed=seed,
        )

    def save(self, folder: Path, run: dict[str, Any] | None = None) -> None:
        """Write a model directory, whole or not at all."""
        save_model(folder, self.module, self.features, run=run, card=_card(self))

    def with_config(self, **changes: Any) -> "Classifier":
        """The same weights under a config with these fields changed."""
        module = Bag(dataclasses.replace(self.module.config, **changes))
        module.load_state_dict(self.module.state_dict(), assign=True)
        return Classifier(module.requires_grad_(False), self.features, None)

    def quantised(self, max_bytes: int) -> "Classifier":
        """A product-quantised classifier whose files take at most ``max_bytes``: features with the largest rows are
        kept (Joulin et al. 2016), each row is a few bytes that name centroids. ``ConfigError`` when even the smallest
        is larger."""
        config = self.module.config
        if config.code_bytes:
            raise ConfigError("the model is quantised already")
        code_bytes = _code_bytes(config.row_width)
        overhead = 20_000 + sum(p.numel() for n, p in self.module.named_parameters() if n != "features") * 4 \
            + 256 * config.row_width * 4 + sum(len(label.encode()) + 8 for label in self.labels)
        most = (max_bytes - overhead) // (4 + 1 + code_bytes)
        if most < 1:
            raise ConfigError(f"--max-bytes {max_bytes:,}: a quantised model of this shape takes {overhead:,} bytes "
                              "before its first feature")
        rows = self.module.features.detach()
        centred = rows.clone()  # what all classes share decides nothing
        centred[:, : len(self.labels)] -= centred[:, : len(self.labels)].mean(1, keepdim=True)
        effect = centred.norm(dim=1) * torch.from_numpy(self.features.weights)
        kept = effect.argsort(descending=True, stable=True)[: min(most, len(rows))].sort().values
        codes, codebooks = product_quantise(centred[kept], code_bytes)
        module = Bag(dataclasses.replace(config, n_features=len(kept), code_bytes=code_bytes))
        state = {n: p for n, p in self.module.state_dict().items() if n != "features"}
        module.load_state_dict(state | {"codes": codes, "codebooks": codebooks}, assign=True)
        return Classifier(module.requires_grad_(False), self.features.pruned(kept.numpy()).quantised())


def _code_bytes(row_width: int) -> int:
    """Bytes of a row: parts of at most four numbers each, all of one size."""
    return next(n for n in range(-(-row_width // 4), row_width + 1) if row_width % n == 0)


def _units(text: str, settings: NgramSettings) -> list[tuple[int, int]]:
    """Where the words, characters and marks of ``text`` stand."""
    found = ngrams([text], NgramSettings(1, 0, 0, settings.segment))
    own = found.key >> 30 == Family.WORD
    return list(zip(found.start[own].tolist(), found.end[own].tolist(), strict=True))


def class_numbers(examples: Examples, labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """(N,) each example's number among ``labels``; a label that differs in case only counts as the same."""
    number = {label.casefold(): i for i, label in enumerate(labels)}
    unknown = Counter(label for label in examples.labels if label.casefold() not in number)
    if unknown:
        shown = ", ".join(f"'{label}'" for label in list(unknown)[:5])
        raise DataError(f"{examples.name}: {sum(unknown.values()):,} rows have labels that the training data does not: "
                        f"{shown}; it has {', '.join(labels[:10])}{' …' if len(labels) > 10 else ''}")
    return np.array([number[label.casefold()] for label in examples.labels], dtype=np.int64)


@dataclass(frozen=True)
class ClassifyData:
    """The parts of one training, no text in two of them."""

    train: Examples
    dev: Examples | None
    test: Examples | None
    labels: tuple[str, ...]


def open_examples(config: ClassifyConfig) -> ClassifyData:
    """Read and split: texts of --dev and --test leave --train; repeated texts leave it too.

    Raises ``DataError`` for data that no classifier can learn from.
    """
    reading = config.reading
    train = read_examples(config.train, reading, labels=config.labels)
    parts = {"train": train}
    if config.dev:
        parts["dev"] = read_examples(config.dev, reading, split="validation")
    if config.test:
        parts["test"] = read_examples(config.test, reading, split="test")
    parts = dict(zip(parts, unify_labels(list(parts.values())), strict=True))
    train = distinct_texts(parts["train"])
    train = without_texts(train, [part for name, part in parts.items() if name != "train"])
    test, dev = parts.get("test"), parts.get("dev")
    if test is None and config.test_share:
        train, test = split_examples(train, config.test_share, "test")
    if dev is None and len(train) >= _FEWEST_FOR_DEV:
        train, dev = split_examples(train, _DEV_SHARE, "dev")
    counts = Counter(train.labels)
    if len(counts) < 2:
        raise DataError(f"{train.name}: only one class, '{next(iter(counts), '')}'; a classifier needs texts of at "
                        "least two")
    lone = sum(count == 1 for count in counts.values())
    if lone:
        say(f"{lone:,} of {len(counts):,} classes have a single training text; expect little of them")
    dev, test = (part if part is not None and len(part) else None for part in (dev, test))
    if dev is None:
        say("too few texts for a development part: nothing to stop early by, probabilities stay uncalibrated")
    labels = tuple(sorted(counts))
    return ClassifyData(train, dev, test, labels)


@dataclass(frozen=True)
class ClassifyResult:
    """What one training gave. ``test`` is None without a test part; ``small`` are the quantised model's figures."""

    classifier: Classifier
    trained: TrainResult
    dev: ClassificationResult | None
    """Of the model that did not train on the development part."""
    folds: ClassificationResult | None
    """Of the models of the cross-validation, each on the texts that it did not train on."""
    test: ClassificationResult | None
    small: ClassificationResult | None
    small_bytes: int | None
    trained_on: str
    """In words, what the model and its temperature were fitted to."""


def train_classifier(config: ClassifyConfig, task: str = "classify") -> ClassifyResult:
    """Train, choose the best by the development part, calibrate, train again on both parts, evaluate; everything lies
    in ``config.out``.

    Raises a ``UserError`` for data and settings that cannot work.
    """
    check_outputs(config)
    data = open_examples(config)
    if config.positive is not None and config.positive not in data.labels:
        raise ConfigError(f"--positive {config.positive}: not a class; the data has {', '.join(data.labels[:10])}")
    refit = data.dev is not None and (config.refit if config.refit is not None else not config.dev)
    first = dataclasses.replace(config, out=config.out / "selection") if refit else config
    trained = _train(first, data, data.train, data.dev)
    if trained.interrupted:
        return _unfinished(trained, config)
    classifier = Classifier.load(trained.model, device=config.device)
    dev = folds = None
    if data.dev is not None:
        classes = class_numbers(data.dev, data.labels)
        classifier = classifier.with_config(temperature=fit_temperature(classifier.logits(data.dev.texts), classes))
        dev = classifier.evaluate(data.dev, f"{task}_dev")
    settings: dict[str, Any] = {"temperature": classifier.module.config.temperature}
    everything = data.train if data.dev is None else joined(data.train, data.dev)
    passes = trained.best_step / _steps_per_epoch(config, len(data.train)) if data.dev is not None else None
    if config.folds:
        logits = _out_of_fold(config, data, everything, passes)
        if logits is None:
            return _unfinished(trained, config)
        settings, folds = _from_folds(config, logits, class_numbers(everything, data.labels), data.labels, task)
    if refit:
        trained = _train(config, data, everything, None, passes)
        if trained.interrupted:
            return _unfinished(trained, config)
        classifier = Classifier.load(trained.model, device=config.device)
    return _finish(config, data, trained, classifier.with_config(**settings), dev, folds, task, refit)


def _unfinished(trained: TrainResult, config: ClassifyConfig) -> ClassifyResult:
    classifier = Classifier.load(trained.out, device=config.device)
    interrupted = dataclasses.replace(trained, interrupted=True)
    return ClassifyResult(classifier, interrupted, None, None, None, None, None, "an interrupted run")


def _steps_per_epoch(config: ClassifyConfig, n_texts: int) -> int:
    assert config.batch_size is not None
    n_texts *= 1 + config.augment.copies
    return max(1, n_texts // min(config.batch_size, n_texts))


def _train(config: ClassifyConfig, data: ClassifyData, train: Examples, dev: Examples | None,
           passes: float | None = None) -> TrainResult:
    """One training on ``train``, chosen by ``dev`` if there is one; ``passes`` through the texts instead of the
    config's limits."""
    options = config.features
    texts, names = augmented(train.texts, train.labels, config.augment, config.seed)
    features = FeatureIndex.fit(
        train.texts, options.ngrams(train.texts), character_share=options.character_share,
        min_texts=options.fewest_texts(len(train)), most=options.most, idf_power=options.idf_power,
    )
    classes = torch.from_numpy(class_numbers(Examples(tuple(texts), tuple(names), train.name), data.labels))
    validation = None
    if dev is not None:
        validation = features.encode(dev.texts), torch.from_numpy(class_numbers(dev, data.labels))
    assert config.batch_size is not None
    objective = BagClassification(
        features.encode(texts), classes, validation, batch_size=config.batch_size, seed=config.seed,
        feature_dropout=config.feature_dropout, label_smoothing=config.label_smoothing, loss=config.loss,
        example_weights=_example_weights(config.class_weights, classes, data.labels),
    )
    module = Bag(BagConfig(
        labels=data.labels, n_features=len(features), width=config.width, hidden=config.hidden, dropout=config.dropout,
        positive=config.positive or "", threshold=config.threshold,
    )).initialise(config.seed)
    resolved = _resolve(config, objective, passes)
    if config.find_lr:
        resolved = _with_found_lr(resolved, module, objective)
    return train_module(
        resolved, module, objective, features,
        data={"source": train.name, "fingerprint": train.fingerprint(), "train_texts": len(train),
              "dev_texts": len(dev) if dev else 0, "test_texts": len(data.test) if data.test else 0,
              "classes": len(data.labels)},
        lines=[f"{len(train):,} training texts of {len(data.labels):,} classes, {len(features):,} features; "
               f"{len(dev) if dev else 0:,} texts to choose by, {len(data.test) if data.test else 0:,} to "
               "test on"],
    )


def _out_of_fold(config: ClassifyConfig, data: ClassifyData, examples: Examples,
                 passes: float | None) -> npt.NDArray[np.float64] | None:
    """(N, C) logits of each text by the model that was trained on the other folds; None when interrupted."""
    numbers = stratified_folds(examples, config.folds, config.seed)
    logits = np.zeros((len(examples), len(data.labels)))
    for fold in range(config.folds):
        own = np.flatnonzero(numbers == fold)
        others = examples.take(np.flatnonzero(numbers != fold).tolist())
        part = dataclasses.replace(config, out=config.out / "folds" / str(fold + 1), patience=None, stop_at_loss=None)
        trained = _train(part, data, others, None, passes)
        if trained.interrupted:
            return None
        logits[own] = Classifier.load(trained.model, device=config.device).logits([examples.texts[i] for i in own])
    return logits


def _from_folds(config: ClassifyConfig, logits: npt.NDArray[np.float64], classes: npt.NDArray[np.int64],
                labels: tuple[str, ...], task: str) -> tuple[dict[str, Any], ClassificationResult]:
    """Temperature and threshold by texts that were left out, and how well those were classified."""
    temperature = fit_temperature(logits, classes)
    probabilities = softmax(logits, temperature)
    settings: dict[str, Any] = {"temperature": temperature}
    predicted = None
    if config.positive is not None:
        positive, threshold = labels.index(config.positive), config.threshold
        if config.max_false_alarms is not None:
            threshold = threshold_for(probabilities[classes != positive, positive], config.max_false_alarms)
        settings["threshold"] = threshold
        predicted = decide(probabilities, positive, threshold)
    return settings, evaluate_classes(probabilities, classes, labels, task=f"{task}_folds", predicted=predicted,
                                      positive=config.positive)


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


def _resolve(config: ClassifyConfig, objective: BagClassification, passes: float | None) -> ClassifyConfig:
    """Limits and intervals in steps, where they were not given."""
    steps, limits = objective.steps_per_epoch, (config.max_steps, config.max_tokens, config.max_seconds)
    changes: dict[str, Any] = {"evaluate_every": config.evaluate_every or steps}
    if passes is not None:
        changes |= {"max_steps": max(1, round(passes * steps)), "max_tokens": None, "max_seconds": None,
                    "patience": None, "stop_at_loss": None}
    elif all(limit is None for limit in limits):
        changes["max_steps"] = max(1, round(config.epochs * steps))
    return dataclasses.replace(config, **changes)


def _with_found_lr(config: ClassifyConfig, module: Bag, objective: BagClassification) -> ClassifyConfig:
    from tickwise.training.lr_finder import find_learning_rate

    found = find_learning_rate(module, objective, config.optimizer, resolve_device(config.device))
    say(f"learning rate {found.lr:.3g}: the loss fell fastest there, of {found.tried[0]:.1g} to {found.tried[-1]:.1g}")
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, lr=found.lr))


def _finish(config: ClassifyConfig, data: ClassifyData, trained: TrainResult, classifier: Classifier,
            dev: ClassificationResult | None, folds: ClassificationResult | None, task: str,
            refit: bool) -> ClassifyResult:
    """Save the calibrated model, evaluate it and its small version."""
    run = read_run(trained.model)
    classifier.save(trained.model, run)
    classifier.path = trained.model
    test = classifier.evaluate(data.test, f"{task}_test") if data.test is not None else None
    small, small_bytes = None, None
    if config.max_bytes is not None:
        little = classifier.quantised(config.max_bytes)
        folder = config.out / "small"
        little.save(folder, run)
        small_bytes = sum(file.stat().st_size for file in folder.iterdir())
        say(f"{folder}: {len(little.features):,} features in {format_bytes(small_bytes)}")
        part = data.test if data.test is not None else data.dev
        small = little.evaluate(part, f"{task}_small") if part is not None else None
    return ClassifyResult(classifier, trained, dev, folds, test, small, small_bytes,
                          _trained_on(data, refit, folds is not None))


def _trained_on(data: ClassifyData, refit: bool, folds: bool) -> str:
    n_train, n_dev = len(data.train), len(data.dev) if data.dev is not None else 0
    if not n_dev:
        model = f"weights: all {n_train:,} training texts"
    elif refit:
        model = (f"passes: chosen on {n_dev:,} development texts after training on {n_train:,}; "
                 f"weights: trained anew on all {n_train + n_dev:,}")
    else:
        model = f"weights: {n_train:,} training texts, the best of the run on {n_dev:,} development texts"
    fitted = "temperature and threshold: cross-validation on these texts" if folds else (
        "temperature: the development texts" + (", by the model before" if refit else "") if n_dev else
        "temperature: none")
    return f"{model}; {fitted}"


def _card(classifier: Classifier) -> str:
    config = classifier.module.config
    labels = ", ".join(config.labels[:20]) + (" …" if len(config.labels) > 20 else "")
    return (f"# A text classifier\n\n{len(config.labels):,} classes: {labels}.\n\nBag of {config.n_features:,} words, "
            "word n-grams and character n-grams; see run.json for the data and the exact command.\n\n"
            "```\ntickwise run classify DIRECTORY \"a text\"\n```\n")
