"""The page of a tagger's scores: figures, each type, reliability. Nothing is loaded, everything is escaped."""

import dataclasses
from html import escape

from tickwise.report.classification import RELIABILITY_CSS, ReliabilityPoint, reliability_section
from tickwise.report.data import Figure
from tickwise.report.page import POLICY, figure_boxes
from tickwise.report.style import CSS


@dataclasses.dataclass(frozen=True)
class TypeRow:
    """One type of entity: shares in [0, 1], and counts."""

    name: str
    precision: float
    recall: float
    f1: float
    gold: int
    predicted: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class EntityScorePage:
    """All of one page; empty parts are left out."""

    title: str
    figures: tuple[Figure, ...]
    types: tuple[TypeRow, ...] = ()
    reliability: tuple[ReliabilityPoint, ...] = ()


def entity_score_page(data: EntityScorePage) -> str:
    """The page's HTML."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(data.title)} – tickwise</title><style>{CSS}{RELIABILITY_CSS}</style></head><body><main>"
        f'<header><p class="brand">tickwise report</p><h1>{escape(data.title)}</h1></header>',
        figure_boxes(data.figures),
    ]
    if data.types:
        head = "".join(f'<th scope="col">{name}</th>'
                       for name in ("type", "precision", "recall", "F1", "entities", "found"))
        rows = "".join(
            f'<tr><th scope="row">{escape(row.name)}</th><td>{row.precision:.2%}</td><td>{row.recall:.2%}</td>'
            f"<td>{row.f1:.2%}</td><td>{row.gold:,}</td><td>{row.predicted:,}</td></tr>" for row in data.types)
        parts.append("<section><h2>Types</h2><p>An entity counts when its first token, its last token and its type are "
                     f'all right.</p><div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
                     f"<tbody>{rows}</tbody></table></div></section>")
    if any(point.n for point in data.reliability):
        parts.append(reliability_section(data.reliability))
    parts.append("</main></body></html>\n")
    return "\n".join(parts)
