"""Costs of an answer, as the ledger and the clock have them."""

import time

import pyarrow
import pyarrow.parquet
import pytest

from tickwise.compare.contestants import Time, times_of
from tickwise.compare.measure import FROM_TIME, accuracy, costs_of
from tickwise.profiling.energy import DEFAULT_COEFFICIENTS


def write(folder, flops, source="modelled"):
    rows = [{"tick": tick, "phase": "decode", "duration_ns": 5_000_000 if tick == 2 else 1_000, "flops": flops,
             "bytes_read": flops, "bytes_written": flops, "energy_j": 0.5, "energy_source": source}
            for tick in range(5)]
    types = {name: pyarrow.int64() for name in ("tick", "duration_ns", "flops", "bytes_read", "bytes_written")}
    types |= {"phase": pyarrow.string(), "energy_j": pyarrow.float64(), "energy_source": pyarrow.string()}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(types)), folder / "ledger.parquet")
    return costs_of(folder, 10, Time(2e-6, 3e-6))


def test_single_long_ticks_do_not_count_and_unknown_work_stays_unknown(tmp_path):
    known = write(tmp_path, 40)
    assert known.ledger_s == pytest.approx(5 * 1e-6 / 10)
    assert (known.processor_s, known.wall_s, known.operations, known.bytes_moved) == (2e-6, 3e-6, 20, 40)
    unknown = write(tmp_path, None)
    assert (unknown.operations, unknown.bytes_moved) == (None, None)


def test_energy_that_no_counter_measured_is_that_of_the_time(tmp_path):
    modelled = write(tmp_path, 40)
    assert modelled.energy_source == FROM_TIME
    assert modelled.energy_j == pytest.approx(2e-6 * DEFAULT_COEFFICIENTS.idle_watts_per_core)
    measured = write(tmp_path, 40, "measured")
    assert (measured.energy_source, measured.energy_j) == ("measured", pytest.approx(0.25))


def test_an_answer_shorter_than_the_clock_is_timed_all_the_same():
    asked = []
    short, = times_of(lambda text: asked.append(text) or "", ["a"])
    assert 0 < short.processor_s < 1e-4
    assert len(asked) > 100


def test_waiting_is_no_processor_time():
    waiting, = times_of(lambda text: time.sleep(0.003) or str(sum(range(20_000))), ["a"])
    assert waiting.wall_s > waiting.processor_s + 0.002


def test_intervals_are_wilson_s_for_right_or_wrong():
    found = accuracy((1.0,) * 10)
    assert (found.value, found.high, found.n) == (1.0, pytest.approx(1.0), 10)
    assert found.low == pytest.approx(0.7225, abs=1e-3)
