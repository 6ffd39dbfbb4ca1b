"""Known growth is found again, on made-up tables and on Epoch AI's."""

import datetime
import itertools

import numpy
import pytest

from known_laws import write_runs
from tickwise.core.errors import DataError
from tickwise.scaling.history import check_forecast, date_of, find_tables, parse_date, read_history, year_of
from tickwise.scaling.history_figures import doubling, history_figures
from tickwise.scaling.trends import _kendall_variance, fit_trend, student_quantile

_SINCE = datetime.date(2010, 1, 1)


@pytest.fixture(scope="module")
def epoch(shared_data):
    """The history of Epoch AI's tables since 2010."""
    return read_history(*find_tables(shared_data / "epoch_ai", None), since=_SINCE)


def test_training_compute_of_notable_models(epoch):
    compute = next(series.trend for series in epoch.models if series.quantity.key == "compute")
    assert len(compute) == 428
    assert compute.least_squares.growth[0] == pytest.approx(4.68, abs=0.02)
    assert compute.least_squares.doubling_years[0] * 12 == pytest.approx(5.39, abs=0.03)
    low, high = compute.robust.growth[1:]
    assert low < compute.robust.growth[0] < high


def test_transistors_of_a_chip_follow_moore(epoch):
    chips = {series.quantity.key: series for series in epoch.chips}
    assert chips["transistors"].trend.least_squares.doubling_years[0] == pytest.approx(2.36, abs=0.02)
    assert "Cerebras WSE-2" in {chips["transistors"].names[i] for i in chips["transistors"].trend.outliers}
    assert {"flops_per_s", "memory_bandwidth"} <= set(chips)
    assert float(chips["transistors"].trend.values.max()) > 1e12, "millions are counted in ones"


def test_growth_and_its_intervals_on_a_known_trend():
    generator = numpy.random.default_rng(5)
    held = {"least_squares": 0, "robust": 0}
    for _ in range(60):
        years = 2010 + 10 * generator.random(80)
        values = 10 ** (20 + 0.5 * (years - 2010) + 0.4 * generator.standard_normal(80))
        trend = fit_trend(years, values, "x")
        for name in held:
            line = getattr(trend, name)
            held[name] += line.low < 0.5 < line.high
    assert all(50 <= count <= 60 for count in held.values()), "a 95 % interval holds the truth 57 times in 60"


@pytest.mark.parametrize("dates", [5, 3])
def test_the_robust_interval_holds_where_dates_repeat(dates):
    generator, held = numpy.random.default_rng(11), 0
    for _ in range(300):
        years = numpy.repeat(numpy.arange(float(dates)), 60 // dates)
        logs = 0.5 * years + 0.4 * generator.standard_normal(60)
        line = fit_trend(2010 + years, 10**logs, "x").robust
        held += line.low <= 0.5 <= line.high
    assert 276 <= held <= 297, "a 95 % interval holds the truth 285 times in 300"


def test_the_variance_of_kendall_s_tau_is_that_of_all_orders():
    years, logs = numpy.array([0.0, 0, 1, 2, 2, 2]), numpy.array([1.0, 1, 2, 3, 3, 4])
    scores = []
    for order in itertools.permutations(range(6)):
        shuffled = logs[list(order)]
        scores.append(sum(numpy.sign((years[j] - years[i]) * (shuffled[j] - shuffled[i]))
                          for i, j in itertools.combinations(range(6), 2)))
    assert _kendall_variance(years, logs) == pytest.approx(numpy.var(scores))


def test_a_robust_line_stays_and_the_outlier_is_listed():
    years = numpy.linspace(2010, 2020, 30)
    values = 10 ** (0.3 * (years - 2010) + 0.01 * numpy.random.default_rng(2).standard_normal(30))
    values[28] *= 1e6
    trend = fit_trend(years, values, "x")
    assert trend.robust.slope == pytest.approx(0.3, abs=0.005)
    assert trend.least_squares.slope > 0.32
    assert trend.outliers[0] == 28


def test_a_forecast_s_band_holds_new_values_as_often_as_it_says():
    generator, held, line_held = numpy.random.default_rng(7), 0, 0
    for _ in range(200):
        years = 2010 + 10 * generator.random(12)
        trend = fit_trend(years, 10 ** (0.3 * (years - 2010) + 0.2 * generator.standard_normal(12)), "x")
        band, truth = trend.forecast(2024.0), 0.3 * 14
        held += band["low"] < 10 ** (truth + 0.2 * generator.standard_normal()) < band["high"]
        line_held += band["line_low"] < 10**truth < band["line_high"]
    assert 180 <= held <= 199
    assert 180 <= line_held <= 199


def test_many_points_are_sampled_to_the_same_slope():
    years = numpy.random.default_rng(1).uniform(2000, 2020, 6000)
    values = 10 ** (0.2 * years - 400 + 0.3 * numpy.random.default_rng(2).standard_normal(6000))
    assert fit_trend(years, values, "x").robust.slope == pytest.approx(0.2, abs=0.003)


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228),
                                                   (30, 2.042), (1000, 1.962)])
def test_student_quantiles_are_those_of_the_tables(degrees, quantile):
    assert student_quantile(degrees) == pytest.approx(quantile, abs=2e-3)


def test_dates():
    assert parse_date("2031-07-01", "x") == datetime.date(2031, 7, 1)
    assert parse_date("2031", "x") == datetime.date(2031, 1, 1)
    assert year_of(datetime.date(2000, 1, 1)) == 2000.0
    assert year_of(datetime.date(2010, 1, 1)) == pytest.approx(2010, abs=2e-3)
    for wrong in ("1. Juli", "2031-13-01", "2031-07-01-02", ""):
        with pytest.raises(DataError, match="write YYYY-MM-DD"):
            parse_date(wrong, "--forecast")


def test_only_notable_models_since_the_date_count(tmp_path):
    rows = [(f"m{year}", f"{year}-06-01", f"{10.0 ** (year - 2000)}", "cited" if year % 2 else "")
            for year in range(2005, 2021)]
    table = write_runs(tmp_path / "models.csv", ("Model", "Publication date", "Training compute (FLOP)",
                                                 "Notability criteria"), rows)
    found = read_history(table, None, since=_SINCE)
    assert len(found.models[0].trend) == 5
    assert found.models[0].trend.least_squares.growth[0] == pytest.approx(10, rel=0.01)
    assert len(read_history(table, None, since=_SINCE, notable_only=False).models[0].trend) == 11
    assert any("no column of training cost" in line for line in found.skipped)


@pytest.mark.parametrize(("header", "rows", "message"), [
    (("model", "flops"), [("a", 1)], "no column of dates"),
    (("model", "date", "size"), [("a", "2020-01-01", 1)], "nothing to follow"),
    (("model", "date", "flops"), [("a", "yesterday", 1)], "'yesterday' is not a date"),
    (("model", "date", "flops"), [("a", "2020-01-01", "many")], "'many'; it must be a number"),
])
def test_tables_that_show_no_history_are_refused(tmp_path, header, rows, message):
    with pytest.raises(DataError, match=message):
        read_history(write_runs(tmp_path / "models.csv", header, rows), None, since=_SINCE)


def test_a_folder_without_models_is_refused(tmp_path):
    with pytest.raises(DataError, match="no table of models"):
        find_tables(tmp_path, None)


def _six(tmp_path, flops, dates=("2012-06-01", "2014-06-01", "2016-11-20", "2018-06-01", "2020-06-01", "2022-06-01")):
    rows = [(f"m{index}", *row) for index, row in enumerate(zip(dates, flops, strict=True))]
    return write_runs(tmp_path / "six.csv", ("model", "date", "flops"), rows)


_GROWING = ("1e17", "2e18", "9e24", "5e21", "3e23", "2e24")


def test_values_that_are_left_out_are_told_and_empty_cells_are_not(tmp_path):
    found = read_history(_six(tmp_path, ("-1e18", "n/a", "", "1e21", "1e22", "1e23")), None, since=_SINCE)
    assert len(found.models[0].trend) == 3
    assert any("left out 2 of 5 values of training compute: not a positive number" in line for line in found.skipped)


def test_values_of_one_date_or_of_a_few_days_are_refused_with_that_reason(tmp_path):
    with pytest.raises(DataError, match=r"all 6 values of training compute are of one date, 2012-06-01; no column of"):
        read_history(_six(tmp_path, _GROWING, ("2012-06-01",) * 6), None, since=_SINCE)
    days = tuple(f"2012-06-0{day}" for day in range(1, 7))
    with pytest.raises(DataError, match="the 6 values of training compute lie within 5 days"):
        read_history(_six(tmp_path, _GROWING, days), None, since=_SINCE)


def test_a_model_from_the_future_is_told(tmp_path):
    dates = ("2012-06-01", "2014-06-01", "2016-11-20", "2018-06-01", "2020-06-01", "2990-06-01")
    found = read_history(_six(tmp_path, _GROWING, dates), None, since=_SINCE)
    assert any("1 of 6 rows dated after today (m5: 2990-06-01)" in line for line in found.skipped)


@pytest.mark.parametrize(("date", "message"), [("9999-12-31", "beyond 10"), ("2500-01-01", "beyond 10"),
                                               ("1800-01-01", "of training compute go on to 2022-06-01"),
                                               ("2022-06-01", "no forecast")])
def test_a_date_without_a_forecast_is_refused(tmp_path, date, message):
    found = read_history(_six(tmp_path, _GROWING), None, since=_SINCE)
    with pytest.raises(DataError, match=message):
        check_forecast(found, parse_date(date, "--forecast"))


@pytest.mark.filterwarnings("error")
def test_a_band_beyond_all_numbers_is_drawn_as_far_as_there_are_some(tmp_path):
    found = read_history(_six(tmp_path, _GROWING), None, since=_SINCE)
    year = 2255.0
    assert found.models[0].trend.forecast(year)["high"] == numpy.inf
    check_forecast(found, date_of(year))
    assert "NaN" not in history_figures(found, year)["compute"][1]


def test_dates_come_back_as_they_were():
    for text in ("1843-09-01", "2016-11-20", "2099-12-31"):
        assert str(date_of(year_of(parse_date(text, "x")))) == text


@pytest.mark.parametrize(("years", "text"), [(1.0, "doubling in 1 year"), (0.405, "doubling in 4.86 months"),
                                             (2.36, "doubling in 2.36 years"), (-1.5, "halving in 1.5 years"),
                                             (numpy.inf, "no growth")])
def test_the_time_to_double_in_words(years, text):
    assert doubling(years) == text


def test_names_of_outliers_do_not_lie_over_each_other(tmp_path):
    rows = [(f"m{i}", f"{2000 + i}-01-01", f"{10.0 ** (i / 2):g}") for i in range(20)]
    rows += [(f"outlier number {i}", f"2019-0{i}-01", "1e-20") for i in range(1, 5)]
    found = read_history(write_runs(tmp_path / "m.csv", ("model", "date", "flops"), rows), None,
                         since=datetime.date(2000, 1, 1))
    assert len(found.models[0].trend.outliers) == 4
    assert history_figures(found)["compute"][1].count(">outlier number") == 1, "only on the left there is room, for one"
