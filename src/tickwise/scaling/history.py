"""How training and chips have grown, from tables of dated models and chips."""

import datetime
import math
from dataclasses import dataclass
from pathlib import Path

import numpy

from tickwise.core.errors import DataError
from tickwise.scaling.tables import Row, find_column, number, plain_name, read_table
from tickwise.scaling.trends import MOST_DECADES, Trend, fit_trend

MOORE_DOUBLING_YEARS = 2.0
"""Moore 1975: the number of components on a chip doubles every two years."""
_EPOCH = datetime.date(2000, 1, 1)
_DAYS = 365.25

_DATE = ("publication_date", "release_date", "date", "published", "released")
_NAME = ("model", "hardware_name", "name", "chip")
_NOTABLE = ("notability_criteria", "notable")


@dataclass(frozen=True)
class Quantity:
    """A column to follow: its key, what it is called, and the plain names that it goes by, each with its unit."""

    key: str
    title: str
    unit: str
    known: tuple[tuple[str, float], ...]


MODELS = (
    Quantity("compute", "training compute", "FLOP",
             (("training_compute_flop", 1.0), ("training_flops", 1.0), ("flops", 1.0))),
    Quantity("parameters", "parameters", "", (("parameters", 1.0), ("n_parameters", 1.0))),
    Quantity("data", "training data", "data points",
             (("training_dataset_size_datapoints", 1.0), ("tokens", 1.0), ("training_tokens", 1.0))),
    Quantity("cost", "training cost", "2023 USD",
             (("training_compute_cost_2023_usd", 1.0), ("cost_usd", 1.0), ("cost", 1.0))),
)
CHIPS = (
    Quantity("transistors", "transistors on a chip", "",
             (("number_of_transistors_millions", 1e6), ("transistors", 1.0))),
    Quantity("flops_per_s", "peak of a chip, fp32", "FLOP/s",
             (("fp32_single_precision_performance_flop_s", 1.0), ("flops_per_s", 1.0))),
    Quantity("half_flops_per_s", "peak of a chip, 16-bit matrix units", "FLOP/s",
             (("tensor_fp16_bf16_performance_flop_s", 1.0),)),
    Quantity("memory_bandwidth", "memory bandwidth of a chip", "byte/s",
             (("memory_bandwidth_byte_s", 1.0), ("memory_bandwidth_bytes_per_s", 1.0), ("memory_bandwidth", 1.0))),
)


@dataclass(frozen=True)
class Series:
    quantity: Quantity
    names: tuple[str, ...]
    trend: Trend

    @property
    def last(self) -> datetime.date:
        """The latest value's date."""
        return date_of(float(self.trend.years.max()))


@dataclass(frozen=True)
class History:
    models: tuple[Series, ...]
    chips: tuple[Series, ...]
    skipped: tuple[str, ...]
    """What could not be followed or used, and why."""


def year_of(date: datetime.date) -> float:
    """``2010-01-01`` as 2010.0, in years of 365.25 days."""
    return 2000 + (date - _EPOCH).days / _DAYS


def date_of(year: float) -> datetime.date:
    """The date that ``year_of`` made a year of."""
    return _EPOCH + datetime.timedelta(days=round((year - 2000) * _DAYS))


def parse_date(text: str, what: str) -> datetime.date:
    """``2031-07-01``, ``2031-07`` or ``2031``; ``DataError`` for anything else."""
    text = text.strip()
    parts = text.split("-")
    try:
        year, month, day = (int(part) for part in (*parts, "1", "1")[:3])
        if len(parts) > 3:
            raise ValueError
        return datetime.date(year, month, day)
    except ValueError:
        raise DataError(f"{what}: '{text}' is not a date; write YYYY-MM-DD") from None


def find_tables(source: Path, chips: Path | None) -> tuple[Path, Path | None]:
    """The tables of models and of chips: a file is that of models, a folder is searched for both by their names.

    ``DataError`` when a folder holds no table of models.
    """
    if not source.is_dir():
        return source, chips
    tables = sorted(path for path in source.iterdir() if path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet"))
    models = [path for path in tables if any(word in path.name.lower() for word in ("model", "ml systems"))]
    if not models:
        raise DataError(f"{source}: no table of models (a name with 'models' or 'ML systems') among: "
                        f"{', '.join(path.name for path in tables) or 'no tables'}; give the file itself")
    found = [path for path in tables if "chip" in path.name.lower()]
    return models[0], chips or (found[0] if found else None)


def read_history(models: Path, chips: Path | None, *, since: datetime.date, until: datetime.date | None = None,
                 notable_only: bool = True) -> History:
    """Trends of the models published since a date, and of all chips up to the same end.

    ``DataError`` for a table without dates or without any of the quantities, and for words in their place.
    """
    skipped: list[str] = []
    if notable_only and not _has(models, _NOTABLE):
        notable_only = False
        skipped.append(f"{models.name}: no column of notability; all its models are taken")
    followed = _follow(models, MODELS, since, until, _NOTABLE if notable_only else (), skipped)
    others = () if chips is None else _follow(chips, CHIPS, datetime.date.min, until, (), skipped)
    return History(followed, others, tuple(skipped))


def _has(path: Path, known: tuple[str, ...]) -> bool:
    return find_column(list(read_table(path)[0]), known, None, "", path) is not None


def _follow(path: Path, quantities: tuple[Quantity, ...], since: datetime.date, until: datetime.date | None,
            only: tuple[str, ...], skipped: list[str]) -> tuple[Series, ...]:
    rows = read_table(path)
    columns = list(rows[0])
    date_column = find_column(columns, _DATE, None, "", path)
    if date_column is None:
        raise DataError(f"{path}: no column of dates (such as '{_DATE[2]}'); it has: {', '.join(columns[:12])}")
    mark = find_column(columns, only, None, "", path) if only else None
    taken = [(index, row) for index, row in enumerate(rows, start=1) if mark is None or row.get(mark)]
    every = [(row, parse_date(str(row[date_column]), f"{path}, row {index}"))
             for index, row in taken if row.get(date_column)]
    if len(every) < len(taken):
        skipped.append(f"{path.name}: {len(taken) - len(every)} of {len(taken)} rows have no date")
    dated = [(row, date) for row, date in every if since <= date and (until is None or date <= until)]
    name_column = find_column(columns, _NAME, None, "", path)
    skipped += _from_the_future(dated, name_column, path)
    found, reasons = [], []
    for quantity in quantities:
        column = find_column(columns, [name for name, _ in quantity.known], None, "", path)
        if column is None:
            reasons.append(f"no column of {quantity.title}")
            continue
        series = _series(quantity, column, dated, name_column, path, skipped)
        if isinstance(series, str):
            reasons.append(series)
        else:
            found.append(series)
    if not found:
        raise DataError(f"{path}: nothing to follow in the time asked for: {'; '.join(reasons)}")
    skipped += [f"{path.name}: {reason}" for reason in reasons]
    return tuple(found)


def _from_the_future(dated: list[tuple[Row, datetime.date]], name_column: str | None, path: Path) -> list[str]:
    """A line where rows are dated after today."""
    later = [(row, date) for row, date in dated if date > datetime.date.today()]
    if not later:
        return []
    row, date = max(later, key=lambda item: item[1])
    name = (name_column and row.get(name_column)) or "the last"
    return [f"{path.name}: {len(later)} of {len(dated)} rows dated after today ({name}: {date}); --until leaves them "
            "out"]


def _series(quantity: Quantity, column: str, dated: list[tuple[Row, datetime.date]], name_column: str | None,
            path: Path, skipped: list[str]) -> Series | str:
    """The trend of a column, or why there is none. Values that are left out are told in ``skipped``."""
    unit = dict(quantity.known)[plain_name(column)]
    names, years, values, given = [], [], [], 0
    for row, date in dated:
        name = str(row.get(name_column) or "") if name_column else ""
        cell = row.get(column)
        try:
            value = number(cell)
        except ValueError:
            raise DataError(f"{path}: {column} of {name or date} is '{cell}'; it must be a number") from None
        given += cell is not None and str(cell).strip() != ""
        if value is None or not (value > 0 and abs(math.log10(value * unit)) < MOST_DECADES):
            continue
        names.append(name)
        years.append(year_of(date))
        values.append(value * unit)
    if len(values) < given:
        skipped.append(f"{path.name}: left out {given - len(values)} of {given} values of {quantity.title}: not a "
                       f"positive number, or beyond 10^±{MOST_DECADES:g}")
    if len(values) < 3:
        return f"fewer than 3 dated values of {quantity.title}"
    if len(set(years)) < 2:
        return f"all {len(values)} values of {quantity.title} are of one date, {date_of(years[0])}"
    trend = fit_trend(numpy.array(years), numpy.array(values), quantity.title)
    if not trend.is_finite:
        days = round(float(numpy.ptp(trend.years)) * _DAYS)
        return f"the {len(values)} values of {quantity.title} lie within {days} days, too close for a growth a year"
    return Series(quantity, tuple(names), trend)


def check_forecast(result: History, date: datetime.date) -> list[str]:
    """``DataError`` for a date that is not after the models' values, and for one by which a trend leaves all numbers.
    Chips may go on beyond it; then they have no forecast, which the lines that come back say."""
    latest = max(result.models, key=lambda series: series.last)
    if date <= latest.last:
        raise DataError(f"--forecast {date}: the values of {latest.quantity.title} go on to {latest.last}, so this is "
                        "no forecast; give a later date, or end them earlier with --until")
    for series in (*result.models, *result.chips):
        found = series.trend.forecast(year_of(date))
        if not all(0 < found[name] < numpy.inf for name in ("value", "robust")):
            raise DataError(f"--forecast {date}: by then {series.quantity.title} would be beyond 10^±{MOST_DECADES:g}, "
                            "which is no forecast; give an earlier date")
    return [f"{series.quantity.title}: the values go on to {series.last}, so there is no forecast"
            for series in result.chips if date <= series.last]
