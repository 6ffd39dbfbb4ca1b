import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tickwise.cli import main
from tickwise.profiling.trace_store import open_trace


def run(out, seconds, cache):
    """The demo as a user runs it, with a cache of its own."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tickwise", "demo", "--out", str(out), "--seconds", str(seconds), "--json"],
        capture_output=True, text=True, env={**os.environ, "TICKWISE_CACHE": str(cache)}, check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr, time.monotonic() - start


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder / "out", *run(folder / "out", 5, folder / "cache")[:2]


def test_the_demo_leaves_text_model_and_pages_and_says_where(short):
    out, result, said = short
    assert (out / "text.txt").stat().st_size > 300_000
    assert (out / "run" / "model" / "model.safetensors").is_file()
    assert said.splitlines()[-3:] == [result["report"], result["timeline"], result["training_timeline"]] == [
        str(out / "report.html"), str(out / "timeline.html"), str(out / "training-timeline.html")]
    assert "tickwise train" in said
    assert 0 < result["validation_loss"] < 9


def test_the_report_shows_the_samples_and_the_times(short):
    import html

    out, result, _ = short
    page = html.unescape((out / "report.html").read_text(encoding="utf-8"))
    for sample in result["samples"]:
        assert sample["after"].strip()[:40] in page
        assert sample["before"] != sample["after"]
    for text in ("One training step", "One generated token", "attention", "backward", "optimizer", "detokenize", "host",
                 "GFLOP/s", "tickwise demo --out"):
        assert text in page
    linked = set(re.findall(r'href="([^"]+)"', page))
    assert linked == {"timeline.html", "training-timeline.html"}
    assert all((out / name).is_file() for name in linked)


def test_the_traces_hold_the_tokens_of_the_samples_and_steps_of_training(short):
    out, result, _ = short
    training, generation = (open_trace(Path(path)) for path in result["traces"])
    assert {row["phase"] for row in training.rows()} == {"train"}
    assert {"data", "attention", "backward", "optimizer"} <= {row["stage"] for row in training.rows()}
    written = "".join(token["text"] for token in generation.tokens())
    assert written == "".join(sample["after"] for sample in result["samples"])
    assert (out / "timeline.html").stat().st_size > (out / "training-timeline.html").stat().st_size > 50_000


def test_seconds_out_of_range_are_one_line(capsys):
    assert main(["demo", "--seconds", "0"]) == 2
    assert capsys.readouterr().err.strip() == "tickwise: --seconds: must be from 1 to 3600, got 0"


@pytest.mark.slow
def test_the_full_demo_learns_and_ends_within_three_minutes(tmp_path):
    result, _, seconds = run(tmp_path / "out", 65, tmp_path / "cache")
    assert seconds < 180
    assert result["validation_loss"] < 4.5  # 4.21 on two quiet cores; a uniform guess is 7.62
