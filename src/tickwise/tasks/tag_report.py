"""The page of a tagger's scores."""

from pathlib import Path

from tickwise.core.paths import write_text_atomic
from tickwise.evaluation.entities import EntityScores
from tickwise.report.classification import ReliabilityPoint
from tickwise.report.data import Figure
from tickwise.report.entity_scores import EntityScorePage, TypeRow, entity_score_page

_NAMES = {"f1": "F1", "precision": "precision", "recall": "recall", "macro_f1": "macro F1", "ece": "calibration error"}


def write_score_page(path: Path, scores: EntityScores, title: str) -> None:
    """Write the page; ``OutputError`` when ``path`` cannot be written."""
    figures = []
    for name, score in scores.metrics.items():
        known = score.interval
        note = f"{known.low:.4f} to {known.high:.4f}" if known else ""
        figures.append(Figure(_NAMES[name], f"{score.value:.4f}", "measured", note))
    figures.append(Figure("sentences", f"{scores.n_sentences:,}", "counted"))
    write_text_atomic(path, entity_score_page(EntityScorePage(
        title=title, figures=tuple(figures),
        types=tuple(TypeRow(name, s.precision, s.recall, s.f1, s.gold, s.predicted)
                    for name, s in [*scores.by_type.items(), ("all", scores.overall)]),
        reliability=tuple(ReliabilityPoint(b.low, b.high, b.n, b.confidence, b.accuracy) for b in scores.bins),
    )))
