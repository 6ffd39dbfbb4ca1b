"""The pictures of a history as SVG texts."""

from functools import partial
from typing import Any

import numpy

from tickwise.core.console import format_number
from tickwise.scaling.figures import BLUE, GREEN, GREY, ORANGE, svg
from tickwise.scaling.history import MOORE_DOUBLING_YEARS, History, Series
from tickwise.scaling.trends import student_quantile

_NAMED = 4


def history_figures(result: History, forecast_year: float | None = None) -> dict[str, tuple[str, str]]:
    """Key → (what it shows, its SVG): one picture a quantity, and one with the growth of all."""
    found = {}
    for series in (*result.models, *result.chips):
        line = series.trend.least_squares
        text = (f"× {format_number(line.growth[0])} a year, doubling in {format_number(line.doubling_years[0])} years "
                "(least squares, with the band of one new value); dashed: Theil–Sen; rings: outliers.")
        key = series.quantity.key
        found[key] = (text, svg(key, partial(_trend, series=series, forecast_year=forecast_year)))
    text = "All trends on the same axes, each starting at one: training beside what chips gained."
    return {"growth": (text, svg("growth", lambda figure: _growth(figure, result)))} | found


def _trend(figure: Any, series: Series, forecast_year: float | None) -> None:
    axes, trend = figure.subplots(), series.trend
    axes.scatter(trend.years, trend.values, color=GREY, alpha=0.5, s=10, linewidths=0)
    off = list(trend.outliers)
    axes.scatter(trend.years[off], trend.values[off], facecolors="none", edgecolors=ORANGE, s=36)
    for index in off[:_NAMED]:
        axes.annotate(series.names[index][:28], (trend.years[index], trend.values[index]), fontsize=7, color=ORANGE,
                      xytext=(5, 3), textcoords="offset points")
    last = max(float(trend.years.max()), forecast_year or 0)
    grid = numpy.linspace(trend.years.min(), last, 120)
    line = trend.least_squares.log10(grid)
    leverage = 1 + 1 / len(trend) + (grid - trend.years.mean()) ** 2 / trend.spread
    half = student_quantile(len(trend) - 2) * trend.residual_sd * numpy.sqrt(leverage)
    axes.fill_between(grid, 10 ** (line - half), 10 ** (line + half), color=BLUE, alpha=0.12, linewidth=0)
    axes.plot(grid, 10**line, color=BLUE, label=f"least squares: × {trend.least_squares.growth[0]:.2f} a year")
    axes.plot(grid, 10 ** trend.robust.log10(grid), "--", color=GREEN,
              label=f"Theil–Sen: × {trend.robust.growth[0]:.2f} a year")
    if series.quantity.key == "transistors":
        moore = trend.least_squares.offset + numpy.log10(2) / MOORE_DOUBLING_YEARS * (grid - trend.years.mean())
        axes.plot(grid, 10**moore, ":", color="black", label=f"Moore's law: doubling in {MOORE_DOUBLING_YEARS:g} years")
    axes.set_yscale("log")
    axes.set_xlabel("year")
    axes.set_ylabel(series.quantity.title + (f" ({series.quantity.unit})" if series.quantity.unit else ""))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="upper left")


def _growth(figure: Any, result: History) -> None:
    axes = figure.subplots()
    every = (*result.models, *result.chips)
    first = min(float(series.trend.years.min()) for series in result.models)
    for index, series in enumerate(every):
        trend = series.trend
        start, end = max(first, float(trend.years.min())), float(trend.years.max())
        grid = numpy.array([start, end])
        gain = 10 ** (trend.least_squares.slope * (grid - first))
        axes.plot(grid, gain, color=f"C{index}", linestyle="-" if series in result.models else "--",
                  label=f"{series.quantity.title}: × {trend.least_squares.growth[0]:.2f} a year")
    last = max(float(series.trend.years.max()) for series in every)
    grid = numpy.array([first, last])
    axes.plot(grid, 2 ** ((grid - first) / MOORE_DOUBLING_YEARS), ":", color="black",
              label=f"Moore's law: × {2 ** (1 / MOORE_DOUBLING_YEARS):.2f} a year")
    axes.set_yscale("log")
    axes.set_xlabel("year")
    axes.set_ylabel(f"times the level of {first:.0f}")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="upper left")
