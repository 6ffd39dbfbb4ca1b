import dataclasses
import time

import numpy
import pytest

from tickwise.core.stages import Stage
from tickwise.demo.measure import written_token
from tickwise.profiling.ledger import CostTable, Ledger, TickCosts
from tickwise.profiling.roofline import Roofline
from tickwise.profiling.trace_store import TraceWriter


@dataclasses.dataclass(frozen=True)
class Work:
    phase: str
    batch: int = 1
    kv_tokens: int = 0
    rows: tuple = ()


@pytest.fixture
def trace(tmp_path):
    """A prompt and five tokens; feed-forward takes 10 ms of each, three hundred in the last one."""
    folder = tmp_path / "trace"
    folder.mkdir()
    writer = TraceWriter(folder, "run")
    table = CostTable(((Stage.FFN, 0), (Stage.FFN, 1)), numpy.full((2, 3), 4_000_000), numpy.zeros((0, 2, 3), int),
                      frozenset({Stage.FFN, Stage.NORM}))
    ledger = Ledger(writer, roofline=Roofline(number_format="fp32", flops_per_s=1e9, bytes_per_s=1e12),
                    costs=lambda work: TickCosts(table, ()))
    for tick in range(6):
        ledger.begin_tick()
        ledger.tick_work(Work("decode" if tick else "prefill"))
        ledger.mark(Stage.FFN, 0)
        time.sleep(0.3 if tick == 5 else 0.01)
        ledger.mark(Stage.FFN, 1)
        ledger.mark(Stage.SAMPLE)
        ledger.end_tick(())
    ledger.flush()
    writer.close({"dtype": "fp32", "roofline": {"number_format": "fp32", "flops_per_s": 1e9, "bytes_per_s": 1e12}})
    return folder


def test_the_mean_token_has_its_work_and_its_time(trace, tmp_path):
    shown = written_token(trace, 1e9, tmp_path / "timeline.html")
    rows = {row.stage: row for row in shown.rows}
    assert set(rows) == {"ffn", "sample", "host"}
    assert shown.wall_ns >= (4 * 10e6 + 300e6) / 5
    assert rows["ffn"].flops == shown.flops == 8_000_000
    # 8 MFLOP at 1 GFLOP/s are 8 ms of the 68 that the mean token takes, or more on a busy machine.
    assert rows["ffn"].share_of_peak <= 8 / 68
    assert rows["ffn"].bound == "overhead"
    assert (rows["sample"].flops, rows["sample"].share_of_peak, rows["sample"].bound) == (None, None, None)
    assert shown.timeline == "timeline.html"
    assert (tmp_path / "timeline.html").read_text().startswith("<!doctype html>")


def test_without_a_peak_there_is_no_share_of_it(trace, tmp_path):
    shown = written_token(trace, None, tmp_path / "timeline.html")
    assert {row.share_of_peak for row in shown.rows} == {shown.share_of_peak} == {None}


def test_a_mean_that_few_ticks_made_is_called_so(trace, tmp_path):
    assert "Mean of 5 tokens" in written_token(trace, 1e9, tmp_path / "timeline.html").text
    assert "a busy machine" in written_token(trace, 1e9, tmp_path / "timeline.html").text
