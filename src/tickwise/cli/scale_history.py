"""The growth of training compute, parameters, data and cost beside that of chips, with forecasts: the Moore's laws."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import format_number
from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    from tickwise.scaling.history import Series

_LISTED = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    source: tyro.conf.Positional[Path]
    """Table of dated models (.csv, .tsv, .jsonl or .parquet), or a folder with one and with a table of chips, such as
    Epoch AI's. Columns: a date, and training compute, parameters, data or cost."""
    chips: Path | None = None
    """Table of dated chips: transistors, FLOP/s, memory bandwidth."""
    since: str = "2010-01-01"
    """Models published from this date on; chips count from their first."""
    until: str | None = None
    """Neither models nor chips after this date."""
    all_models: bool = False
    """Also models that the table does not call notable."""
    forecast: str | None = None
    """Date to forecast every quantity for, with its 95 % band; chips whose values go on beyond it have none."""
    out: Path = Path("out/scale-history")
    """Folder for history.json, report.html and the pictures as SVG."""


def run(arguments: Arguments) -> int:
    from tickwise.core.console import say
    from tickwise.core.paths import write_text_atomic
    from tickwise.scaling.history import check_forecast, find_tables, parse_date, read_history, year_of
    from tickwise.scaling.history_figures import history_figures

    since = parse_date(arguments.since, "--since")
    until = None if arguments.until is None else parse_date(arguments.until, "--until")
    if until is not None and until <= since:
        raise ConfigError(f"--until {until}: must be after --since {since}")
    forecast = None if arguments.forecast is None else parse_date(arguments.forecast, "--forecast")
    models, chips = find_tables(arguments.source, arguments.chips)
    result = read_history(models, chips, since=since, until=until, notable_only=not arguments.all_models)
    year, reached = None, list[str]()
    if forecast is not None:
        reached = check_forecast(result, forecast)
        year = year_of(forecast)
    found: dict[str, Any] = {
        "models": str(models), "chips": None if chips is None else str(chips), "since": str(since),
        "until": None if until is None else str(until), "forecast_date": None if forecast is None else str(forecast),
        "trends": {series.quantity.key: _as_json(series, year) for series in (*result.models, *result.chips)},
        "skipped": [*result.skipped, *reached],
    }
    pictures = history_figures(result, year)
    for name, (_, picture) in pictures.items():
        write_text_atomic(arguments.out / f"{name}.svg", picture)
    write_text_atomic(arguments.out / "report.html", _page(arguments, found, pictures))
    write_text_atomic(arguments.out / "history.json", json.dumps(found, indent=1) + "\n")
    if arguments.json:
        print(json.dumps({**found, "out": str(arguments.out)}, indent=2))
    else:
        _print_tables(found)
        say(f"wrote {arguments.out}/report.html")
    return 0


def _as_json(series: "Series", year: float | None) -> dict[str, Any]:
    from tickwise.scaling.history import date_of

    trend = series.trend
    lines = {}
    for name, line in (("least_squares", trend.least_squares), ("robust", trend.robust)):
        growth, (years, *ends) = line.growth, line.doubling_years
        lines[name] = {
            "factor_per_year": growth[0], "factor_per_year_95": growth[1:],
            "doubling_years": years if math.isfinite(years) else None,
            "doubling_months": years * 12 if math.isfinite(years) else None,
            "doubling_years_95": None if ends[0] is None else ends,
        }
    dates = [date_of(float(moment)) for moment in trend.years]
    forecast = None
    if year is not None and date_of(year) > series.last:
        forecast = {k: v if v < float("inf") else None for k, v in trend.forecast(year).items()}
    return {
        "title": series.quantity.title, "unit": series.quantity.unit or None, "rows": len(trend),
        "first": str(min(dates)), "last": str(max(dates)), **lines, "residual_sd_decades": trend.residual_sd,
        "outliers": [{"name": series.names[index], "date": str(dates[index]), "value":
                      float(trend.values[index])} for index in trend.outliers],
        "forecast": forecast,
    }


_HEADER: tuple[str, ...] = ("", "rows", "× a year (95 %)", "doubling", "robust × a year (95 %)", "outliers")


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    from tickwise.scaling.history_figures import doubling

    def growth(line: dict[str, Any]) -> str:
        low, high = line["factor_per_year_95"]
        return f"{line['factor_per_year']:.3f} ({low:.2f}–{high:.2f})"

    rows: list[tuple[str, ...]] = []
    for part in found["trends"].values():
        line = part["least_squares"]
        pace = doubling(line["doubling_years"]).removeprefix("doubling in ")
        rows.append((part["title"], f"{part['rows']:,}", growth(line), pace, growth(part["robust"]),
                     str(len(part["outliers"]))))
    return rows


_FORECAST_HEADER: tuple[str, ...] = ("", "expected", "95 % of new values", "95 % of the line", "robust")


def _forecast_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    def shown(value: float | None) -> str:
        if value is None:
            return "beyond 1e250"
        return format_number(value) if value else "below 1e-250"

    rows: list[tuple[str, ...]] = []
    for part in found["trends"].values():
        band = part["forecast"]
        if band is None:
            rows.append((part["title"], "n/a", "", "", ""))
            continue
        rows.append((part["title"] + (f" ({part['unit']})" if part["unit"] else ""), shown(band["value"]),
                     f"{shown(band['low'])} to {shown(band['high'])}",
                     f"{shown(band['line_low'])} to {shown(band['line_high'])}", shown(band["robust"])))
    return rows


def _print_tables(found: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    tables = [(f"Growth, models since {found['since']}", _HEADER, _rows(found))]
    if found["forecast_date"]:
        tables.append((f"Forecast for {found['forecast_date']}, if growth goes on", _FORECAST_HEADER,
                       _forecast_rows(found)))
    for title, header, rows in tables:
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, name in enumerate(header):
            table.add_column(name, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for part in found["trends"].values():
        names = [f"{item['name']} ({item['date'][:4]})" for item in part["outliers"]]
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            console.print(f"outliers of {part['title']}: {', '.join(names[:_LISTED])}{more}", soft_wrap=True)
    for line in found["skipped"]:
        print(f"note: {line}", file=sys.stderr)


def _page(arguments: Arguments, found: dict[str, Any], pictures: dict[str, tuple[str, str]]) -> str:
    from tickwise.report.data import Figure
    from tickwise.report.figure_page import Section, figure_page
    from tickwise.scaling.history_figures import doubling

    figures = [Figure(part["title"], f"× {part['least_squares']['factor_per_year']:.2f} a year", "modelled",
                      doubling(part["least_squares"]["doubling_years"]))
               for part in found["trends"].values()]
    titles = {"growth": "All together"} | {key: part["title"].capitalize() for key, part in found["trends"].items()}
    sections = [Section(titles[name], text, picture) for name, (text, picture) in pictures.items()]
    sections.append(Section("Growth", "Least squares on log10, and Theil and Sen's median slope.", header=_HEADER,
                            rows=tuple(_rows(found))))
    if found["forecast_date"]:
        sections.append(Section(f"Forecast for {found['forecast_date']}", "If growth goes on as it did.",
                                header=_FORECAST_HEADER, rows=tuple(_forecast_rows(found))))
    for part in found["trends"].values():
        if part["outliers"]:
            rows = tuple((item["name"], item["date"], format_number(item["value"]))
                         for item in part["outliers"])
            sections.append(Section(f"Outliers: {part['title']}", header=("name", "date", "value"), rows=rows))
    command = f"tickwise scale history \"{arguments.source}\" --since {found['since']}"
    if found["forecast_date"]:
        command += f" --forecast {found['forecast_date']}"
    beside = " beside the chips that train them" if found["chips"] else ""
    return figure_page("Growth over the years", f"Models since {found['since']}{beside}.",
                       figures, sections, command, found["skipped"])
