import csv
import io
import itertools
import json
import math
import os
import shutil
import signal
import threading
import time

import pytest

from tickwise.core.stages import Stage
from tickwise.engine import engine as engine_module
from tickwise.profiling.trace_store import open_trace

WIDTH, VOCABULARY = 16, 16


@pytest.fixture(scope="module")
def model(tiny_model):
    return str(tiny_model)


FLAGS = ["--prompt", "abc", "--max-tokens", "12", "--ignore-eos", "--seed", "1"]


@pytest.fixture(scope="module")
def recorded(model, tmp_path_factory):
    from tickwise.cli import main

    out = tmp_path_factory.mktemp("trace") / "trace"
    assert main(["trace", model, *FLAGS, "--out", str(out), "-q", "--json"]) == 0
    return out


def test_the_text_is_the_one_that_generate_writes_and_the_tables_follow(tickwise_cli, model, tmp_path):
    code, out, err = tickwise_cli("trace", model, *FLAGS, "--out", tmp_path / "t")
    assert code == 0
    plain = tickwise_cli("generate", model, *FLAGS)[1]
    assert out.startswith(plain)
    assert "prefill: 1 tick" in out
    assert "decode: 11 ticks" in out
    assert "12 ticks in" in err
    assert "neither moving bytes nor computing" in out


def test_json_is_alone_and_in_the_promised_shape(tickwise_cli, model, tmp_path):
    code, out, _ = tickwise_cli("trace", model, *FLAGS, "--out", tmp_path / "t", "--json")
    assert code == 0
    ticks = json.loads(out)["ticks"]
    assert len(ticks) == 12
    assert [tick["phase"] for tick in ticks] == ["prefill"] + ["decode"] * 11
    for tick in ticks:
        assert {"tick", "phase", "wall_ns", "stages"} <= set(tick)
        assert tick["wall_ns"] == sum(stage["duration_ns"] for stage in tick["stages"])
        names = {stage["stage"] for stage in tick["stages"]}
        assert {"host", "schedule", "embed", "norm", "qkv", "rope", "attention", "out", "ffn", "head", "sample",
                "detokenize"} == names
        for stage in tick["stages"]:
            assert {"stage", "layer", "duration_ns", "flops", "bytes_read", "bytes_written", "bound", "roofline_share",
                    "energy_j", "energy_source"} <= set(stage)
            assert stage["energy_j"] != 0
            assert (stage["energy_j"] is None) == (stage["energy_source"] == "none")
    head = [next(s for s in tick["stages"] if s["stage"] == "head") for tick in ticks]
    assert {stage["flops"] for stage in head} == {2 * WIDTH * VOCABULARY}
    attention = [next(s for s in t["stages"] if s["stage"] == "attention" and s["layer"] == 1) for t in ticks[1:]]
    growth = {b["flops"] - a["flops"] for a, b in itertools.pairwise(attention)}
    assert growth == {2 * 2 * 2 * 8}, "one more key and value of 2 heads of 8"


def test_the_rows_agree_with_a_clock_that_the_ledger_knows_nothing_of(tickwise_cli, model, tmp_path, monkeypatch):
    from time import perf_counter_ns

    walls = []
    step = engine_module.Engine.step

    def timed(self):
        start = perf_counter_ns()
        events = step(self)
        walls.append(perf_counter_ns() - start)
        return events

    monkeypatch.setattr(engine_module.Engine, "step", timed)
    assert tickwise_cli("trace", model, *FLAGS, "--out", tmp_path / "t", "-q") == (0, "", "")
    sums = [row["ns"] for row in open_trace(tmp_path / "t").select(
        "SELECT sum(duration_ns)::BIGINT AS ns FROM ledger GROUP BY tick ORDER BY tick")]
    shares = sorted(ns / wall for ns, wall in zip(sums, walls, strict=True))
    # Another program may take the processor between the two clocks, so single ticks can be off on a busy machine.
    assert shares[-1] <= 1
    assert shares[len(shares) // 2] >= 0.95


def test_generate_and_samples_and_no_cache_are_recorded_too(tickwise_cli, model, tmp_path):
    assert tickwise_cli("generate", model, *FLAGS, "--n", 3, "--trace", tmp_path / "n")[0] == 0
    trace = open_trace(tmp_path / "n")
    assert len(trace.tokens()) == 36
    assert {row["batch"] for row in trace.rows() if row["phase"] == "decode"} == {3}
    assert tickwise_cli("generate", model, *FLAGS, "--no-cache", "--trace", tmp_path / "plain")[0] == 0
    ffn = [row["flops"] for row in open_trace(tmp_path / "plain").rows() if (row["stage"], row["layer"]) == ("ffn", 0)]
    assert ffn == [ffn[0] * (tick + 3) // 3 for tick in range(len(ffn))], "every tick reads the whole text"
    assert tickwise_cli("trace", "show", tmp_path / "plain")[0] == 0


def test_show_tells_stages_tokens_and_slow_ticks(tickwise_cli, recorded):
    code, out, _ = tickwise_cli("trace", "show", recorded)
    assert code == 0
    for stage in ("schedule", "embed", "norm", "qkv", "attention", "ffn", "head", "sample", "detokenize", "host"):
        assert f" {stage} " in out
    assert "faster: " in out
    assert "slowest token" in out
    assert "why: " in out
    assert "overhead" in out.split("all ")[0], "no column is cut off"
    assert "wrote 1 token," in out
    assert "without sample" in out, "energy that nobody knows is not in the sum, which says so"
    code, out, _ = tickwise_cli("trace", "show", recorded, "--token", 4)
    assert code == 0
    assert "tick 4 (decode), wrote" in out
    verdict, _, stages = out.partition("its stages:")
    assert "100.0 %" in stages.partition(" all ")[2]
    for said in ("of processor time in", "interrupt", "slowest stage: ", "why: ", "faster: "):
        assert said in verdict
    code, out, _ = tickwise_cli("trace", "show", recorded, "--token", 0)
    assert code == 0
    assert "the only prefill tick: there is no typical one to compare it with" in out
    assert "×" not in out.splitlines()[0], "it is not compared with itself"
    assert "typical  " not in out
    code, out, _ = tickwise_cli("trace", "show", recorded, "--slowest", 2, "--json")
    assert len(json.loads(out)["ticks"]) == 2


def test_a_token_of_a_batch_is_shown_for_the_request_it_belongs_to(tickwise_cli, model, tmp_path):
    """Five texts that are written side by side have nothing to do with each other."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a\nb\nc\nd\nab\n")
    code, _, err = tickwise_cli("generate", model, "--prompts", prompts, "--max-tokens", 3, "--ignore-eos",
                                "--temperature", 0, "--trace", tmp_path / "t")
    assert code == 0, err
    tokens = open_trace(tmp_path / "t").select("SELECT tick, request_id, text FROM tokens ORDER BY rowid")
    requests = list(dict.fromkeys(token["request_id"] for token in tokens))
    assert len(requests) == 5
    own = [token for token in tokens if token["request_id"] == requests[3]]
    quoted = json.dumps(own[2]["text"], ensure_ascii=False)
    code, out, _ = tickwise_cli("trace", "show", tmp_path / "t", "--token", 2, "--request", 3)
    assert code == 0
    assert f"tick {own[2]['tick']} (decode), wrote {quoted} for request 3 (and for " in out
    place = tokens.index(own[2])
    assert tickwise_cli("trace", "show", tmp_path / "t", "--token", place)[1].splitlines()[0] == out.splitlines()[0]
    code, out, _ = tickwise_cli("trace", "show", tmp_path / "t")
    (slow,) = open_trace(tmp_path / "t").select(  # on a busy machine a request may begin a tick after the others
        "SELECT tick FROM ledger WHERE phase = 'decode' GROUP BY tick ORDER BY sum(duration_ns) DESC LIMIT 1")
    writers = sum(token["tick"] == slow["tick"] for token in tokens)
    several = f"slowest tick (number {slow['tick']}, which wrote "
    assert (several if writers > 1 else "slowest token ") in out
    assert (f" for {writers} requests): " if writers > 1 else f" (tick {slow['tick']}): ") in out
    for flags, message in ((("--token", 3, "--request", 3), "request 3 has tokens 0 to 2"),
                           (("--token", 0, "--request", 5), "requests 0 to 4"), (("--request", 1), "give --token too")):
        code, _, err = tickwise_cli("trace", "show", tmp_path / "t", *flags)
        assert (code, len(err.strip().splitlines())) == (2, 1)
        assert message in err


def test_sql_answers_people_and_programs(tickwise_cli, recorded):
    sql = "SELECT stage, count(*) AS n FROM ledger WHERE stage = 'ffn' GROUP BY stage"
    code, out, _ = tickwise_cli("trace", "sql", recorded, sql)
    assert code == 0
    assert "ffn" in out
    assert "24" in out
    code, out, _ = tickwise_cli("trace", "sql", recorded, sql, "--json")
    assert json.loads(out) == {"columns": ["stage", "n"], "rows": [["ffn", 24]]}
    assert "NULL" in tickwise_cli("trace", "sql", recorded, "SELECT NULL AS x, '' AS y")[1]
    code, out, _ = tickwise_cli("trace", "sql", recorded, "SELECT 'nan'::DOUBLE AS x", "--json")
    assert json.loads(out)["rows"] == [[None]]
    sql = "SELECT 0.5 AS x, ['inf'::DOUBLE] AS y, {'a': 'nan'::DOUBLE} AS z"
    code, out, _ = tickwise_cli("trace", "sql", recorded, sql, "--json")
    assert json.loads(out)["rows"] == [[0.5, [None], {"a": None}]]
    sql = "SELECT chr(27) || '[31m' || chr(10) AS x, 123456789.0::DOUBLE"
    code, out, _ = tickwise_cli("trace", "sql", recorded, sql)
    assert "\\x1b[31m\\n" in out
    assert "123,456,789" in out
    numbers = {f"x{place}": 10**12 + place for place in range(12)}
    sql = "SELECT 'two words' AS words, " + ", ".join(f"{number} AS {name}" for name, number in numbers.items())
    code, out, _ = tickwise_cli("trace", "sql", recorded, sql)
    assert {str(number) for number in numbers.values()} <= set(out.split()), "no number is broken"


RUNAWAY = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = -1"


def test_a_query_that_never_ends_is_stopped(tickwise_cli, recorded):
    code, out, err = tickwise_cli("trace", "sql", recorded, RUNAWAY, "--timeout", "0.2")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "took more than 0.2 s" in err
    assert "--timeout" in err
    code, _, err = tickwise_cli("trace", "sql", recorded, "SELECT 1", "--timeout", "0")
    assert code == 2
    assert "--timeout 0: must be more than 0" in err


def test_ctrl_c_ends_a_query_in_one_line(tickwise_cli, recorded):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pressed = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    pressed.start()
    began = time.monotonic()
    try:
        assert tickwise_cli("trace", "sql", recorded, RUNAWAY, "--timeout", 40) == (130, "", "tickwise: interrupted\n")
        assert time.monotonic() - began < 30  # and not when the time is up
    finally:
        pressed.join()
        signal.signal(signal.SIGINT, before)


def test_sql_describes_the_tables(tickwise_cli, recorded):
    code, out, _ = tickwise_cli("trace", "sql", recorded, "DESCRIBE ledger", "--json")
    assert code == 0
    assert "duration_ns" in out


def test_diff_compares_token_by_token(tickwise_cli, model, recorded, tmp_path):
    assert tickwise_cli("generate", model, *FLAGS, "--dtype", "bf16", "--trace", tmp_path / "b")[0] == 0
    code, out, _ = tickwise_cli("trace", "diff", recorded, tmp_path / "b")
    assert code == 0
    assert "dtype: fp32 → bf16" in out
    assert "decode: 11 tokens in both" in out
    code, out, _ = tickwise_cli("trace", "diff", recorded, tmp_path / "b", "--json")
    decode = next(phase for phase in json.loads(out)["phases"] if phase["phase"] == "decode")
    assert math.isclose(sum(stage["b_ns"] for stage in decode["stages"]), decode["b_ns"])
    code, out, _ = tickwise_cli("trace", "diff", recorded, recorded)
    assert code == 0
    assert "no verdict from one tick" in out, "the prompt"
    assert "pays most" not in out
    assert "gains most" not in out
    head = next(stage for stage in decode["stages"] if stage["stage"] == "head")
    assert head["b_bytes"] < head["a_bytes"]
    assert head["b_flops"] == head["a_flops"]


def test_exports_open_as_what_they_are(tickwise_cli, recorded, tmp_path):
    for name in ("perfetto", "csv", "html"):
        code, out, _ = tickwise_cli("trace", "export", recorded, "--to", name, "--out", tmp_path / name, "--json")
        assert code == 0
        assert json.loads(out) == {"path": str(tmp_path / name), "bytes": (tmp_path / name).stat().st_size}
    stages = {event["name"] for event in json.loads((tmp_path / "perfetto").read_text())["traceEvents"]}
    assert {"tick 0", "layer 1", "ffn"} <= stages
    assert len(list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text())))) == len(open_trace(recorded).rows())
    page = (tmp_path / "html").read_text()
    assert page.startswith("<!doctype html>")
    assert "scaled_dot_product_attention" in page, "the operations of a tick"
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_training_is_recorded(tickwise_cli, small_text, tmp_path):
    code, _, err = tickwise_cli("train", small_text, "--out", tmp_path / "run", "--tokenizer", "char", "--depth", 1,
                                "--context", 16, "--max-steps", 3, "--compile", "off", "--trace", tmp_path / "t")
    assert code == 0, err
    code, out, _ = tickwise_cli("trace", "show", tmp_path / "t")
    assert code == 0
    assert "train: 3 ticks" in out
    for stage in (Stage.DATA, Stage.BACKWARD, Stage.OPTIMIZER):
        assert f" {stage} " in out
    # These belong to some ticks only; whichever tick was the typical one, they are told.
    for stage in (Stage.VALIDATION, Stage.CHECKPOINT):
        assert f" {stage} " in out


def test_evaluation_is_recorded(tickwise_cli, model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("abcdefghij\n" * 40)
    common = ["evaluate", model, "--data", text, "--context", 32, "--stride", 16, "--batch-size", 4, "--json"]
    plain = json.loads(tickwise_cli(*common)[1])
    code, out, _ = tickwise_cli(*common, "--trace", tmp_path / "t")
    assert code == 0
    assert json.loads(out)["results"] == plain["results"]
    trace = open_trace(tmp_path / "t")
    rows = trace.rows()
    assert {row["phase"] for row in rows} == {"prefill"}
    assert {"data", "embed", "ffn", "head", "loss", "host"} <= {row["stage"] for row in rows}
    # The first window scores all of its 32 tokens, the others the 16 that are new.
    heads = {(row["batch"], row["flops"]) for row in rows if row["stage"] == "head"}
    of_token = 2 * WIDTH * VOCABULARY
    assert {(1, 32 * of_token), (4, 4 * 16 * of_token)} <= heads
    assert all(row["flops"] is not None for row in rows if row["stage"] in ("embed", "norm", "ffn", "loss"))
    assert "aten" in str(trace.listing())


@pytest.mark.parametrize("to", ["csv", "perfetto", "html"])
@pytest.mark.parametrize("own", ["ledger.parquet", "tokens.parquet", "ticks.parquet", "trace.json", "listing.json", ""])
def test_an_export_never_takes_the_place_of_what_it_reads(tickwise_cli, recorded, tmp_path, monkeypatch, to, own):
    before = {path.name: path.read_bytes() for path in recorded.iterdir()}
    (tmp_path / "folder").symlink_to(recorded)
    (tmp_path / "file").symlink_to(recorded / own)
    monkeypatch.chdir(recorded)
    for trace, out in ((recorded, recorded / own), ("../trace", own or "."), (recorded, tmp_path / "folder" / own),
                       (tmp_path / "folder", recorded / own), (recorded, tmp_path / "file")):
        code, text, err = tickwise_cli("trace", "export", trace, "--to", to, "--out", out, "--overwrite")
        assert (code, text, err) == (2, "", f"tickwise: {out}: belongs to the trace that is read; give another --out\n")
    assert {path.name: path.read_bytes() for path in recorded.iterdir()} == before


def test_every_verb_says_that_a_listing_is_damaged(tickwise_cli, recorded, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(recorded, copy)
    listing = copy / "listing.json"
    listing.write_bytes(listing.read_bytes()[:500])
    for words in (("show", copy), ("sql", copy, "SELECT 1"), ("diff", recorded, copy), ("export", copy, "--to", "csv")):
        assert tickwise_cli("trace", *words) == (2, "", f"tickwise: {listing}: is damaged; record the trace again\n")


@pytest.mark.parametrize(("words", "message"), [
    (["show", "{nothing}"], "there is no such trace"),
    (["show", "{empty}"], "is not a trace"),
    (["show", "{trace}", "--token", "12"], "tokens 0 to 11"),
    (["show", "{trace}", "--token", "-1"], "tokens 0 to 11"),
    (["show", "{trace}", "--slowest", "0"], "at least 1"),
    (["show", "{trace}", "--slowest", "1", "--token", "1"], "only one"),
    (["sql", "{trace}", "DROP TABLE ledger"], "only read"),
    (["sql", "{trace}", "SELECT * FROM read_text('/etc/passwd')"], "SQL"),
    (["diff", "{trace}", "{nothing}"], "there is no such trace"),
    (["sho", "{trace}"], "no verb 'trace sho'; did you mean 'trace show'?"),
    (["exprt", "{trace}", "--to", "csv"], "did you mean 'trace export'?"),
    (["export", "{trace}", "--to", "csv", "--out", "{empty}"], "is a folder; give a file"),
    (["export", "{trace}", "--to", "pdf"], "pdf"),
    (["{model}", "--prompt", "a", "--out", "{trace}"], "holds a trace already"),
    (["{model}", "--prompt", "a", "--out", "{empty}/.."], "no trace"),
    (["{model}", "--prompt", "a", "--out", "{empty}", "--energy", "{nothing}"], "energy coefficients is missing"),
    (["{nothing}", "--prompt", "a", "--out", "{empty}"], ""),
    (["{model}", "--prompt", "Q", "--out", "{empty}/new"], "not in the vocabulary"),
    (["{model}", "--prompt", "a"], "out"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing(tickwise_cli, model, recorded, tmp_path, words, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    places = {"nothing": tmp_path / "nothing", "empty": empty, "trace": recorded, "model": model}
    code, out, err = tickwise_cli("trace", *(word.format(**places) for word in words))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    assert message in err
    assert not any(empty.iterdir())
    assert open_trace(recorded).header["counts"]["ticks"] == 12


def test_an_export_replaces_a_file_only_when_told_to(tickwise_cli, recorded, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("mine")
    code, _, err = tickwise_cli("trace", "export", recorded, "--to", "csv", "--out", own)
    assert (code, own.read_text()) == (2, "mine")
    assert "is there already" in err
    code, _, _ = tickwise_cli("trace", "export", recorded, "--to", "csv", "--out", own, "--overwrite")
    assert code == 0
    assert own.read_text() != "mine"
