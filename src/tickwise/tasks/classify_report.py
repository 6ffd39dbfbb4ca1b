"""Pages of a classifier: figures, confusion matrix, reliability, and texts with the words that decided."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tickwise.core.paths import write_text_atomic
from tickwise.data.examples import Examples
from tickwise.evaluation.classification import ClassificationResult
from tickwise.report.classification import ClassificationPage, ExplainedText, ReliabilityPoint, classification_page
from tickwise.report.data import Figure
from tickwise.tasks.classifier import Classifier, Explanation, class_numbers
from tickwise.tasks.classify import ClassifyResult

_MISTAKES_SHOWN = 12


def write_training_report(path: Path, result: ClassifyResult, task: str) -> None:
    """The page of a training: the test part's figures, else the development part's."""
    shown = result.test or result.dev
    figures = [Figure("training time", f"{result.trained.seconds:.1f} s", "measured"),
               Figure("parameters", f"{result.trained.n_parameters:,}", "counted")]
    if result.small is not None and result.small_bytes is not None:
        figures.append(Figure("quantised", f"{result.small.metrics['acc'].value:.2%}", "measured",
                              f"accuracy in {result.small_bytes / 1e6:.2f} MB"))
    _write(path, f"tickwise run {task}", shown, figures, ())


def write_evaluation_report(path: Path, classifier: Classifier, result: ClassificationResult, examples: Examples,
                            task: str) -> None:
    """The page of an evaluation, with the mistakes of which the model was surest and what misled it."""
    true, judged = class_numbers(examples, classifier.labels), classifier.judged(examples)
    wrong = sorted(np.flatnonzero(judged.predicted != true).tolist(), key=lambda i: -judged.confidence[i])
    mistakes = [(classifier.explain(examples.texts[i]), classifier.labels[true[i]]) for i in wrong[:_MISTAKES_SHOWN]]
    _write(path, f"tickwise run {task}", result, (), [_explained(e, label) for e, label in mistakes])


def write_explanations(path: Path, explanations: Sequence[Explanation], task: str) -> None:
    """A page of texts with the words that drove each decision."""
    _write(path, f"tickwise run {task}", None, (), [_explained(e) for e in explanations])


def _explained(explanation: Explanation, true_label: str | None = None) -> ExplainedText:
    return ExplainedText(explanation.text, explanation.label, explanation.probability,
                         tuple((w.start, w.end, w.score) for w in explanation.words), true_label)


def _write(path: Path, title: str, result: ClassificationResult | None, figures: Sequence[Figure],
           texts: Sequence[ExplainedText]) -> None:
    names = (("acc", "accuracy"), ("f1_macro", "macro F1"), ("mcc", "Matthews correlation"), ("f1", "F1"),
             ("ece", "calibration error"))
    own: list[Figure] = []
    if result is not None:
        for name, label in names:
            if name in result.metrics:
                score = result.metrics[name]
                note = f"{score.interval.low:.3f} to {score.interval.high:.3f}" if score.interval else ""
                if name == "ece" and result.fitted:
                    note += "; the probabilities were calibrated on these texts"
                own.append(Figure(label, f"{score.value:.4f}", "measured", note))
        if result.false_alarms is not None:
            own.append(Figure("blocked of the others", f"{result.false_alarms:.2%}", "measured"))
    write_text_atomic(path, classification_page(ClassificationPage(
        title=title, figures=(*own, *figures), labels=result.labels if result else (),
        confusion=tuple((t, p, n) for t, p, n in result.pairs.tolist()) if result else (),
        reliability=tuple(ReliabilityPoint(b.low, b.high, b.n, b.confidence, b.accuracy) for b in result.bins)
        if result else (),
        texts=tuple(texts),
    )))
