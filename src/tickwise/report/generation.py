"""Quality against variety of written sentences, drawn: a curve for each model over its temperatures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tickwise.report.charts import ticks

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 480, 64, 190, 20, 56
_COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")


@dataclass(frozen=True)
class Quality:
    """Of one model at one setting."""

    bleu: float
    self_bleu: float
    label: str
    """The temperature, or what else was set."""


def quality_chart(curves: Mapping[str, Sequence[Quality]], n: int) -> str:
    """A self-contained SVG: BLEU-n to the right is more like the corpus, self-BLEU-n upwards is less varied. Models
    whose curve lies to the lower right are better."""
    points = [q for curve in curves.values() for q in curve]
    if not points:
        raise ValueError("there is nothing to draw")
    low_x, high_x = _range([q.bleu for q in points])
    low_y, high_y = _range([q.self_bleu for q in points])

    def x(value: float) -> float:
        return _LEFT + (value - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high_y - value) / (high_y - low_y) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for value in ticks(low_x, high_x, 7):
        parts.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" '
                     f'stroke="#d0d7de"/><text x="{x(value):.1f}" y="{_HEIGHT - _BOTTOM + 20}" '
                     f'text-anchor="middle">{value:g}</text>')
    for value in ticks(low_y, high_y, 7):
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
                     f'stroke="#d0d7de"/><text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" '
                     f'text-anchor="end">{value:g}</text>')
    for row, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[row % len(_COLOURS)]
        line = " ".join(f"{x(q.bleu):.1f},{y(q.self_bleu):.1f}" for q in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for q in curve:
            parts.append(f'<circle cx="{x(q.bleu):.1f}" cy="{y(q.self_bleu):.1f}" r="4" fill="{colour}">'
                         f"<title>{escape(name)}, {escape(q.label)}: BLEU-{n} {q.bleu:.3f}, self-BLEU-{n} "
                         f'{q.self_bleu:.3f}</title></circle><text x="{x(q.bleu) + 6:.1f}" '
                         f'y="{y(q.self_bleu) - 6:.1f}" font-size="11" fill="{colour}">{escape(q.label)}</text>')
        top = _TOP + 16 + 22 * row
        parts.append(f'<rect x="{_WIDTH - _RIGHT + 14}" y="{top - 10}" width="12" height="12" fill="{colour}"/>'
                     f'<text x="{_WIDTH - _RIGHT + 32}" y="{top}">{escape(name)}</text>')
    middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="13" role="img" '
        f'aria-label="BLEU-{n} against self-BLEU-{n}"><rect width="100%" height="100%" fill="white"/>'
        f'{"".join(parts)}<text x="{middle_x}" y="{_HEIGHT - 12}" text-anchor="middle">BLEU-{n} against the test '
        f'sentences (more like them →)</text><text transform="translate(16 {middle_y}) rotate(-90)" '
        f'text-anchor="middle">self-BLEU-{n} (less varied →)</text></svg>'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    margin = 0.06 * (max(values) - min(values)) or 0.05
    return min(values) - margin, max(values) + margin
