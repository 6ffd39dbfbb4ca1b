"""What training steps cost, against sums by hand."""

import json

import pytest
from safetensors import safe_open

from tickwise.cli import main
from tickwise.profiling.trace_store import open_trace


@pytest.fixture
def traced(small_text, tmp_path):
    """Trains a tiny model and returns its trace and how many numbers it learned."""

    def train(name, *flags):
        code = main(["train", str(small_text), "--out", str(tmp_path / name), "--tokenizer", "char", "--depth", "2",
                     "--context", "16", "--max-steps", "2", "--compile", "off", "--trace", str(tmp_path / f"{name}-t"),
                     "-q", *flags])
        assert code == 0
        with safe_open(tmp_path / name / "model" / "model.safetensors", "pt") as file:
            n_parameters = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
        return open_trace(tmp_path / f"{name}-t"), n_parameters

    return train


def backward(trace):
    """FLOPs, bytes read and bytes written of the second step's backward pass."""
    rows = [row for row in trace.rows() if row["tick"] == 1 and row["stage"] == "backward"]
    return [sum(row[name] for row in rows) for name in ("flops", "bytes_read", "bytes_written")]


def test_gradients_of_further_micro_batches_are_added_up(traced):
    one, n_parameters = traced("one", "--batch-size", "4", "--dtype", "fp32")
    three, _ = traced("three", "--batch-size", "12", "--accumulate", "3", "--dtype", "fp32")
    flops, read, written = backward(one)
    assert backward(three) == [3 * flops, 3 * read + 2 * 2 * 4 * n_parameters, 3 * written + 2 * 4 * n_parameters]


def test_gradients_in_bf16_are_collected_in_fp32(traced):
    one, n_parameters = traced("one", "--batch-size", "4", "--dtype", "bf16")
    two, _ = traced("two", "--batch-size", "8", "--accumulate", "2", "--dtype", "bf16")
    flops, read, written = backward(one)
    # Both micro-batches: 2 bytes in, 4 out; the second one's sum: 8 in, 4 out.
    assert backward(two) == [2 * flops, 2 * read + 8 * n_parameters, 2 * written + 4 * n_parameters]


def test_a_step_has_a_listing_whose_sums_are_its_rows(traced, tmp_path):
    trace, _ = traced("one", "--batch-size", "4", "--dtype", "fp32")
    listing = trace.listing()
    json.dumps(listing, allow_nan=False)
    assert {one["phase"] for one in listing} == {"train"}
    for row in trace.rows():
        if row["tick"] == 1 and row["flops"] is not None:
            here = [one for one in listing if (one["stage"], one["layer"]) == (row["stage"], row["layer"])]
            for name in ("flops", "bytes_read", "bytes_written"):
                assert sum(one[name] for one in here) == row[name], (row["stage"], row["layer"])


def test_the_rows_of_steps_add_up_whatever_they_do(traced, small_text):
    flags = ("--batch-size", "8", "--accumulate", "2", "--ema-decay", "0.9", "--evaluate-every", "1", "--dtype", "bf16",
             "--checkpoint-every", "1")
    trace, _ = traced("all", *flags)
    for tick in range(2):
        rows = [row for row in trace.rows() if row["tick"] == tick]
        assert {"validation", "checkpoint", "optimizer", "backward", "data"} <= {row["stage"] for row in rows}
        assert all(row["duration_ns"] >= 0 for row in rows)
    walls = trace.select("SELECT tick, min(start_ns) AS start, sum(duration_ns)::BIGINT AS ns FROM ledger "
                         "GROUP BY tick ORDER BY tick")
    gap_ns = walls[1]["start"] - walls[0]["start"] - walls[0]["ns"]
    assert 0 <= gap_ns < 0.01 * walls[0]["ns"], "a step ends where the next one begins"
