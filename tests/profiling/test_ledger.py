import time

import numpy
import pytest
from ledger_examples import ROOF, STRETCHES, FakeRow, FakeToken, FakeWork, linear_costs, run_tick

from tickwise.core.stages import Stage, mark, marking
from tickwise.profiling import ledger as ledger_module
from tickwise.profiling.energy import EnergyModel
from tickwise.profiling.ledger import STAGES, Ledger
from tickwise.profiling.usage import Usage


class Sink:
    """Keeps rows as dictionaries."""

    def __init__(self):
        self.rows, self.tokens, self.flushes = [], [], 0

    def add(self, rows, tokens):
        self.flushes += 1
        self.used = rows.used
        for i in range(len(rows.tick)):
            self.rows.append({
                "tick": int(rows.tick[i]), "stage": STAGES[rows.stage[i]],
                "layer": None if rows.layer[i] < 0 else int(rows.layer[i]), "start_ns": int(rows.start_ns[i]),
                "duration_ns": int(rows.duration_ns[i]), "flops": rows.flops[i], "bytes_read": rows.bytes_read[i],
                "bound": rows.bound[i], "share": rows.roofline_share[i], "energy_j": rows.energy_j[i],
                "work": rows.works[rows.tick[i] - rows.first_tick],
            })  # fmt: skip
        self.tokens += tokens

    def of(self, stage, layer=None, tick=0):
        (row,) = [r for r in self.rows if (r["tick"], r["stage"], r["layer"]) == (tick, stage, layer)]
        return row


@pytest.fixture
def sink():
    return Sink()


def test_every_nanosecond_of_a_tick_belongs_to_one_row(sink, clock):
    ledger = Ledger(sink, roofline=ROOF)
    clock.passes(500)
    run_tick(ledger, clock, [(Stage.EMBED, None, 100), (Stage.NORM, 0, 20), (Stage.QKV, 0, 70), (Stage.NORM, 0, 30)],
             host_ns=5)
    ledger.flush()
    found = {(r["stage"], r["layer"]): (r["start_ns"], r["duration_ns"]) for r in sink.rows}
    assert found == {
        (Stage.HOST, None): (500, 5), (Stage.EMBED, None): (505, 100), (Stage.NORM, 0): (605, 50),
        (Stage.QKV, 0): (625, 70),
    }  # fmt: skip


def test_host_time_before_and_after_is_one_row(sink, clock):
    ledger = Ledger(sink, roofline=ROOF)
    run_tick(ledger, clock, [(Stage.EMBED, None, 100), (Stage.HOST, None, 7)], host_ns=5)
    ledger.flush()
    assert sink.of(Stage.HOST)["duration_ns"] == 12


def test_time_and_marks_between_ticks_count_for_nothing(sink, clock):
    ledger = Ledger(sink, roofline=ROOF)
    run_tick(ledger, clock, [(Stage.EMBED, None, 100)])
    ledger.mark(Stage.TOKENIZE)
    clock.passes(10_000)
    run_tick(ledger, clock, [(Stage.EMBED, None, 200)])
    ledger.flush()
    assert {r["stage"] for r in sink.rows} == {Stage.HOST, Stage.EMBED}
    assert sum(r["duration_ns"] for r in sink.rows) == 310
    assert sink.of(Stage.EMBED, tick=1)["start_ns"] == 105 + 10_000 + 5


def test_a_tick_that_breaks_off_or_has_no_work_leaves_nothing(sink, clock):
    ledger = Ledger(sink, roofline=ROOF)
    run_tick(ledger, clock, [(Stage.EMBED, None, 100)])
    ledger.begin_tick()
    ledger.tick_work(FakeWork())
    ledger.mark(Stage.QKV, 0)
    clock.passes(50)  # an exception: no end
    ledger.begin_tick()
    clock.passes(50)
    ledger.end_tick(())  # nothing ran
    run_tick(ledger, clock, [(Stage.HEAD, None, 30)])
    ledger.flush()
    assert ledger.ticks == 2
    assert [(r["tick"], r["stage"]) for r in sink.rows] == [
        (0, Stage.HOST), (0, Stage.EMBED), (1, Stage.HOST), (1, Stage.HEAD)]


def test_ctrl_c_in_the_last_moment_of_a_tick_drops_the_tick(sink, clock, monkeypatch):
    ledger = Ledger(sink, roofline=ROOF)
    run_tick(ledger, clock, [(Stage.EMBED, None, 100)])

    def interrupt():
        raise KeyboardInterrupt

    ledger.begin_tick()
    ledger.tick_work(FakeWork())
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ledger, "_now", interrupt)
        ledger.end_tick(())
    ledger.flush()
    assert ledger.ticks == 1
    assert sum(r["duration_ns"] for r in sink.rows) == 105
    run_tick(ledger, clock, [(Stage.HEAD, None, 30)])
    ledger.flush()
    assert sink.of(Stage.HEAD, tick=1)["duration_ns"] == 30


def test_work_grows_with_what_is_cached_and_is_unknown_where_nobody_counts(sink, clock):
    costs = linear_costs({(Stage.ATTENTION, 0): (1000, 400, 100)}, {(Stage.ATTENTION, 0): (20, 8, 0)})
    ledger = Ledger(sink, roofline=ROOF, costs=costs)
    for kv_tokens in (10, 11, 50):
        run_tick(ledger, clock, [(Stage.ATTENTION, 0, 1000), (Stage.NORM, 0, 10), (Stage.SAMPLE, None, 10)],
                 FakeWork(kv_tokens=kv_tokens))
    ledger.flush()
    assert [sink.of(Stage.ATTENTION, 0, tick)["flops"] for tick in range(3)] == [1200, 1220, 2000]
    assert [sink.of(Stage.ATTENTION, 0, tick)["bytes_read"] for tick in range(3)] == [480, 488, 800]
    assert sink.of(Stage.NORM, 0)["flops"] == 0, "the norm is counted, and is not in the table: it did nothing"
    assert numpy.isnan(sink.of(Stage.SAMPLE)["flops"])
    assert sink.of(Stage.SAMPLE)["bound"] is None
    assert sink.of(Stage.HOST)["bound"] == "overhead"
    # 1200 FLOPs at 100 GFLOP/s take 12 ns, 580 bytes at 10 GB/s take 58 ns, of 1000 ns.
    assert sink.of(Stage.ATTENTION, 0)["share"] == pytest.approx(0.058)
    assert sink.of(Stage.ATTENTION, 0)["bound"] == "overhead"


def test_a_tick_whose_work_is_unknown_has_unknown_figures(sink, clock):
    ledger = Ledger(sink, roofline=ROOF, costs=lambda work: None)
    run_tick(ledger, clock, [(Stage.EMBED, None, 100)])
    ledger.flush()
    row = sink.of(Stage.EMBED)
    assert numpy.isnan([row["flops"], row["bytes_read"], row["share"], row["energy_j"]]).all()
    assert row["bound"] is None


def test_modelled_energy_needs_known_work_except_outside_the_model(sink, clock):
    model = EnergyModel(joules_per_flop=1.0, joules_per_byte=2.0, idle_watts=1e9)
    ledger = Ledger(sink, roofline=ROOF, costs=linear_costs({(Stage.FFN, 0): (10, 3, 1)}), energy=model)
    run_tick(ledger, clock, [(Stage.FFN, 0, 100), (Stage.SAMPLE, None, 10)], host_ns=5)
    ledger.flush()
    assert sink.of(Stage.FFN, 0)["energy_j"] == pytest.approx(10 + 8 + 100)
    assert sink.of(Stage.HOST)["energy_j"] == pytest.approx(5)
    assert numpy.isnan(sink.of(Stage.SAMPLE)["energy_j"])


class Meter:
    """A thousand watts."""

    name = "a test"

    def __init__(self, clock):
        self._clock, self._start_ns = clock, clock()

    def joules(self):
        return (self._clock() - self._start_ns) * 1e-6


def test_measured_energy_is_divided_by_time(sink, clock):
    ledger = Ledger(sink, roofline=ROOF, energy=Meter(clock))
    for _ in range(3):
        run_tick(ledger, clock, [(Stage.FFN, 0, 100_000_000), (Stage.SAMPLE, None, 50_000_000)])
        clock.passes(10_000_000)
    ledger.flush()
    for tick in range(3):
        assert sink.of(Stage.FFN, 0, tick)["energy_j"] == pytest.approx(100.0, rel=1e-3)
        assert sink.of(Stage.SAMPLE, None, tick)["energy_j"] == pytest.approx(50.0, rel=1e-3)


def test_rows_come_out_in_order_whatever_the_marks_of_a_tick(sink, clock):
    ledger = Ledger(sink, roofline=ROOF)
    for tick in range(6):
        stretches = [(Stage.EMBED, None, 10), (Stage.HEAD, None, 20)] if tick % 2 else [(Stage.FFN, 3, 10 + tick)]
        run_tick(ledger, clock, stretches)
    ledger.flush()
    assert [r["tick"] for r in sink.rows] == sorted(r["tick"] for r in sink.rows)
    assert [sink.of(Stage.FFN, 3, tick)["duration_ns"] for tick in (0, 2, 4)] == [10, 12, 14]
    assert [r["start_ns"] for r in sink.rows] == sorted(r["start_ns"] for r in sink.rows)


def test_memory_is_bounded_and_making_rows_meanwhile_belongs_to_no_tick(sink, clock, monkeypatch):
    monkeypatch.setattr(ledger_module, "_MOST_MARKS", 10)
    monkeypatch.setattr(ledger_module, "MEASURE_EVERY_NS", 0)
    ledger = Ledger(sink, roofline=ROOF)
    slow_add = sink.add

    def add(rows, tokens):
        slow_add(rows, tokens)
        clock.passes(900)

    sink.add = add
    for tick in range(10):
        run_tick(ledger, clock, [(Stage.EMBED, None, 10), (Stage.HEAD, None, 10)],
                 tokens=(FakeToken("a", tick, tick, "x"),))
        assert len(ledger._marks) <= 3 * (10 + 4 + 4)
    ledger.flush()
    assert sink.flushes > 2
    assert [r["tick"] for r in sink.rows if r["stage"] is Stage.HEAD] == list(range(10))
    assert [tick for tick, _ in sink.tokens] == list(range(10))
    assert {r["duration_ns"] for r in sink.rows if r["stage"] is Stage.HOST} == {5}
    assert ledger.pauses == sink.flushes - 1
    assert ledger.pause_ns == 900 * ledger.pauses, "what no tick pays is told all the same"


def test_reading_a_slow_meter_belongs_to_no_tick(sink, clock, monkeypatch):
    monkeypatch.setattr(ledger_module, "MEASURE_EVERY_NS", 0)
    meter = Meter(clock)
    ledger = Ledger(sink, roofline=ROOF, energy=meter)
    read = meter.joules

    def joules():
        clock.passes(700)
        return read()

    meter.joules = joules
    for _ in range(3):
        run_tick(ledger, clock, [(Stage.EMBED, None, 10)])
    ledger.flush()
    assert {r["duration_ns"] for r in sink.rows if r["stage"] is Stage.HOST} == {5}


def test_asking_the_system_belongs_to_the_tick_as_a_clock_around_it_says(sink, clock):
    """After a gap the system is asked at the beginning too. That, and looking what is due, leave nothing between the
    clock and the rows."""

    def usage():
        clock.passes(10_000)
        return Usage(0, 0, 0, None, 1)

    ledger = Ledger(sink, roofline=ROOF, usage=usage)
    walls = []
    for _ in range(3):
        clock.passes(200_000_000)  # long enough for all that is done now and then
        before_ns = clock()
        run_tick(ledger, clock, STRETCHES)
        walls.append(clock() - before_ns)
    ledger.flush()
    sums = [sum(row["duration_ns"] for row in sink.rows if row["tick"] == tick) for tick in range(3)]
    assert sums == walls == [sum(ns for *_, ns in STRETCHES) + 5 + 20_000] * 3


def test_a_program_that_runs_while_the_system_is_asked_is_held_against_the_same_tick(sink, clock):
    """Each end of a tick has two readings, of the clock and of the system: both have it, or neither."""
    asked = held = 0

    def usage():
        nonlocal asked, held
        told = Usage(0, held, 0, 7_000_000 * held, 1)
        clock.passes(10_000)
        if asked in held_at:  # once the system has answered, another program runs
            clock.passes(7_000_000)
            held += 1
        asked += 1
        return told

    # the first tick's readings are 0 and 1, and 2 again; the second's (no gap) 3, and 4 again
    held_at = {1, 3}
    ledger = Ledger(sink, roofline=ROOF, usage=usage)
    for _ in range(3):
        run_tick(ledger, clock, STRETCHES)
    ledger.flush()
    walls = [sum(row["duration_ns"] for row in sink.rows if row["tick"] == tick) for tick in range(3)]
    assert [round(wall / 1e6) for wall in walls] == [7, 7, 0]
    assert sink.used["core_wait_ns"].tolist() == [7_000_000, 7_000_000, 0]
    assert sink.used["interruptions"].tolist() == [1, 1, 0]


def test_ticks_whose_costs_have_tables_of_their_own_leave_nothing_behind(sink, clock):
    def costs(work):
        return linear_costs({(Stage.FFN, 0): (work.kv_tokens, 1, 1)})(work)

    ledger = Ledger(sink, roofline=ROOF, costs=costs)
    for kv_tokens in range(50):
        run_tick(ledger, clock, [(Stage.FFN, 0, 10)], FakeWork(kv_tokens=kv_tokens))
    ledger.flush()
    assert [sink.of(Stage.FFN, 0, tick)["flops"] for tick in range(50)] == list(range(50))
    (layout,) = ledger._layouts.values()
    assert len(layout._places) == 1


def test_it_hears_marks_of_running_code_and_agrees_with_another_clock(sink):
    ledger = Ledger(sink, roofline=ROOF)
    walls = []
    for _ in range(5):
        start = time.perf_counter_ns()
        ledger.begin_tick()
        ledger.tick_work(FakeWork(rows=(FakeRow("a"), FakeRow("b"))))
        with marking(ledger):
            mark(Stage.EMBED)
            time.sleep(0.002)
            mark(Stage.FFN, 0)
            time.sleep(0.004)
        ledger.end_tick(())
        walls.append(time.perf_counter_ns() - start)
    ledger.flush()
    for tick, wall in enumerate(walls):
        summed = sum(r["duration_ns"] for r in sink.rows if r["tick"] == tick)
        assert 0.95 < summed / wall <= 1
        assert sink.of(Stage.FFN, 0, tick)["duration_ns"] >= 4_000_000
    assert sink.rows[0]["work"].batch == 2


def test_on_an_accelerator_every_mark_waits_for_it(sink, clock):
    def synchronize():
        clock.passes(1000)

    ledger = Ledger(sink, roofline=ROOF, synchronize=synchronize)
    run_tick(ledger, clock, [(Stage.EMBED, None, 10), (Stage.HEAD, None, 10)])
    ledger.flush()
    assert sink.of(Stage.EMBED)["duration_ns"] == 1010, "the work that was still running belongs to the stage"
