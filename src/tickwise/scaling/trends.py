"""Exponential growth of a dated quantity: a straight line through log10 of its values over years."""

import math
from dataclasses import dataclass

import numpy

from tickwise.core.errors import DataError
from tickwise.scaling.minimise import Floats

MOST_DECADES = 250.0
"""Of a value, either way: a floating-point number has room for these, and for the margins of a picture."""
_ALL_PAIRS = 5000
_DRAWN_PAIRS = 10_000_000
_OUTLIER = 3.5
_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


@dataclass(frozen=True)
class Line:
    """log10(value) = offset + slope·(year − middle), with the 95 % interval of the slope."""

    slope: float
    low: float
    high: float
    offset: float
    middle: float

    def log10(self, years: Floats | float) -> Floats:
        return numpy.asarray(self.offset + self.slope * (numpy.asarray(years) - self.middle))

    @property
    def growth(self) -> tuple[float, float, float]:
        """Factor a year with its interval."""
        return 10**self.slope, 10**self.low, 10**self.high

    @property
    def doubling_years(self) -> tuple[float, float | None, float | None]:
        """Time to double (negative: to halve) with its interval, whose ends are ``None`` where the slope may be 0."""
        double = math.log10(2)
        value = double / self.slope if self.slope else math.inf
        if self.low * self.high <= 0:
            return value, None, None
        first, second = double / self.high, double / self.low
        return value, min(first, second), max(first, second)


@dataclass(frozen=True)
class Trend:
    """Both lines through n points, and the points that lie off."""

    years: Floats
    values: Floats
    least_squares: Line
    robust: Line
    """Theil and Sen's: the median slope of all pairs."""
    residual_sd: float
    """Of the least-squares line, in decades."""
    spread: float
    """Sum of squared distances of the years from their mean."""
    outliers: tuple[int, ...]
    """Indices of points further than 3.5 robust standard deviations from the robust line, furthest first."""

    def __len__(self) -> int:
        return len(self.years)

    @property
    def is_finite(self) -> bool:
        """Whether the growth a year and its intervals are numbers."""
        return all(abs(slope) < MOST_DECADES for line in (self.least_squares, self.robust)
                   for slope in (line.slope, line.low, line.high))

    def band(self, years: Floats) -> Floats:
        """Half the 95 % band of one new value around the least-squares line, in decades."""
        leverage = 1 + 1 / len(self) + (years - self.years.mean()) ** 2 / self.spread
        return numpy.asarray(student_quantile(len(self) - 2) * self.residual_sd * numpy.sqrt(leverage))

    def forecast(self, year: float) -> dict[str, float]:
        """What a new value in that year is expected to be: by both lines, with the 95 % band of one new value and that
        of the least-squares line itself. The band holds only if growth goes on as before."""
        centre, n = float(self.least_squares.log10(year)), len(self)
        leverage = 1 / n + (year - float(self.years.mean())) ** 2 / self.spread
        one = float(self.band(numpy.array(year)))
        line = one * math.sqrt(leverage / (1 + leverage))
        return {"value": _power(centre), "low": _power(centre - one), "high": _power(centre + one),
                "line_low": _power(centre - line), "line_high": _power(centre + line),
                "robust": _power(float(self.robust.log10(year)))}


def _power(exponent: float) -> float:
    if abs(exponent) >= MOST_DECADES:
        return math.inf if exponent > 0 else 0.0
    return 10**exponent


def fit_trend(years: Floats, values: Floats, what: str) -> Trend:
    """``DataError`` with fewer than three points or all of one date. Values must be positive."""
    if len(years) < 3:
        raise DataError(f"{what}: {len(years)} dated values; a trend with an interval needs at least 3")
    if numpy.ptp(years) == 0:
        raise DataError(f"{what}: all values are of one date")
    logs = numpy.log10(values)
    middle, n = float(years.mean()), len(years)
    dx = years - middle
    spread = float((dx**2).sum())
    slope, offset = float((dx * logs).sum() / spread), float(logs.mean())
    residuals = logs - offset - slope * dx
    sd = math.sqrt(float((residuals**2).sum()) / (n - 2))
    half = student_quantile(n - 2) * sd / math.sqrt(spread)
    robust = _theil_sen(years, logs, middle)
    distances = numpy.abs(logs - robust.log10(years))
    limit = _OUTLIER * _TO_SIGMA * float(numpy.median(distances))
    order = numpy.argsort(-distances)
    outliers = tuple(int(index) for index in order if distances[index] > limit > 0)
    return Trend(years, values, Line(slope, slope - half, slope + half, offset, middle), robust, sd, spread, outliers)


def _theil_sen(years: Floats, logs: Floats, middle: float) -> Line:
    """The median of the slopes of all pairs of different dates, with the interval that Kendall's tau gives (Sen 1968).

    Beyond 5,000 points ten million random pairs stand for all.
    """
    n = len(years)
    if n <= _ALL_PAIRS:
        first, second = numpy.triu_indices(n, k=1)
    else:
        first, second = numpy.random.default_rng(0).integers(0, n, size=(2, _DRAWN_PAIRS))
    distance = years[second] - years[first]
    apart = distance != 0
    slopes = numpy.sort((logs[second] - logs[first])[apart] / distance[apart])
    slope = float(numpy.median(slopes))
    # The same share of the usable pairs on either side, whether these are all of them or a sample.
    n_pairs = len(slopes) if n <= _ALL_PAIRS else n * n / 2 * float(apart.mean())
    share = 0.5 * 1.959964 * math.sqrt(_kendall_variance(years, logs)) / n_pairs
    low, high = numpy.quantile(slopes, (max(0.0, 0.5 - share), min(1.0, 0.5 + share)))
    offset = float(numpy.median(logs - slope * (years - middle)))
    return Line(slope, float(low), float(high), offset, middle)


def _kendall_variance(*series: Floats) -> float:
    """Of concordant less discordant pairs of two independent series, either of which may have ties (Kendall 1970,
    "Rank Correlation Methods", equation 4.4)."""
    n = len(series[0])
    (t1, t2, t3), (u1, u2, u3) = (_tie_sums(values) for values in series)
    together = t2 * u2 / (2 * n * (n - 1)) + t3 * u3 / (9 * n * (n - 1) * (n - 2))
    return (n * (n - 1) * (2 * n + 5) - t1 - u1) / 18 + together


def _tie_sums(values: Floats) -> tuple[float, float, float]:
    """Over groups of t equal values the sums of t(t − 1)(2t + 5), t(t − 1) and t(t − 1)(t − 2)."""
    t = numpy.unique(values, return_counts=True)[1].astype(float)
    pairs = t * (t - 1)
    return float((pairs * (2 * t + 5)).sum()), float(pairs.sum()), float((pairs * (t - 2)).sum())


def student_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t (Hill 1970, Communications of the ACM 13, algorithm 396).

    Exact for 1 and 2 degrees of freedom, else to better than 1e-3.
    """
    if degrees < 1:
        return math.inf
    p = 0.05
    if degrees == 1:
        return math.tan((1 - p) * math.pi / 2)
    if degrees == 2:
        return math.sqrt(2 / (p * (2 - p)) - 2)
    a = 1 / (degrees - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * degrees
    y = (d * p) ** (2 / degrees)
    if y > 0.05 + a:
        x = -1.959964
        y = x * x
        if degrees < 5:
            c += 0.3 * (degrees - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        y = ((1 / (((degrees + 6) / (degrees * y) - 0.089 * d - 0.822) * (degrees + 2) * 3) + 0.5 / (degrees + 4)) * y
             - 1) * (degrees + 1) / (degrees + 2) + 1 / y
    return math.sqrt(degrees * y)
