"""One self-contained HTML page: nothing is loaded, everything is escaped."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tickwise.core.paths import write_text_atomic
from tickwise.report.charts import breakdown_section, loss_chart
from tickwise.report.data import Figure, ReportData, Sample
from tickwise.report.style import CSS, SCRIPT

# The page may run its own script and style and may load nothing, not even if something slipped in.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_report(path: Path, data: ReportData) -> None:
    """Write the page; ``OutputError`` when ``path`` cannot be written."""
    write_text_atomic(path, page(data))


def page(data: ReportData) -> str:
    """The page's HTML."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(data.title)} – tickwise</title><style>{CSS}</style></head><body><main>",
        f'<header><p class="brand">tickwise report</p><h1>{escape(data.title)}</h1>'
        f'<p class="summary">{escape(data.summary)}</p></header>',
        figure_boxes(data.figures),
    ]
    chart = loss_chart(data.metrics)
    if chart:
        parts.append(f"<section><h2>Loss</h2>{chart}</section>")
    if data.samples:
        parts.append(f"<section><h2>What it writes</h2>{''.join(map(_sample, data.samples))}</section>")
    if data.breakdowns:
        parts.append(
            f"<section><h2>Where the time went</h2>{''.join(map(breakdown_section, data.breakdowns))}</section>"
        )
    if data.ceilings:
        parts.append(f"<section><h2>What this machine can do</h2><p>{escape(data.machine)}</p>"
                     f"{figure_boxes(data.ceilings)}</section>")
    if data.command or data.versions or data.notes:
        versions = ", ".join(f"{name} {version}" for name, version in data.versions.items())
        notes = "".join(f"<li>{escape(note)}</li>" for note in data.notes)
        parts.append(
            "<section><h2>How to get this again</h2>"
            + (f"<pre><code>{escape(data.command)}</code></pre>" if data.command else "")
            + (f'<p class="versions">{escape(versions)}</p>' if versions else "")
            + (f"<ul>{notes}</ul>" if notes else "")
            + "</section>"
        )
    parts.append(f"</main><script>{SCRIPT}</script></body></html>\n")
    return "\n".join(parts)


def figure_boxes(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    boxes = "".join(
        f'<div><dt>{escape(figure.name)}</dt><dd class="value">'
        f'{escape(figure.value) if figure.value is not None else "n/a"}</dd>'
        f'<dd class="kind">{escape(figure.kind)}{f", {escape(figure.note)}" if figure.note else ""}</dd></div>'
        for figure in figures
    )
    return f'<dl class="figures">{boxes}</dl>'


def _sample(sample: Sample) -> str:
    def column(heading: str, text: str) -> str:
        return (f'<div class="card"><h4>{heading}</h4><p class="text"><mark>{escape(sample.prompt)}</mark>'
                f"{escape(text)}</p></div>")

    return (f'<div class="samples">{column("before training", sample.before)}'
            f"{column('after training', sample.after)}</div>")
