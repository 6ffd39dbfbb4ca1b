import csv
import json

from tickwise.profiling.export import export_csv, export_perfetto
from tickwise.profiling.trace_store import LEDGER_COLUMNS, open_trace


def test_csv_has_a_line_per_row_and_nothing_for_the_unknown(make_trace, tmp_path):
    trace = open_trace(make_trace(n_ticks=3))
    export_csv(trace, tmp_path / "ledger.csv")
    with (tmp_path / "ledger.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == LEDGER_COLUMNS
    assert len(lines) == len(trace.rows())
    assert sum(int(line["duration_ns"]) for line in lines) == 3 * 1405
    sample = next(line for line in lines if line["stage"] == "sample")
    assert (sample["flops"], sample["bound"], sample["layer"], sample["request_ids"]) == ("", "", "", "a")


def test_perfetto_slices_nest_and_fill_their_ticks(make_trace, tmp_path):
    export_perfetto(open_trace(make_trace(n_ticks=3)), tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    ticks = [event for event in slices if event["name"].startswith("tick ")]
    assert [event["name"] for event in ticks] == ["tick 0", "tick 1", "tick 2"]
    assert [event["args"]["text"] for event in ticks] == [["a"], ["b"], ["c"]]
    for tick in ticks:
        inside = [e for e in slices if tick["ts"] <= e["ts"] < tick["ts"] + tick["dur"] and e is not tick]
        stages = [e for e in inside if not e["name"].startswith("layer ")]
        layers = [e for e in inside if e["name"].startswith("layer ")]
        assert round(sum(e["dur"] for e in stages), 3) == round(tick["dur"], 3) == 1.405
        at = tick["ts"]
        for stage in stages:
            assert abs(stage["ts"] - at) < 1e-9, "no gaps, no overlaps"
            at = stage["ts"] + stage["dur"]
        assert [e["name"] for e in layers] == ["layer 0", "layer 1"]
        assert [round(e["dur"], 3) for e in layers] == [0.42, 0.52]
    head = next(event for event in slices if event["name"] == "head")
    assert (head["args"]["flops"], head["args"]["bytes_read"]) == (20_000, 1_100)
    assert "flops" not in next(event for event in slices if event["name"] == "sample")["args"]
