"""Traces in other programs' formats: CSV, and the trace event format that Perfetto and Chrome open."""

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from tickwise.core.paths import atomic_file
from tickwise.profiling.trace_store import LEDGER_COLUMNS, Trace

_PROCESS, _THREAD = 1, 1


def export_csv(trace: Trace, path: Path) -> None:
    """The ledger's columns, one line per row; several request ids are separated by spaces, unknown values empty."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(LEDGER_COLUMNS)
        for row in trace.rows():
            writer.writerow(" ".join(row[name]) if name == "request_ids" else row[name] for name in LEDGER_COLUMNS)


def export_perfetto(trace: Trace, path: Path) -> None:
    """Trace events as JSON (the "Trace Event Format" of the Chromium project): ticks, in them layers, in them stages.

    A stage that ran in several stretches of a layer is one slice. So stages are drawn one after another, in the order
    in which they first ran, and fill their tick exactly. Times are in microseconds with three decimals.
    """
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        about = {name: trace.header.get(name) for name in ("command", "model", "dtype", "started", "kinds")}
        file.write('{"displayTimeUnit": "ns", "otherData": ' + json.dumps(about) + ', "traceEvents": [\n')
        _write_events(file, _events(trace))
        file.write("\n]}\n")


def _write_events(file: TextIO, events: Iterator[dict[str, Any]]) -> None:
    for index, event in enumerate(events):
        file.write((",\n" if index else "") + json.dumps(event))


def _events(trace: Trace) -> Iterator[dict[str, Any]]:
    place = {"pid": _PROCESS, "tid": _THREAD}
    yield {"ph": "M", "name": "process_name", **place, "args": {"name": f"tickwise {trace.header.get('model', '')}"}}
    yield {"ph": "M", "name": "thread_name", **place, "args": {"name": "ticks"}}
    texts: dict[int, list[dict[str, Any]]] = {}
    for token in trace.tokens():
        texts.setdefault(token["tick"], []).append(token)
    for tick, of_tick in groupby(trace.rows(), key=lambda row: row["tick"]):
        rows = list(of_tick)
        first = rows[0]
        at_ns = first["start_ns"]
        wall_ns = sum(row["duration_ns"] for row in rows)
        said = texts.get(tick, [])
        yield _slice(f"tick {tick}", first["phase"], at_ns, wall_ns, {
            "batch": first["batch"], "kv_tokens": first["kv_tokens"], "requests": first["request_ids"],
            "text": [token["text"] for token in said], "token_ids": [token["token_id"] for token in said],
        })  # fmt: skip
        yield {"ph": "C", "name": "kv_tokens", **place, "ts": at_ns / 1e3, "args": {"tokens": first["kv_tokens"]}}
        for layer, of_layer in groupby(rows, key=lambda row: row["layer"]):
            in_layer = list(of_layer)
            if layer is not None:
                length_ns = sum(row["duration_ns"] for row in in_layer)
                yield _slice(f"layer {layer}", first["phase"], at_ns, length_ns, {"layer": layer})
            for row in in_layer:
                yield _slice(row["stage"], row["bound"] or "unknown", at_ns, row["duration_ns"], _known(row))
                at_ns += row["duration_ns"]


def _slice(name: str, category: str, at_ns: int, duration_ns: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"ph": "X", "name": name, "cat": category, "pid": _PROCESS, "tid": _THREAD, "ts": at_ns / 1e3,
            "dur": duration_ns / 1e3, "args": dict(arguments)}


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("flops", "bytes_read", "bytes_written", "bound", "roofline_share", "energy_j", "energy_source")
    return {name: row[name] for name in names if row[name] is not None}
