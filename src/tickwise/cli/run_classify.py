"""Classify texts: train on labelled texts, evaluate, predict with calibrated probabilities, say which words decided."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tickwise.cli.task_flags import TaskArguments, answer_texts, check_task, refuse_blank, texts_progress
from tickwise.core.config import refuse_unused
from tickwise.core.console import format_bytes, say
from tickwise.core.errors import ConfigError, UserError
from tickwise.core.paths import write_text_atomic
from tickwise.core.stages import marking
from tickwise.tasks.classify_config import (
    ClassifyConfig,
    FeatureOptions,
    LossName,
    refuse_unused_settings,
    unused_settings,
)
from tickwise.training.config import OptimizerOptions

if TYPE_CHECKING:
    from tickwise.evaluation.classification import ClassificationResult, Comparison
    from tickwise.tasks.classifier import Classifier, Explanation, Prediction
    from tickwise.tasks.classify import ClassifyResult

_METRIC_NAMES = {
    "acc": "accuracy", "f1_macro": "F1, mean of classes", "precision_macro": "precision, mean of classes",
    "recall_macro": "recall, mean of classes", "mcc": "Matthews correlation", "precision": "precision",
    "recall": "recall", "f1": "F1", "ece": "calibration error (ECE)", "loss": "loss (nats)", "brier": "Brier score",
}
_OF_CALIBRATION = ("ece", "loss", "brier")
_MOST_CLASSES_SHOWN = 20
_OF_TRAININGS = tuple(sorted({field.name for field in dataclasses.fields(ClassifyConfig)} - {
    "train", "dev", "test", "out", "text_column", "label_column", "label_until", "labels", "encoding", "device", "seed",
    "positive", "threshold"}))
"""Settings that a model which is there has no use for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classify(TaskArguments, ClassifyConfig):
    """Put texts into classes of your own.

    Train and evaluate:  tickwise run classify --train FILE --out DIRECTORY
    Use:                 tickwise run classify DIRECTORY "a text"
    """

    task: ClassVar[str] = "classify"
    explain: bool = False
    """Show which words drove the decision: gradient × input."""
    html: Path | None = None
    """File for a page: of the explained texts, or of an evaluation (a training writes OUT/report.html)."""
    against: Path | None = None
    """Another model, to be compared with this one on --test: McNemar's test and a paired bootstrap."""
    also: Path | None = None
    """Another model of the same classes: probabilities are the mean of both."""
    bootstrap_samples: int = 1000
    """Resamples behind the intervals."""
    trace: Path | None = None
    """Folder for a trace: every pass of the model over texts, or every step of the training that the model is from,
    stage by stage (tickwise trace show)."""

    def __post_init__(self) -> None:
        """Leaves the check to ``run``, whose errors print as one line; the flag parser would box them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topic(Classify):
    """Tell the topic of a text.

    Train and evaluate:  tickwise run topic --train FILE --out DIRECTORY
    Use:                 tickwise run topic DIRECTORY "a text"
    """

    task: ClassVar[str] = "topic"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentiment(Classify):
    """Tell whether a text is for or against something; English, Chinese, or any other language with examples.

    Train and evaluate:  tickwise run sentiment --train FILE --out DIRECTORY
    Use:                 tickwise run sentiment DIRECTORY "a text"
    """

    task: ClassVar[str] = "sentiment"
    features: FeatureOptions = dataclasses.field(
        default_factory=lambda: FeatureOptions(word_ngrams=3))
    feature_dropout: float = 0.6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spam(Classify):
    """Filter messages. Reports the share of good messages that would be blocked.

    Train and evaluate:  tickwise run spam --train FILE --out DIRECTORY
    Use:                 tickwise run spam DIRECTORY "a message"
    """

    task: ClassVar[str] = "spam"
    positive: str | None = "spam"
    max_false_alarms: float | None = 0.002
    folds: int = 5
    features: FeatureOptions = dataclasses.field(
        default_factory=lambda: FeatureOptions(min_texts=1, idf_power=1.0))
    feature_dropout: float = 0.0
    loss: LossName = "hinge"
    epochs: float = 15.0
    optimizer: OptimizerOptions = dataclasses.field(
        default_factory=lambda: OptimizerOptions(name="sgd", lr=0.5, weight_decay=2.5e-4))


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionType(Classify):
    """Tell what a question asks for: a person, a number, a place …

    Train and evaluate:  tickwise run question-type --train FILE --out DIRECTORY
    Use:                 tickwise run question-type DIRECTORY "a question"
    """

    task: ClassVar[str] = "question-type"
    label_until: str | None = ":"
    features: FeatureOptions = dataclasses.field(
        default_factory=lambda: FeatureOptions(max_characters=0, min_texts=1))
    epochs: float = 15.0
    optimizer: OptimizerOptions = dataclasses.field(
        default_factory=lambda: OptimizerOptions(name="adamw", lr=0.03, weight_decay=0.0, beta2=0.99))


def run(arguments: Classify) -> int:
    check_task(arguments)
    if arguments.train:
        return _train(arguments)
    if arguments.against is not None and not arguments.test:
        raise ConfigError("--against: models are compared on labelled texts; give --test FILE")
    from tickwise.profiling.calls import traced_calls
    from tickwise.tasks.classifier import Classifier

    assert arguments.model is not None
    refuse_unused(arguments, _OF_TRAININGS, "on a trained model")
    refuse_blank(arguments.text)
    classifier = _deciding(Classifier.load(arguments.model, device=arguments.device), arguments)
    if arguments.also is not None:
        classifier.also = Classifier.load(arguments.also, device=arguments.device)
    with traced_calls(classifier.module, arguments.trace, model=str(arguments.model)):
        if arguments.test:
            _evaluate(arguments, classifier)
        else:
            _answer(arguments, classifier)
    return 0


def _deciding(classifier: "Classifier", arguments: Classify) -> "Classifier":
    """The classifier, deciding as --positive and --threshold say where they are given."""
    usual = {field.name: field.default for field in dataclasses.fields(arguments)}["positive"]
    own, given = classifier.module.config.positive, arguments.positive
    positive = own if given is None or given == usual else given
    if positive == own and arguments.threshold is None:
        return classifier
    if positive and positive not in classifier.labels:
        raise ConfigError(f"--positive {positive}: not a class; the model has {', '.join(classifier.labels[:10])}")
    if not positive:
        raise ConfigError("--threshold: this model looks for no class in particular; say for which with --positive")
    threshold = 0.5 if arguments.threshold is None else arguments.threshold
    if not 0 < threshold < 1:
        raise ConfigError(f"--threshold: must be between 0 and 1, got {threshold}")
    changed = classifier.with_config(positive=positive, threshold=threshold)
    changed.path = classifier.path
    return changed


def _config(arguments: Classify) -> ClassifyConfig:
    """What the flags say of a training. What the task has of its own is for bags of n-grams; another architecture goes
    by its own settings."""
    refuse_unused_settings(arguments)
    unused = unused_settings(arguments)
    fields = (field.name for field in dataclasses.fields(ClassifyConfig) if field.name not in unused)
    return ClassifyConfig(**{name: getattr(arguments, name) for name in fields})


def _train(arguments: Classify) -> int:
    if arguments.explain or arguments.against is not None or arguments.also is not None:
        raise ConfigError("--explain, --against and --also are for a model that is there; leave them out with --train")
    return report_training(_config(arguments), arguments.task, html=arguments.html, trace=arguments.trace,
                           as_json=arguments.json)


def report_training(config: ClassifyConfig, task: str, *, html: Path | None = None, trace: Path | None = None,
                    as_json: bool = False) -> int:
    """Train as ``config`` says, write the report and print the figures; the exit code."""
    from tickwise.tasks.classify import train_classifier
    from tickwise.tasks.classify_report import write_training_report
    from tickwise.training.distributed.ranks import is_leader

    result = train_classifier(config, task, trace)
    if result.trained.interrupted or not is_leader():
        return 130 if result.trained.interrupted else 0
    page = html or config.out / "report.html"
    write_training_report(page, result, task)
    path = config.out / "evaluation.json"
    evaluated = _as_json(result)
    write_text_atomic(path, json.dumps(evaluated, ensure_ascii=False, indent=2) + "\n")
    if as_json:
        print(json.dumps(evaluated, ensure_ascii=False))
        return 0
    for name, part in (("development part", result.dev), ("cross-validation", result.folds),
                       ("test part", result.test)):
        if part is not None:
            print(f"\n{name}\n{table(part)}")
    if result.small is not None and result.small_bytes is not None:
        print(f"\nquantised, {format_bytes(result.small_bytes)}: accuracy {result.small.metrics['acc'].value:.2%}")
    say(result.trained_on)
    say(f"report: {page}; figures: {path}\nuse it: tickwise run {task} {config.out} \"a text\"")
    return 0


def _as_json(result: "ClassifyResult") -> dict[str, Any]:
    """The test part's evaluation (else the development part's) in the harness's layout, and what came of training."""
    main = result.test or result.dev
    shown: dict[str, Any] = main.to_json(str(result.trained.model)) if main is not None else {"results": {}}
    for other in (result.dev, result.folds, result.small):
        if other is not None and other is not main:
            more = other.to_json(str(result.trained.model))
            for key in ("results", "intervals", "classes", "n-samples"):
                shown[key] = shown.get(key, {}) | more[key]
    trained = result.trained
    assert result.classifier is not None
    return shown | {"training": {
        "out": str(trained.out), "model": str(trained.model), "seconds": trained.seconds, "steps": trained.step,
        "parameters": trained.n_parameters, "best_step": trained.best_step,
        "temperature": result.classifier.module.config.temperature,
        "threshold": result.classifier.module.config.threshold, "small_bytes": result.small_bytes,
        "trained_on": result.trained_on,
    }}


def _evaluate(arguments: Classify, classifier: "Classifier") -> None:
    from tickwise.data.examples import read_examples
    from tickwise.evaluation.classification import compare
    from tickwise.tasks.classifier import Classifier, class_numbers
    from tickwise.tasks.classify_report import write_evaluation_report

    examples = read_examples(arguments.test, _config(arguments).reading, split="test", labels=arguments.labels)
    result = classifier.evaluate(examples, arguments.task, bootstrap_samples=arguments.bootstrap_samples,
                                 seed=arguments.seed)
    shown = result.to_json(str(arguments.model))
    comparison = None
    if arguments.against is not None:
        other = Classifier.load(arguments.against, device=arguments.device)
        if set(other.labels) != set(classifier.labels):
            raise ConfigError(f"--against {arguments.against}: knows other classes; models are compared on the same")
        with marking(None):  # a trace is of the evaluation
            right = [c.judged(examples).predicted == class_numbers(examples, c.labels) for c in (other, classifier)]
        comparison = compare(right[0], right[1], seed=arguments.seed)
        # Its first is the other model; model and against say which is which.
        shown["comparison"] = dataclasses.asdict(comparison) | {
            "model": str(arguments.model), "against": str(arguments.against), "only_model": comparison.only_second,
            "only_against": comparison.only_first, "first": str(arguments.against), "second": str(arguments.model)}
    if arguments.html is not None:
        write_evaluation_report(arguments.html, classifier, result, examples, arguments.task)
    if arguments.json:
        print(json.dumps(shown, ensure_ascii=False))
        return
    print(table(result))
    if comparison is not None:
        print(f"\n{_compared(comparison, arguments)}")


def table(result: "ClassificationResult") -> str:
    """The result for people."""
    lines = [f"{result.n:,} texts, {len(result.labels):,} classes", "", f"{'metric':<28} {'value':>8}   95 % interval"]
    for name, title in _METRIC_NAMES.items():
        if name in result.metrics:
            score = result.metrics[name]
            between = f"{score.interval.low:.4f} to {score.interval.high:.4f}" if score.interval else "n/a"
            told = "   (calibrated on these texts)" if result.fitted and name in _OF_CALIBRATION else ""
            lines.append(f"{title:<28} {score.value:>8.4f}   {between}{told}")
    if result.false_alarms is not None:
        lines.append(f"{'blocked of the others':<28} {result.false_alarms:>8.4f}")
    if len(result.labels) <= _MOST_CLASSES_SHOWN:
        width = max(12, *(len(c.label) for c in result.classes))
        lines += ["", f"{'class':<{width}} {'precision':>9} {'recall':>7} {'F1':>7} {'texts':>7}"]
        lines += [f"{c.label:<{width}} {c.precision:>9.4f} {c.recall:>7.4f} {c.f1:>7.4f} {c.n:>7,}"
                  for c in result.classes]
        lines += ["", *confusion_lines(result)]
    return "\n".join(lines)


def confusion_lines(result: "ClassificationResult") -> list[str]:
    """The confusion matrix as text: a row per true class, a column per predicted one."""
    names = [label[:10] for label in result.labels]
    width = max(10, *(len(str(n)) for n in result.confusion.flatten()))
    lines = ["true \\ predicted " + " ".join(f"{name:>{width}}" for name in names)]
    for name, row in zip(names, result.confusion.tolist(), strict=True):
        lines.append(f"{name:<16} " + " ".join(f"{n:>{width},}" for n in row))
    return lines


def _compared(comparison: "Comparison", arguments: Classify) -> str:
    first, second = comparison.accuracy
    verdict = "differ" if comparison.mcnemar_p < 0.05 else "do not differ at the 5 % level"
    return (f"{arguments.model}: accuracy {second:.4f}; {arguments.against}: {first:.4f}; difference "
            f"{second - first:+.4f} ({comparison.difference.low:+.4f} to {comparison.difference.high:+.4f})\n"
            f"only one of them right: {comparison.only_second:,} and {comparison.only_first:,} texts; McNemar p = "
            f"{comparison.mcnemar_p:.3g}, paired bootstrap p = {comparison.bootstrap_p:.3g}: they {verdict}")


def _answer(arguments: Classify, classifier: "Classifier") -> None:
    """Predictions to stdout, a line per text."""
    explained: list[Explanation] = []

    def answer(texts: list[str]) -> None:
        predictions = classifier.predict(texts)
        for text, prediction in zip(texts, predictions, strict=True):
            explanation = classifier.explain(text, prediction.label) if arguments.explain or arguments.html else None
            if explanation is not None:
                explained.append(explanation)
            if arguments.json:
                print(json.dumps(_prediction_json(text, prediction, explanation), ensure_ascii=False), flush=True)
            else:
                print(f"{prediction.label}\t{prediction.probability:.3f}", flush=True)
                if explanation is not None and arguments.explain:
                    _show(explanation)
            advance(1)

    with texts_progress(arguments, "classifying") as advance:
        answer_texts(arguments, answer)
    if arguments.html is not None:
        from tickwise.tasks.classify_report import write_explanations

        if not explained:
            raise UserError("no text was given; there is nothing to write a page of")
        write_explanations(arguments.html, explained, arguments.task)
        say(f"page: {arguments.html}")


def _prediction_json(text: str, prediction: "Prediction", explanation: "Explanation | None") -> dict[str, Any]:
    shown: dict[str, Any] = {"label": prediction.label, "probability": prediction.probability,
                             "probabilities": prediction.probabilities, "cut": prediction.cut}
    if explanation is not None:
        shown["words"] = [{"text": text[w.start : w.end], "start": w.start, "end": w.end, "score": w.score}
                          for w in explanation.words]
    return shown


def _show(explanation: "Explanation") -> None:
    """The text with its words coloured (green spoke for the class, red against it), and the strongest in figures."""
    from rich.console import Console
    from rich.text import Text

    shown = Text(explanation.text)
    largest = max((abs(word.score) for word in explanation.words), default=0.0) or 1.0
    for word in explanation.words:
        strength = abs(word.score) / largest
        if strength >= 0.1:
            level = int(60 + 140 * strength)
            colour = f"rgb(0,{level},0)" if word.score > 0 else f"rgb({level},0,0)"
            shown.stylize(f"white on {colour}", word.start, word.end)
    console = Console(highlight=False)
    console.print(shown)
    console.print("  ".join(f"{word} {score:+.2f}" for word, score in explanation.strongest(8)), markup=False)


