import json
import os
import signal
import subprocess
import sys

import duckdb
import pyarrow
import pytest
import torch
from pyarrow import parquet

from tickwise.core.errors import ConfigError, DataError, OutputError
from tickwise.core.signals import TerminatedError, handled_by
from tickwise.core.stages import Stage, mark, marking
from tickwise.profiling.recording import record_trace
from tickwise.profiling.trace_store import LEDGER_COLUMNS, TraceWriter, check_trace_output, open_trace


def test_a_trace_comes_back_as_it_was_written(make_trace):
    trace = open_trace(make_trace(n_ticks=3))
    rows = trace.rows()
    assert tuple(rows[0]) == LEDGER_COLUMNS
    assert len(rows) == 3 * 9 - 3, "host time before and after is one row"
    head = [row for row in rows if row["stage"] == "head"]
    assert [(r["tick"], r["phase"], r["kv_tokens"], r["duration_ns"], r["flops"], r["bytes_read"], r["bytes_written"])
            for r in head] == [(0, "prefill", 10, 300, 20_000, 1_100, 100), (1, "decode", 11, 300, 20_000, 1_110, 100),
                               (2, "decode", 12, 300, 20_000, 1_120, 100)]
    assert (head[0]["run"], head[0]["request_ids"], head[0]["batch"], head[0]["layer"]) == ("run1", ["a"], 1, None)
    assert (head[0]["energy_source"], head[0]["bound"]) == ("modelled", "compute")
    sample = next(row for row in rows if row["stage"] == "sample")
    assert [sample[name] for name in ("flops", "bytes_read", "bytes_written", "bound", "roofline_share", "energy_j")] \
        == [None] * 6
    assert sample["energy_source"] == "none"
    ffn = next(row for row in rows if row["stage"] == "ffn")
    assert ffn["layer"] == 0
    assert trace.tokens()[1] == {"tick": 1, "request_id": "a", "position": 11, "token_id": 1, "text": "b"}


def test_rows_of_a_tick_add_up_to_its_wall_time(make_trace):
    sums = open_trace(make_trace(n_ticks=4)).select(
        "SELECT tick, sum(duration_ns)::BIGINT AS ns FROM ledger GROUP BY tick ORDER BY tick")
    assert [row["ns"] for row in sums] == [1405] * 4


def test_other_programs_can_read_the_files(make_trace):
    path = make_trace(n_ticks=2)
    assert duckdb.sql(f"SELECT count(*) FROM '{path}/ledger.parquet' WHERE stage = 'ffn'").fetchall() == [(4,)]


def test_sql_answers(make_trace):
    columns, rows = open_trace(make_trace()).query(
        "WITH x AS (SELECT stage, sum(duration_ns)::BIGINT AS ns FROM ledger GROUP BY stage) "
        "SELECT stage, ns FROM x ORDER BY ns DESC LIMIT 1")
    assert (columns, rows) == (["stage", "ns"], [("ffn", 20 * 900)])
    assert open_trace(make_trace("b", n_ticks=2)).query("FROM tokens")[0] == [
        "tick", "request_id", "position", "token_id", "text"]


ATTACKS = [
    "INSERT INTO ledger SELECT * FROM ledger",
    "DELETE FROM tokens",
    "UPDATE ledger SET duration_ns = 0",
    "DROP TABLE ledger",
    "CREATE TABLE x AS SELECT 1",
    "COPY ledger TO '{out}'",
    "COPY (SELECT 1) TO '{out}' (FORMAT csv)",
    "EXPORT DATABASE '{out}'",
    "ATTACH '{out}' AS other",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_csv_auto('{secret}')",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM read_parquet('{trace}/ledger.parquet')",
    "SELECT * FROM parquet_scan('{trace}/ledger.parquet')",
    "SELECT * FROM parquet_metadata('{trace}/ledger.parquet')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
    "SELECT getenv('HOME')",
    "SELECT * FROM read_text('http://127.0.0.1:9/x')",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{out}'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET enable_external_access",
    "SET temp_directory = '{out}'",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "EXPLAIN ANALYZE DELETE FROM tokens",
    "PREPARE p AS SELECT 1",
    "CREATE SECRET s (TYPE s3)",
    "CREATE MACRO m() AS 1",
    "BEGIN TRANSACTION",
    "CHECKPOINT",
    "VACUUM",
    "SELECT 1; DROP TABLE ledger",
    "SELECT 1; SELECT 2",
    "SELECT * FROM secret_python_table",
    "SELECT",
    "",
    ";",
    "SELECT * FROM nothing",
    "SELECT 1/'a'",
]


def test_a_listing_that_was_written_is_missed(make_trace):
    path = make_trace()
    assert open_trace(path).listing() is None, "this one was recorded without"
    with_header(path, has_listing=True)
    with pytest.raises(DataError, match=r"listing.json: is missing"):
        open_trace(path)


@pytest.mark.parametrize("attack", ATTACKS)
def test_sql_neither_writes_nor_reads_anything_else(make_trace, tmp_path, attack):
    secret_python_table = torch.zeros(1).numpy()  # noqa: F841  what DuckDB would find by looking into callers
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret\n")
    path, out = make_trace(n_ticks=2), tmp_path / "out"
    before = sorted(p.name for p in tmp_path.rglob("*"))
    trace = open_trace(path)
    with pytest.raises(ConfigError, match=r"^SQL: ") as caught:
        trace.query(attack.format(secret=secret, out=out, trace=path))
    assert "\n" not in str(caught.value)
    assert "the secret" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert trace.query("SELECT count(*) FROM tokens")[1] == [(2,)], "the trace is as it was"


@pytest.mark.parametrize("greedy", [
    "SELECT length(repeat('x', 2000000000))", "SELECT list(range) FROM range(400000000)",
], ids=["one string", "a list"])
def test_a_query_that_wants_too_much_memory_is_one_line(make_trace, greedy):
    trace = open_trace(make_trace(n_ticks=2))
    with pytest.raises(ConfigError, match=r"^SQL: the query needs more memory than the 1 GB that it may take"):
        trace.query(greedy)
    assert trace.query("SELECT length(repeat('x', 1000000))")[1] == [(1_000_000,)]


def cut_off(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    for i in range(len(content) // 4, len(content) // 2):
        content[i] ^= 0xFF
    path.write_bytes(bytes(content))


def other_version(path):
    header = json.loads((path / "trace.json").read_text())
    (path / "trace.json").write_text(json.dumps(header | {"format": 99}))


def change_column(path, name, change):
    table = parquet.read_table(path / "ledger.parquet")
    index = table.schema.get_field_index(name)
    parquet.write_table(table.set_column(index, name, change(table.column(name))), path / "ledger.parquet")


def with_header(path, **changes):
    header = json.loads((path / "trace.json").read_text())
    (path / "trace.json").write_text(json.dumps(header | changes))


def without(path, key):
    header = json.loads((path / "trace.json").read_text())
    del header[key]
    (path / "trace.json").write_text(json.dumps(header))


def other_stage(column):
    names = column.combine_chunks()
    words = [{"ffn": "moe"}.get(name, name) for name in names.dictionary.to_pylist()]
    return pyarrow.DictionaryArray.from_arrays(names.indices, pyarrow.array(words))


DAMAGE = [
    (lambda p: change_column(p, "stage", lambda column: column.cast("string")), "its columns are not those of a trace"),
    (lambda p: change_column(p, "duration_ns", lambda column: column.cast("double")), "its columns are not those"),
    (lambda p: change_column(p, "stage", other_stage), "the stage 'moe', which this tickwise does not know"),
    (lambda p: without(p, "counts"), "how many ticks"),
    (lambda p: with_header(p, roofline=[1]), r"trace\.json: roofline is damaged"),
    (lambda p: with_header(p, recording=5), r"trace\.json: recording is damaged"),
    (lambda p: cut_off(p / "ledger.parquet"), "ledger.parquet: is damaged or cut off"),
    (lambda p: cut_off(p / "tokens.parquet"), "tokens.parquet: is damaged or cut off"),
    (lambda p: flip(p / "ledger.parquet"), "ledger.parquet: is damaged or cut off"),
    (lambda p: (p / "ledger.parquet").write_bytes(b""), "ledger.parquet: is damaged or cut off"),
    (lambda p: (p / "ledger.parquet").unlink(), "ledger.parquet: is missing"),
    (lambda p: os.replace(p / "tokens.parquet", p / "ledger.parquet"), "its columns are not those of a trace"),
    (lambda p: cut_off(p / "trace.json"), "trace.json"),
    (lambda p: (p / "trace.json").unlink(), "is not a trace"),
    (other_version, "format 99, and this tickwise reads 1"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_trace_is_one_line(make_trace, damage, message):
    path = make_trace(n_ticks=50)
    damage(path)
    with pytest.raises(DataError, match=message) as caught:
        open_trace(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ['[{"stage"', '{"a": 1}', "[5]", '[{"stage": "ffn"}]'])
def test_a_damaged_listing_is_one_line(make_trace, content):
    path = make_trace(n_ticks=2)
    (path / "listing.json").write_text(content)
    with pytest.raises(DataError, match=r"listing\.json: is damaged"):
        open_trace(path)


def test_files_of_two_traces_do_not_mix(make_trace):
    a, b = make_trace("a", n_ticks=3), make_trace("b", n_ticks=4)
    kept = (a / "ledger.parquet").read_bytes()
    os.replace(b / "ledger.parquet", a / "ledger.parquet")
    with pytest.raises(DataError, match=r"ledger\.parquet and trace\.json do not belong together"):
        open_trace(a)
    (a / "ledger.parquet").write_bytes(kept)
    open_trace(a)
    os.replace(b / "tokens.parquet", a / "tokens.parquet")
    with pytest.raises(DataError, match=r"tokens\.parquet and trace\.json do not belong together"):
        open_trace(a)


def test_what_is_no_trace_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nothing", tmp_path, tmp_path / "file"):
        with pytest.raises(DataError):
            open_trace(path)


def test_an_output_that_holds_something_is_left_alone(make_trace, tmp_path):
    trace = make_trace(n_ticks=2)
    with pytest.raises(OutputError, match="replace it with --overwrite"):
        check_trace_output(trace, False)
    with pytest.raises(OutputError, match="delete it, or give another folder"):
        check_trace_output(trace)  # of a verb that has no such flag
    check_trace_output(trace, overwrite=True)
    with pytest.raises(OutputError, match="no trace"):
        check_trace_output(tmp_path, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        check_trace_output(tmp_path / "file")
    check_trace_output(tmp_path / "new")


class Work:
    rows, phase, batch, kv_tokens = (), "decode", 1, 5


def record(path, n_ticks, end=None):
    with record_trace(path, model="m", dtype=torch.float32, device=torch.device("cpu")) as ledger:
        for _ in range(n_ticks):
            ledger.begin_tick()
            ledger.tick_work(Work())
            with marking(ledger):
                mark(Stage.EMBED)
            ledger.end_tick(())
        if end is not None:
            ledger.begin_tick()
            raise end


def test_a_recording_says_what_it_was_made_on(tmp_path):
    record(tmp_path / "t", 3)
    header = open_trace(tmp_path / "t").header
    assert (header["model"], header["dtype"], header["counts"]["ticks"]) == ("m", "fp32", 3)
    assert header["roofline"]["bytes_per_s"] == header["ceilings"]["read_bandwidth_bytes_per_s"] > 0
    assert header["energy"]["source"] in ("measured", "modelled")
    assert header["kinds"]["duration_ns"] == "measured"
    assert header["machine"]["cores"] >= 1


def test_ctrl_c_keeps_what_was_finished_and_other_errors_keep_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "a", 4, KeyboardInterrupt())
    assert open_trace(tmp_path / "a").header["counts"]["ticks"] == 4
    with pytest.raises(ZeroDivisionError):
        record(tmp_path / "b", 4, ZeroDivisionError())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_sigterm_keeps_what_was_finished_and_is_handled_as_before_afterwards(tmp_path):
    class StoppedError(Exception):
        def __init__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TerminatedError):
        record(tmp_path / "a", 4, StoppedError)
    assert open_trace(tmp_path / "a").header["counts"]["ticks"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    received = []
    with handled_by(lambda *_: received.append(1), signal.SIGTERM), pytest.raises(StoppedError):
        record(tmp_path / "b", 4, StoppedError)
    assert received == [1], "somebody handles it already"


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, TerminatedError)])
def test_a_signal_while_a_trace_is_written_waits_until_it_is_whole(tmp_path, monkeypatch, capsys, number, error):
    close = TraceWriter.close

    def close_and_signal(self, *arguments):
        os.kill(os.getpid(), number)
        close(self, *arguments)

    monkeypatch.setattr(TraceWriter, "close", close_and_signal)
    for name, end in (("a", None), ("b", KeyboardInterrupt())):
        with pytest.raises(error if end is None else KeyboardInterrupt):
            record(tmp_path / name, 4, end)
        assert open_trace(tmp_path / name).header["counts"]["ticks"] == 4
        assert "trace: 4 ticks in " in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_that_ends_before_its_first_tick_leaves_no_trace(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "a", 0, KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().err
    assert "no trace was written" in said
    assert "trace show" not in said
    record(tmp_path / "b", 1)
    assert "trace: 1 tick in " in capsys.readouterr().err


def test_each_tick_knows_how_often_it_was_interrupted_and_older_traces_do_not(make_trace):
    path = make_trace(n_ticks=4, late={2: [(Stage.FFN, 100)]})
    assert [(row["tick"], row["interruptions"]) for row in open_trace(path).ticks()] == [(0, 0), (1, 0), (2, 1), (3, 0)]
    kept = (path / "ticks.parquet").read_bytes()
    (path / "ticks.parquet").unlink()
    with pytest.raises(DataError, match=r"ticks\.parquet: is missing"):
        open_trace(path)
    header = json.loads((path / "trace.json").read_text())
    del header["counts"]["tick_rows"]
    (path / "trace.json").write_text(json.dumps(header))
    assert open_trace(path).ticks() == []
    (path / "ticks.parquet").write_bytes(kept[:50])
    with pytest.raises(DataError, match=r"ticks\.parquet: is damaged"):
        open_trace(path)


def test_a_trace_from_before_a_column_was_recorded_does_not_know_it(make_trace):
    path = make_trace(n_ticks=3) / "ticks.parquet"
    table = parquet.read_table(path)
    later = ["core_wait_ns", "major_faults", "start_ns", "wall_ns"]
    for missing in (later, later[:2], later[2:]):
        parquet.write_table(table.drop_columns(missing), path)
        older = open_trace(path.parent).ticks()[1]
        assert older == {**table.to_pylist()[1], **dict.fromkeys(missing)}
    parquet.write_table(table.drop_columns(["cpu_ns"]), path)
    with pytest.raises(DataError, match="columns are not those of a trace"):
        open_trace(path.parent)


def test_the_rows_of_a_tick_add_up_to_the_time_between_its_ends(make_trace):
    trace = open_trace(make_trace(n_ticks=5, slow=3))
    sums = trace.select("SELECT tick, min(start_ns) AS start_ns, sum(duration_ns)::BIGINT AS ns FROM ledger "
                        "GROUP BY tick ORDER BY tick")
    ticks = trace.ticks()
    assert [(row["start_ns"], row["ns"]) for row in sums] == [(tick["start_ns"], tick["wall_ns"]) for tick in ticks]
    assert ticks[3]["wall_ns"] > ticks[2]["wall_ns"] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts them")
def test_a_recording_counts_processor_time_and_interruptions(tmp_path):
    record(tmp_path / "t", 3)
    ticks = open_trace(tmp_path / "t").ticks()
    assert [row["tick"] for row in ticks] == [0, 1, 2]
    assert all(row["interruptions"] >= 0 and row["cpu_ns"] >= 0 for row in ticks)


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_trace_store import Work, record_trace, torch
with record_trace(Path({out!r}), model="m", dtype=torch.float32, device=torch.device("cpu")) as ledger:
    ledger.begin_tick(); ledger.tick_work(Work()); ledger.end_tick(()); ledger.flush()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_run_leaves_no_half_trace(tmp_path):
    out = tmp_path / "trace"
    program = KILLED.format(tests=os.path.dirname(__file__), out=str(out))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    record(out, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["trace"], "the next recording clears the leftovers away"
