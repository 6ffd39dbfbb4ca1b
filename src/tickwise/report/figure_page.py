"""A self-contained page of drawn figures with what they show, beside the figures that matter most."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tickwise.report.data import Figure
from tickwise.report.page import POLICY, figure_boxes
from tickwise.report.style import CSS


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, points, a picture (SVG, trusted) and a table (header and rows); what is empty is left
    out."""

    title: str
    text: str = ""
    svg: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    points: tuple[str, ...] = ()


def figure_page(title: str, summary: str, figures: Sequence[Figure], sections: Sequence[Section], command: str = "",
                notes: Sequence[str] = ()) -> str:
    """The page's HTML: one file that loads nothing. All texts are escaped."""
    warnings = f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in notes)}</ul>" if notes else ""
    again = f"<section><h2>How to get this again</h2><pre><code>{escape(command)}</code></pre></section>"
    return "\n".join([
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)} – tickwise</title><style>{CSS}{_PAPER}</style></head><body><main>",
        f'<header><p class="brand">tickwise report</p><h1>{escape(title)}</h1>'
        f'<p class="summary">{escape(summary)}</p></header>',
        figure_boxes(figures), warnings, *map(_section, sections), again if command else "", "</main></body></html>\n",
    ])


# Drawn for paper: the ground stays white where the page is dark, and on a narrow screen it is scrolled rather than made
# too small to read.
_PAPER = "figure.paper { background: #fff; border: 1px solid var(--line); border-radius: .6rem; margin: .4rem 0; "\
         "padding: .6rem; overflow-x: auto; }\n"\
         "figure.paper svg { min-width: 34rem; }\n"


def _section(section: Section) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    if section.points:
        parts.append(f"<ul>{''.join(f'<li>{escape(point)}</li>' for point in section.points)}</ul>")
    if section.svg:
        parts.append(f'<figure class="paper" role="img" aria-label="{escape(section.title)}">'
                     f'{section.svg[section.svg.index("<svg"):]}</figure>')
    if section.rows:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in section.header)
        body = "".join(f'<tr><th scope="row">{escape(row[0])}</th>'
                       + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>" for row in section.rows)
        parts.append(f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(section.title)}, table">'
                     f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
    return "".join(parts) + "</section>"
