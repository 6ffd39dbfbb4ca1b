"""Conclusions follow from the figures, and turn with them."""

import dataclasses

import pyarrow
import pyarrow.parquet
import pytest

from tickwise.compare.cases import NEW, NOISY
from tickwise.compare.conclusions import conclude, sign_test, times, turning_share
from tickwise.compare.measure import Accuracy, Changed, Costs, Measured, costs_of


def accuracy(value, n=1000):
    half = 2 * (value * (1 - value) / n) ** 0.5
    return Accuracy(value, value - half, value + half, n)


def measured(kind, new, noisy, seconds, operations=100.0, make_s=0.1, deterministic=1.0):
    return Measured(
        kind=kind, name="rules" if kind == "classical" else "decoder", operations="", steps=None,
        accuracy={NEW: accuracy(new), NOISY: accuracy(noisy)},
        costs=Costs(seconds, operations, 10.0, 1e-6 * seconds, "modelled"), memory_bytes=1000,
        deterministic=deterministic, change=Changed("a rule", make_s, 0.1, None, None),
        scores={NEW: right(new), NOISY: right(noisy)})


def right(share, n=1000):
    return (1.0,) * round(share * n) + (0.0,) * round((1 - share) * n)


PROGRAM = measured("classical", 1.0, 0.2, 1e-6)
MODEL = measured("language model", 0.8, 0.6, 1e-3, operations=5e6, make_s=59.9)


def test_the_share_at_which_it_turns_is_where_the_mixtures_cross():
    share = turning_share(PROGRAM.accuracy, MODEL.accuracy)
    assert (1 - share) * 1.0 + share * 0.2 == pytest.approx((1 - share) * 0.8 + share * 0.6)
    assert turning_share(PROGRAM.accuracy, PROGRAM.accuracy) is None
    assert turning_share(measured("classical", 1, 0.9, 1).accuracy, MODEL.accuracy) is None


def test_who_wins_by_what_factor_and_where_it_turns():
    found = conclude(PROGRAM, MODEL)
    assert found.better == {NEW: "program", NOISY: "model"}
    assert found.factors.seconds == pytest.approx(1000)
    assert found.factors.operations == pytest.approx(5e4)
    assert found.turning_share == pytest.approx(1 / 3)
    assert found.price_s == pytest.approx(0.999e-3 / 0.4)
    text = " ".join(found.sentences)
    assert "The program (rules) is right more often on new inputs (program 100.0 %, model 80.0 %)" in text
    assert "The model (decoder) is right more often on rephrased or noisy inputs (program 20.0 %, model 60.0 %)" in text
    assert "1,000 times the time" in text
    assert "It turns at 33 % of inputs rephrased or noisy" in text
    assert "Both give the same answers every time." in text
    assert "300 times the program's" in text


def test_figures_that_change_change_the_conclusion():
    worse = measured("language model", 0.5, 0.1, 1e-3, deterministic=0.9)
    found = conclude(PROGRAM, worse)
    assert found.better == {NEW: "program", NOISY: "program"}
    assert found.turning_share is None
    assert found.price_s is None
    assert any("No share" in line and "program is at least as often right" in line for line in found.sentences)
    assert any("The model repeats 90 % of its answers" in line for line in found.sentences)


def test_close_figures_are_no_difference_and_unknown_ones_are_left_out():
    unknown = dataclasses.replace(measured("language model", 0.98, 0.203, 1e-6),
                                  costs=Costs(1e-6, None, None, None, "none"))
    found = conclude(PROGRAM, unknown)
    assert found.better == {NEW: "program", NOISY: None}
    assert any(line.startswith("No difference beyond chance on rephrased") for line in found.sentences)
    assert found.factors.operations is None
    assert "operations" not in " ".join(found.sentences)


def test_factors_in_words():
    assert [times(value) for value in (12345.6, 2.5, 0.5, 0.001)] == ["12,346 times", "2.5 times", "0.5 times",
                                                                      "1/1,000 of"]


def test_the_sign_test_is_the_binomial_s():
    assert sign_test(7, 0) == pytest.approx(2 / 128)
    assert sign_test(5, 5) == 1
    assert sign_test(0, 0) == 1
    assert sign_test(3, 9) == pytest.approx(2 * (1 + 12 + 66 + 220) / 4096)


def test_single_long_ticks_do_not_count_and_unknown_work_stays_unknown(tmp_path):
    def write(flops):
        rows = [{"tick": tick, "phase": "decode", "duration_ns": 5_000_000 if tick == 2 else 1_000, "flops": flops,
                 "bytes_read": flops, "bytes_written": flops, "energy_j": 9.0 if tick == 2 else 0.5,
                 "energy_source": "modelled"} for tick in range(5)]
        table = pyarrow.Table.from_pylist(rows).set_column(
            3, "flops", pyarrow.array([row["flops"] for row in rows], pyarrow.int64()))
        for name in ("bytes_read", "bytes_written"):
            place = table.column_names.index(name)
            table = table.set_column(place, name, pyarrow.array([row[name] for row in rows], pyarrow.int64()))
        pyarrow.parquet.write_table(table, tmp_path / "ledger.parquet")
        return costs_of(tmp_path, 10)

    known = write(40)
    assert known.seconds == pytest.approx(5 * 1e-6 / 10)
    assert (known.operations, known.bytes_moved, known.energy_j) == (20, 40, pytest.approx(0.25))
    assert known.energy_source == "modelled"
    unknown = write(None)
    assert (unknown.operations, unknown.bytes_moved) == (None, None)


@pytest.mark.parametrize(("host_ns", "known"), [(400, False), (600, True)])
def test_energy_of_the_smaller_part_of_the_time_is_not_the_answer_s(tmp_path, host_ns, known):
    rows = [{"tick": tick, "phase": "decode", "duration_ns": ns, "flops": 1, "bytes_read": 1, "bytes_written": 1,
             "energy_j": joules, "energy_source": None if joules is None else "modelled"}
            for tick in range(3) for ns, joules in ((host_ns, 0.5), (1_000 - host_ns, None))]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "ledger.parquet")
    assert costs_of(tmp_path, 3).energy_j == (pytest.approx(0.5) if known else None)
