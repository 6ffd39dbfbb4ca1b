"""The loss curve as inline SVG and the time of a step as a bar: readable without JavaScript."""

import json
import math
from html import escape
from urllib.parse import quote

from tickwise.core.console import format_count, format_duration
from tickwise.report.data import Breakdown
from tickwise.report.metrics import Metric, loss_series, smoothed

_WIDTH, _HEIGHT = 800, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 42
_MOST_POINTS = 600


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from ``low`` to ``high``, about that many: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most about ``_MOST_POINTS`` points, always with the first and the last."""
    stride = max(1, math.ceil(len(points) / _MOST_POINTS))
    kept = points[::stride]
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def embedded_json(value: object) -> str:
    """JSON that may stand inside a ``<script>`` element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def loss_chart(metrics: tuple[Metric, ...]) -> str:
    """SVG of training and validation loss over steps with its data beside it for the hover; '' without losses."""
    training, validation = loss_series(list(metrics))
    if not training and not validation:
        return ""
    average = smoothed(training, max(5, len(training) // 20)) if len(training) >= 20 else []
    every = training + validation
    first, last = min(step for step, _ in every), max(step for step, _ in every)
    values = [value for _, value in every]
    margin = 0.04 * (max(values) - min(values)) or 0.5
    low, high = max(0.0, min(values) - margin), max(values) + margin

    def x(step: float) -> float:
        return _LEFT + (step - first) / max(last - first, 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def path(points: list[tuple[int, float]], kind: str) -> str:
        if not points:
            return ""
        line = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in thinned(points))
        return f'<polyline class="{kind}" points="{line}"/>'

    grid = []
    for value in ticks(low, high, 7):
        grid.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
                    f'<text class="tick" x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for step in (tick for tick in ticks(first, last, 6) if tick == int(tick)):
        grid.append(f'<text class="tick" x="{x(step):.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">'
                    f'{step:,.0f}</text>')  # fmt: skip
    dots = "".join(f'<circle class="validation-dot" cx="{x(s):.1f}" cy="{y(v):.1f}" r="3.5"/>'
                   for s, v in thinned(validation))
    hover = [
        [m.step, round(x(m.step), 1),
         *(None if loss is None else round(loss, 4) for loss in (m.loss, m.validation_loss)),
         *(None if loss is None else round(y(loss), 1) for loss in (m.loss, m.validation_loss)),
         None if m.seconds is None else round(m.seconds, 1)]
        for m in _hoverable(metrics)
    ]
    end = _final_losses(training, validation)
    validation_key = '<span class="key validation-key">validation</span>' if validation else ""
    return (
        f'<figure class="chart"><svg id="loss" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" tabindex="0" '
        f'aria-label="{escape(end)}. Arrow keys read the values.">{"".join(grid)}'
        f'<text class="tick" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">step</text>'
        f"{path(training, 'training' if average else 'average')}{path(average, 'average')}"
        f"{path(validation, 'validation')}{dots}"
        f'<line id="loss-cursor" class="cursor" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" visibility="hidden"/>'
        f'<circle id="loss-dot" class="cursor-dot" r="4" visibility="hidden"/></svg>'
        f'<figcaption><span class="key training-key">training</span>'
        f'{validation_key}<span class="unit">nats per token</span>'
        f'<output id="loss-values" aria-live="polite"></output></figcaption></figure>'
        f'<script type="application/json" id="loss-data">{embedded_json(hover)}</script>'
    )


def _hoverable(metrics: tuple[Metric, ...]) -> list[Metric]:
    """Every validation, and so many training points that the page stays small."""
    stride = max(1, math.ceil(len(metrics) / _MOST_POINTS))
    return [m for index, m in enumerate(metrics)
            if (m.loss is not None or m.validation_loss is not None)
            and (index % stride == 0 or m.validation_loss is not None)]


def _final_losses(training: list[tuple[int, float]], validation: list[tuple[int, float]]) -> str:
    parts = [f"{name} loss from {points[0][1]:.3f} to {points[-1][1]:.3f}"
             for name, points in (("training", training), ("validation", validation)) if points]
    return "Loss curve: " + ", ".join(parts)


def duration(nanoseconds: float) -> str:
    """``12.3 ms`` and the like, three significant digits."""
    return format_duration(nanoseconds * 1e-9)


def _flops(value: int | None) -> str:
    return "n/a" if value is None else format_count(value)


def breakdown_section(data: Breakdown) -> str:
    """A bar whose segments are the rows' shares of the wall time, and the table that says the same."""
    segments, rows = [], []
    for row in data.rows:
        share = row.duration_ns / data.wall_ns
        stage = escape(row.stage)
        label = stage if share > 0.09 else ""
        segments.append(f'<span class="stage-{stage}" style="flex-grow:{share:.5f}" title="{stage}: {share:.1%}">'
                        f"{label}</span>")
        peak = "n/a" if row.share_of_peak is None else f"{row.share_of_peak:.1%}"
        if row.flops == 0:
            peak = "–"
        rows.append(
            f'<tr><th scope="row"><i class="stage-{stage}"></i>{stage}</th><td>{duration(row.duration_ns)}</td>'
            f'<td>{share:.1%}</td><td>{_flops(row.flops)}</td><td>{peak}</td><td>{escape(row.bound or "n/a")}</td></tr>'
        )  # fmt: skip
    peak = "n/a" if data.share_of_peak is None else f"{data.share_of_peak:.1%}"
    columns = (("time", data.time_kind), ("share", data.time_kind), ("FLOPs", data.flops_kind),
               ("of peak", data.time_kind), ("bound", "modelled"))
    head = "".join(f'<th scope="col">{name}<small>{kind}</small></th>' for name, kind in columns)
    return (
        f"<h3>{escape(data.title)}</h3><p>{escape(data.text)}{_link(data.timeline)}</p>"
        f'<div class="bar" aria-hidden="true">{"".join(segments)}</div>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(data.title)}, table"><table>'
        f'<thead><tr><th scope="col">stage</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        f'<tfoot><tr><th scope="row">all</th><td>{duration(data.wall_ns)}</td><td>100%</td>'
        f"<td>{_flops(data.flops)}</td><td>{peak}</td><td></td></tr></tfoot></table></div>"
    )


def _link(timeline: str | None) -> str:
    return "" if timeline is None else f' <a href="{escape(quote(timeline))}">See each one on a timeline.</a>'
