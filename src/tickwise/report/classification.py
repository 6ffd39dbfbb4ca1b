"""The page of a classifier: nothing is loaded, everything is escaped."""

import dataclasses
from html import escape

from tickwise.core.console import format_count
from tickwise.report.data import Figure
from tickwise.report.page import POLICY, figure_boxes
from tickwise.report.style import CSS

_MOST_CLASSES = 40
_FEW = 10
"""Predictions whose share of right ones says little: their bar is pale."""
_SIZE, _LEFT, _TOP, _BOTTOM = 320, 46, 12, 40
_OWN_CSS = """
.matrix td { text-align: center; border: 1px solid var(--line); padding: .3rem .5rem; }
.matrix td.right { outline: 2px solid var(--accent); outline-offset: -2px; }
.explained { margin: .6rem 0 1.2rem; } .explained p { margin: .2rem 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.explained mark { color: inherit; border-radius: .2rem; }
"""
RELIABILITY_CSS = """
.reliability { max-width: 26rem; } .reliability rect { fill: var(--accent); opacity: .75; }
.reliability rect.few { opacity: .3; } .reliability .count { fill: var(--soft); font-size: 7px; }
.reliability .ideal { stroke: var(--soft); stroke-dasharray: 4 4; }
"""


@dataclasses.dataclass(frozen=True)
class ReliabilityPoint:
    """Predictions with a confidence in (low, high]; ``None`` for an empty bin."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


@dataclasses.dataclass(frozen=True)
class ExplainedText:
    """A text and what was decided; ``words`` are (start, end, score), above 0 for what spoke for the label."""

    text: str
    label: str
    probability: float
    words: tuple[tuple[int, int, float], ...]
    true_label: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationPage:
    """All of one page; empty parts are left out. ``confusion``: numbers of a true class and of a predicted one, and how
    many texts have both, for every pair that occurs."""

    title: str
    figures: tuple[Figure, ...] = ()
    labels: tuple[str, ...] = ()
    confusion: tuple[tuple[int, int, int], ...] = ()
    reliability: tuple[ReliabilityPoint, ...] = ()
    texts: tuple[ExplainedText, ...] = ()


def classification_page(data: ClassificationPage) -> str:
    """The page's HTML."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(data.title)} – tickwise</title><style>{CSS}{_OWN_CSS}{RELIABILITY_CSS}</style></head><body>"
        "<main>"
        f'<header><p class="brand">tickwise report</p><h1>{escape(data.title)}</h1></header>',
        figure_boxes(data.figures),
    ]
    if data.confusion:
        parts.append(f"<section><h2>Confusion matrix</h2>{confusion_table(data.labels, data.confusion)}</section>")
    if any(point.n for point in data.reliability):
        parts.append(reliability_section(data.reliability))
    if data.texts:
        heading = "Surest mistakes" if any(text.true_label for text in data.texts) else "What decided"
        parts.append(f"<section><h2>{heading}</h2><p>Green words spoke for the label, red ones against it.</p>"
                     f"{''.join(map(explained_text, data.texts))}</section>")
    parts.append("</main></body></html>\n")
    return "\n".join(parts)


def confusion_table(labels: tuple[str, ...], confusion: tuple[tuple[int, int, int], ...]) -> str:
    """The matrix with shaded cells; with many classes, the pairs that are confused most instead."""
    if len(labels) > _MOST_CLASSES:
        pairs = sorted(((n, t, p) for t, p, n in confusion if t != p), reverse=True)[:_MOST_CLASSES]
        rows = "".join(f'<tr><th scope="row">{escape(labels[t])}</th><td>{escape(labels[p])}</td><td>{n:,}</td></tr>'
                       for n, t, p in pairs)
        return ('<div class="scroll" tabindex="0"><table><thead><tr><th scope="col">true</th><th scope="col">predicted'
                f'</th><th scope="col">texts</th></tr></thead><tbody>{rows}</tbody></table></div>')
    counts = {(t, p): n for t, p, n in confusion}
    matrix = [[counts.get((t, p), 0) for p in range(len(labels))] for t in range(len(labels))]
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in labels)
    body = []
    for t, row in enumerate(matrix):
        total = sum(row) or 1
        cells = "".join(
            f'<td{" class=right" if t == p else ""} style="background:color-mix(in srgb, '
            f'var(--{"accent" if t == p else "validation"}) {70 * n / total:.0f}%, transparent)">{n:,}</td>'
            for p, n in enumerate(row))
        body.append(f'<tr><th scope="row">{escape(labels[t])}</th>{cells}</tr>')
    return ('<p>Rows: the true class. Columns: the predicted one.</p><div class="scroll" tabindex="0" role="group" '
            f'aria-label="Confusion matrix"><table class="matrix"><thead><tr><th></th>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table></div>")


def reliability_section(points: tuple[ReliabilityPoint, ...]) -> str:
    """The chart under its heading, with a word about how to read it."""
    return ("<section><h2>Reliability</h2><p>Of the predictions made with a given probability, how many were "
            f"right; above each bar how many they are, pale where fewer than {_FEW}. On the dashed line the two "
            f"agree.</p>{reliability_chart(points)}</section>")


def reliability_chart(points: tuple[ReliabilityPoint, ...]) -> str:
    """SVG: a bar per bin as high as its accuracy, the diagonal, and above each bar and in its title how many
    predictions it has."""
    inner = _SIZE - _LEFT

    def x(value: float) -> float:
        return _LEFT + value * inner

    def y(value: float) -> float:
        return _TOP + (1 - value) * inner

    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_SIZE}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
                     f'<text class="tick" x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
                     f'<text class="tick" x="{x(value):.1f}" y="{y(0) + 16:.1f}" text-anchor="middle">{value:g}</text>')
    for point in points:
        if point.accuracy is None or point.confidence is None:
            continue
        few = ' class="few"' if point.n < _FEW else ""
        shown = format_count(point.n if point.n < 1000 else float(f"{point.n:.2g}"))
        parts.append(f'<text class="count" x="{x((point.low + point.high) / 2):.1f}" y="{y(point.accuracy) - 2:.1f}" '
                     f'text-anchor="middle">{shown}</text>')
        parts.append(f'<rect{few} x="{x(point.low) + 1:.1f}" width="{(point.high - point.low) * inner - 2:.1f}" '
                     f'y="{y(point.accuracy):.1f}" height="{point.accuracy * inner:.1f}"><title>'
                     f"{point.n:,} predictions at {point.confidence:.0%}: {point.accuracy:.1%} right</title></rect>")
    parts.append(f'<line class="ideal" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>'
                 f'<text class="tick" x="{x(0.5):.1f}" y="{y(0) + 34:.1f}" text-anchor="middle">probability</text>')
    right = sum(p.n * p.accuracy for p in points if p.accuracy is not None) / max(1, sum(p.n for p in points))
    return (f'<figure class="chart reliability"><svg viewBox="0 0 {_SIZE + 6} {_SIZE - _LEFT + _TOP + _BOTTOM}" '
            f'role="img" aria-label="Reliability: share of right predictions by their probability; {right:.1%} of all '
            f'are right">{"".join(parts)}</svg></figure>')


def explained_text(item: ExplainedText) -> str:
    """The text with its words shaded by their share of the largest effect."""
    largest = max((abs(score) for _, _, score in item.words), default=0.0) or 1.0
    parts, at = [], 0
    for start, end, score in item.words:
        strength = abs(score) / largest
        shade = f"rgba({'30,140,60' if score > 0 else '200,50,40'},{0.75 * strength:.2f})"
        word = escape(item.text[start:end])
        parts.append(escape(item.text[at:start]))
        parts.append(f'<mark style="background:{shade}" title="{score:+.3f}">{word}</mark>' if strength >= 0.05
                     else word)
        at = end
    parts.append(escape(item.text[at:]))
    truth = f", in truth {escape(item.true_label)}" if item.true_label is not None else ""
    return (f'<div class="card explained"><p><strong>{escape(item.label)}</strong> <small>{item.probability:.1%}{truth}'
            f'</small></p><p dir="auto">{"".join(parts)}</p></div>')
