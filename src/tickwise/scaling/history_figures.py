"""The pictures of a history as SVG texts."""

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy

from tickwise.core.console import format_number
from tickwise.scaling.figures import BLUE, GREEN, ORANGE, svg
from tickwise.scaling.history import MOORE_DOUBLING_YEARS, History, Series
from tickwise.scaling.minimise import Floats
from tickwise.scaling.trends import MOST_DECADES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DARK_GREY = "#59616b"
_NAMED = 4
_RING = 5.0
"""Radius, in the picture's units."""
_MANY = 1000
"""From so many points on they are drawn smaller and paler."""


def history_figures(result: History, forecast_year: float | None = None) -> dict[str, tuple[str, str]]:
    """Key → (what it shows, its SVG): one picture a quantity, and one with the growth of all."""
    found = {}
    for series in (*result.models, *result.chips):
        line = series.trend.least_squares
        off = "; rings: outliers, the farthest by name" if series.trend.outliers else ""
        text = (f"× {format_number(line.growth[0])} a year, {doubling(line.doubling_years[0])} (least squares, with "
                f"the band of one new value); dashed: Theil–Sen{off}.")
        key = series.quantity.key
        found[key] = (text, svg(key, partial(_trend, series=series, forecast_year=forecast_year)))
    text = "All trends on the same axes, each starting at one" + (
        ": training beside what chips gained (dashed)." if result.chips else ".")
    return {"growth": (text, svg("growth", lambda figure: _growth(figure, result)))} | found


def doubling(years: float | None) -> str:
    """``doubling in 4.86 months``, ``doubling in 1 year``, ``halving in 2.5 years``; ``no growth`` where it never does.
    """
    if years is None or not math.isfinite(years):
        return "no growth"
    amount, unit = (abs(years), "year") if abs(years) >= 1 else (12 * abs(years), "month")
    shown = format_number(amount)
    return f"{'doubling' if years > 0 else 'halving'} in {shown} {unit}{'' if shown == '1' else 's'}"


def _powers(exponents: Floats) -> Floats:
    return numpy.asarray(10 ** numpy.clip(exponents, -MOST_DECADES, MOST_DECADES))


def _trend(figure: Any, series: Series, forecast_year: float | None) -> None:
    axes, trend = figure.subplots(), series.trend
    few = len(trend) < _MANY
    axes.scatter(trend.years, trend.values, color=_DARK_GREY, alpha=0.75 if few else 0.4, s=22 if few else 9,
                 linewidths=0)
    off = list(trend.outliers)
    axes.scatter(trend.years[off], trend.values[off], facecolors="none", edgecolors=ORANGE, s=44)
    end = float(trend.years.max())
    grid = numpy.linspace(trend.years.min(), end if forecast_year is None else max(end, forecast_year), 120)
    line, half = trend.least_squares.log10(grid), trend.band(grid)
    axes.fill_between(grid, _powers(line - half), _powers(line + half), color=BLUE, alpha=0.12, linewidth=0)
    axes.plot(grid, _powers(line), color=BLUE, label=f"least squares: × {trend.least_squares.growth[0]:.2f} a year")
    axes.plot(grid, _powers(trend.robust.log10(grid)), "--", color=GREEN,
              label=f"Theil–Sen: × {trend.robust.growth[0]:.2f} a year")
    if series.quantity.key == "transistors":
        moore = trend.least_squares.offset + numpy.log10(2) / MOORE_DOUBLING_YEARS * (grid - trend.years.mean())
        axes.plot(grid, _powers(moore), ":", color="black",
                  label=f"Moore's law: {doubling(MOORE_DOUBLING_YEARS)}")
    axes.set_yscale("log")
    _whole_years(axes)
    axes.set_ylabel(series.quantity.title + (f" ({series.quantity.unit})" if series.quantity.unit else ""))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="upper left")
    _name_outliers(figure, axes, series)


def _whole_years(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("year")


def _name_outliers(figure: Any, axes: "Axes", series: Series) -> None:
    """Write the farthest outliers' names where they hide the fewest points, and none over another, the legend or a
    ring."""
    trend = series.trend
    figure.draw_without_rendering()  # only now it is known where everything lies
    dots = axes.transData.transform(numpy.column_stack((trend.years, trend.values)))
    legend = axes.get_legend()
    taken = [] if legend is None else [legend.get_window_extent()]
    rings = dots[list(trend.outliers)]
    for index in trend.outliers[:_NAMED]:
        written: Any = None
        for x, y, side in ((7, 0, "left"), (-7, 0, "right"), (0, 9, "center"), (0, -9, "center")):
            label = axes.annotate(series.names[index][:28], (trend.years[index], trend.values[index]), (x, y),
                                  textcoords="offset points", fontsize=7.5, color=ORANGE, horizontalalignment=side,
                                  verticalalignment="center")
            box = label.get_window_extent()
            free = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and not any(map(box.overlaps, taken)) \
                and not any(box.padded(_RING).contains(*ring) for ring in rings)
            hidden = sum(box.contains(*dot) for dot in dots)
            if free and (written is None or hidden < written[0]):
                if written is not None:
                    written[1].remove()
                written = hidden, label, box
            else:
                label.remove()
        if written is not None:
            taken.append(written[2])


def _growth(figure: Any, result: History) -> None:
    axes = figure.subplots()
    every = (*result.models, *result.chips)
    first = min(float(series.trend.years.min()) for series in result.models)
    for index, series in enumerate(every):
        trend = series.trend
        start, end = max(first, float(trend.years.min())), float(trend.years.max())
        grid = numpy.array([start, end])
        axes.plot(grid, _powers(trend.least_squares.slope * (grid - first)), color=f"C{index}",
                  linestyle="-" if series in result.models else "--",
                  label=f"{series.quantity.title}: × {trend.least_squares.growth[0]:.2f} a year")
    last = max(float(series.trend.years.max()) for series in every)
    grid = numpy.array([first, last])
    axes.plot(grid, 2 ** ((grid - first) / MOORE_DOUBLING_YEARS), ":", color="black",
              label=f"Moore's law: × {2 ** (1 / MOORE_DOUBLING_YEARS):.2f} a year")
    axes.set_yscale("log")
    _whole_years(axes)
    axes.set_ylabel(f"times the level of {first:.0f}")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="upper left")
