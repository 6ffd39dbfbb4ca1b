"""Making a classifier of texts: split, train, choose, calibrate, cross-validate, train anew, evaluate, shrink."""

import dataclasses
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tickwise.core.console import format_bytes, say
from tickwise.core.device import resolve_device
from tickwise.core.errors import ConfigError, DataError, MemoryLimitError
from tickwise.core.memory import is_out_of_memory
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
from tickwise.evaluation.calibration import decide, fit_temperature, most_above, softmax, threshold_for
from tickwise.evaluation.classification import ClassificationResult, evaluate_classes
from tickwise.interop.directory import read_run
from tickwise.interop.word_vectors import load_word_vectors
from tickwise.models.word_vectors import NamedVectors
from tickwise.tasks.classifier import BagClassifier, Classifier, class_numbers
from tickwise.tasks.classify_config import ClassifyConfig, refuse_unused_settings
from tickwise.tasks.classify_models import Job, make_job, resolved
from tickwise.training.distributed.ranks import is_leader
from tickwise.training.run import TrainResult, check_outputs, replace_run, train_module

_DEV_SHARE = 0.1
_FEWEST_FOR_DEV = 20
_FEWEST_TO_CALIBRATE = 50
_NAMED = 5
_MUCH_FOUND = 0.1
"""Of a class, more than which a single text of another class may hardly cost."""


@dataclass(frozen=True)
class ClassifyData:
    """The parts of one training, no text in two of them."""

    train: Examples
    dev: Examples | None
    test: Examples | None
    labels: tuple[str, ...]


def open_examples(config: ClassifyConfig) -> ClassifyData:
    """Read and split: texts of --test leave --dev, texts of both leave --train; repeated texts leave them too.

    Raises ``DataError`` for data that no classifier can learn from, or with labels to evaluate on that it does not
    learn.
    """
    reading = config.reading
    train = read_examples(config.train, reading, labels=config.labels)
    parts = {"train": train}
    if config.dev:
        parts["dev"] = read_examples(config.dev, reading, split="validation")
    if config.test:
        parts["test"] = read_examples(config.test, reading, split="test")
    parts = dict(zip(parts, unify_labels(list(parts.values())), strict=True))
    test, dev = parts.get("test"), parts.get("dev")
    if dev is not None:
        dev = without_texts(distinct_texts(dev), [test] if test is not None else [])
    train = without_texts(distinct_texts(parts["train"]), [part for part in (dev, test) if part is not None])
    if config.train_rows is not None and config.train_rows < len(train):
        chosen = np.random.default_rng(config.seed).choice(len(train), config.train_rows, replace=False)
        train = train.take(np.sort(chosen).tolist())
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
    elif len(dev) < _FEWEST_TO_CALIBRATE and not config.folds:
        say(f"only {len(dev):,} development texts: probabilities are calibrated on these few; take them with caution")
    labels = tuple(sorted(counts))
    for part in (dev, test):
        if part is not None:
            class_numbers(part, labels)
    return ClassifyData(train, dev, test, labels)


@dataclass(frozen=True)
class ClassifyResult:
    """What one training gave. ``test`` is None without a test part; ``small`` are the quantised model's figures."""

    classifier: Classifier | None
    """None of a rank that does not lead."""
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


def train_classifier(config: ClassifyConfig, task: str = "classify", trace: Path | None = None) -> ClassifyResult:
    """Train, choose the best by the development part, calibrate, train again on both parts, evaluate; everything lies
    in ``config.out``, and a trace of the training that the model is from at ``trace``, if that is given.

    Raises a ``UserError`` for data and settings that cannot work.
    """
    refuse_unused_settings(config)
    check_outputs(config, trace)
    data = open_examples(config)
    if config.positive is not None and config.positive not in data.labels:
        raise ConfigError(f"--positive {config.positive}: not a class; the data has {', '.join(data.labels[:10])}")
    vectors = load_word_vectors(config.vectors) if config.vectors is not None else None
    refit = data.dev is not None and (config.refit if config.refit is not None else not config.dev)
    first = dataclasses.replace(config, out=config.out / "selection") if refit else config
    if refit:
        replace_run(config)
    part = _train(first, data, data.train, data.dev, vectors, trace=None if refit else trace)
    if part.trained.interrupted or not (is_leader() or refit or config.folds):
        return _unfinished(part.trained, config.device)
    classifier = Classifier.load(part.trained.model, device=config.device)
    dev = folds = passes = None
    if data.dev is not None:
        classes = class_numbers(data.dev, data.labels)
        classifier = classifier.with_config(temperature=fit_temperature(classifier.logits(data.dev.texts), classes))
        dev, passes = classifier.evaluate(data.dev, f"{task}_dev", fitted=True), part.best_passes
    settings: dict[str, Any] = {"temperature": classifier.module.config.temperature}
    everything = data.train if data.dev is None else joined(data.train, data.dev)
    if config.folds:
        numbers = stratified_folds(everything, config.folds, config.seed)
        logits = np.zeros((len(everything), len(data.labels)))
        for fold in range(config.folds):
            own = np.flatnonzero(numbers == fold).tolist()
            others = everything.take(np.flatnonzero(numbers != fold).tolist())
            where = dataclasses.replace(config, out=config.out / "folds" / str(fold + 1), patience=None,
                                        stop_at_loss=None)
            trained = _train(where, data, others, None, vectors, passes, part.found_lr).trained
            if trained.interrupted:
                return _unfinished(trained, config.device)
            judge = Classifier.load(trained.model, device=config.device)
            logits[own] = judge.logits([everything.texts[i] for i in own])
        settings, folds = _from_folds(config, logits, everything, data.labels, task)
    if refit:
        part = _train(config, data, everything, None, vectors, passes, part.found_lr, trace)
        if part.trained.interrupted or not is_leader():
            return _unfinished(part.trained, config.device)
        classifier = Classifier.load(part.trained.model, device=config.device)
    return _finish(config, data, part.trained, classifier.with_config(**settings), dev, folds, task, refit)


def _unfinished(trained: TrainResult, device: str) -> ClassifyResult:
    """Of an interrupted training; of ranks that do not lead, whose leader finishes the model."""
    classifier = Classifier.load(trained.out, device=device) if is_leader() else None
    return ClassifyResult(classifier, trained, None, None, None, None, None,
                          "an interrupted run" if trained.interrupted else "the leading rank finishes the model")


@dataclass(frozen=True)
class _Part:
    """One of the trainings that make a classifier."""

    trained: TrainResult
    steps_per_epoch: int
    found_lr: float | None
    """By --find-lr."""

    @property
    def best_passes(self) -> float:
        """Passes through the texts up to the best validation."""
        return self.trained.best_step / self.steps_per_epoch


def _train(config: ClassifyConfig, data: ClassifyData, train: Examples, dev: Examples | None,
           vectors: NamedVectors | None, passes: float | None = None, found_lr: float | None = None,
           trace: Path | None = None) -> _Part:
    """One training on ``train``, chosen by ``dev`` if there is one; ``passes`` through the texts instead of the
    config's limits, at the rate ``found_lr`` that they were chosen at."""
    try:
        job = make_job(config, data.labels, train, dev, vectors)
        return _train_job(config, data, job, train, dev, passes, found_lr, trace)
    except (MemoryError, RuntimeError) as problem:
        if config.architecture != "bag" or not is_out_of_memory(problem):
            raise
        raise MemoryLimitError(
            f"out of memory: a bag has a number for each feature and each of the {len(data.labels):,} classes; say "
            "--features.most NUMBER or --features.min-texts NUMBER for fewer features") from None


def _train_job(config: ClassifyConfig, data: ClassifyData, job: Job, train: Examples, dev: Examples | None,
               passes: float | None, found_lr: float | None, trace: Path | None) -> _Part:
    own = resolved(job, passes)
    if config.find_lr:
        found_lr = _found_lr(own, job) if found_lr is None else found_lr
        own = dataclasses.replace(own, optimizer=dataclasses.replace(own.optimizer, lr=found_lr))
    n_dev, n_test = (len(part) if part is not None else 0 for part in (dev, data.test))
    trained = train_module(
        own, job.module, job.objective, job.assets,
        data={"source": train.name, "fingerprint": train.fingerprint(), "train_texts": len(train),
              "dev_texts": n_dev, "test_texts": n_test, "classes": len(data.labels)},
        lines=[f"{len(train):,} training texts of {len(data.labels):,} classes, {job.about}; {n_dev:,} texts to choose "
               f"by, {n_test:,} to test on"],
        trace=trace, wants_last=train is not data.train,
    )
    return _Part(trained, job.objective.steps_per_epoch, found_lr)


def _from_folds(config: ClassifyConfig, logits: npt.NDArray[np.float64], everything: Examples,
                labels: tuple[str, ...], task: str) -> tuple[dict[str, Any], ClassificationResult]:
    """Temperature and threshold by texts that were left out, and how well those were classified."""
    classes = class_numbers(everything, labels)
    temperature = fit_temperature(logits, classes)
    probabilities = softmax(logits, temperature)
    settings: dict[str, Any] = {"temperature": temperature}
    predicted = None
    if config.positive is not None:
        positive, threshold = labels.index(config.positive), config.decision["threshold"]
        if config.max_false_alarms is not None and config.threshold is None:
            threshold = threshold_for(probabilities[classes != positive, positive], config.max_false_alarms)
            _say_what_sets_it(threshold, config.max_false_alarms, probabilities[:, positive], classes == positive,
                              everything, config.positive)
        settings["threshold"] = threshold
        predicted = decide(probabilities, positive, threshold)
    return settings, evaluate_classes(probabilities, classes, labels, task=f"{task}_folds", predicted=predicted,
                                      positive=config.positive, fitted=True)


def _say_what_sets_it(threshold: float, max_false_alarms: float, probabilities_N: npt.NDArray[np.float64],
                      is_positive_N: npt.NDArray[np.bool_], everything: Examples, positive: str) -> None:
    """Which texts of other classes set the threshold, where much more would be found without any one of them: it may
    have the wrong label. These are the false alarms that are allowed, and the one text more that is not."""
    others = np.flatnonzero(~is_positive_N)
    ranked = others[np.argsort(-probabilities_N[others], kind="stable")]
    if len(ranked) < 2:
        return
    rest = threshold_for(probabilities_N[ranked[1:]], max_false_alarms)
    found, without = (float((probabilities_N[is_positive_N] >= one).mean()) for one in (threshold, rest))
    if without - found <= _MUCH_FOUND:
        return
    ranked = ranked[: most_above(len(ranked), max_false_alarms) + 1]
    named = "; ".join(f"'{' '.join(everything.texts[i].split())[:60]} …' ({everything.labels[i]})"
                      for i in ranked[:_NAMED])
    who = "one text sets" if len(ranked) == 1 else f"{len(ranked)} texts set"
    say(f"{who} the threshold at {threshold:.4f}, where {found:.0%} of {positive} are found; with one such text less "
        f"they would be {without:.0%}. Look at the labels: {named}")


def _found_lr(config: ClassifyConfig, job: Job) -> float:
    from tickwise.training.lr_finder import find_learning_rate

    found = find_learning_rate(job.module, job.objective, config.optimizer, resolve_device(config.device))
    say(f"learning rate {found.lr:.3g}: the loss fell fastest there, of {found.tried[0]:.1g} to {found.tried[-1]:.1g}")
    return found.lr


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
        assert isinstance(classifier, BagClassifier)
        folder = config.out / "small"
        little, small_bytes = _save_small(classifier, folder, run, config.max_bytes)
        say(f"{folder}: {len(little.features):,} features in {format_bytes(small_bytes)}")
        part = data.test if data.test is not None else data.dev
        small = little.evaluate(part, f"{task}_small") if part is not None else None
    return ClassifyResult(classifier, trained, dev, folds, test, small, small_bytes,
                          _trained_on(data, refit, folds is not None))


def _save_small(classifier: BagClassifier, folder: Path, run: dict[str, Any], max_bytes: int,
                ) -> tuple[BagClassifier, int]:
    """The quantised classifier, saved in ``folder``, and the bytes of its files: at most ``max_bytes``. What stands
    beside the features is known when it is written: what it takes too much, the features are given less."""
    aim, taken = max_bytes, max_bytes + 1
    try:
        while taken > max_bytes:
            little = classifier.quantised(aim)
            little.save(folder, run)
            taken = sum(file.stat().st_size for file in folder.iterdir())
            aim -= taken - max_bytes
    except ConfigError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return little, taken


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
