"""The timeline page: every token of a trace a cell, its tick as lanes of stages, why they took their time, and what
would make them faster."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from tickwise.core.console import format_bytes
from tickwise.report.charts import embedded_json
from tickwise.report.style import CSS
from tickwise.report.timeline_advice import advice_table, machine_advice
from tickwise.report.timeline_data import compact, compact_listing

_SCRIPTS = ("timeline_model.js", "timeline_charts.js", "timeline_answers.js", "timeline_zoom.js", "timeline.js")
_NUMBER_FORMATS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def timeline_page(
    *,
    ledger: Sequence[Mapping[str, Any]],
    tokens: Sequence[Mapping[str, Any]],
    meta: Mapping[str, Any],
    listing: Sequence[Mapping[str, Any]] | None,
    usage: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page's HTML: one file that loads nothing.

    ``ledger``: one row per (tick, layer, stage) with the columns of a ledger. ``tokens``: ``tick, request_id, position,
    token_id, text``. ``meta``: a trace's ``trace.json``, of which every key may be absent. ``listing``: instructions of
    one tick for the zoom into operations. ``usage``: rows of ``ticks.parquet``, where there are any.
    ``DataError`` without rows. A trace of more than 400,000 rows is thinned out, and the page says so.
    """
    data = compact(ledger, tokens, usage)
    number_format = _number_format(meta)
    data["meta"] = _meta(meta, number_format)
    data["advice"] = advice_table(
        (phase["name"] for phase in data["phases"]), data["stages"], data["bounds"], number_format
    )
    for phase in data["phases"]:
        phase["machine"] = machine_advice(meta.get("threads"), phase["typical"]["wall"], phase["typical"]["cpu"])
    data["listing"] = None if listing is None else compact_listing(listing, data["stages"])
    here = files("tickwise.report")
    script = "\n".join(here.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS)
    script = f"(() => {{\n{script}\n}})();"
    style = CSS + here.joinpath("timeline.css").read_text(encoding="utf-8")
    title = readable(meta.get("model") or "a model")
    command = readable(meta.get("command") or "n/a")
    return here.joinpath("timeline.html").read_text(encoding="utf-8").format(
        policy=script_policy(script), title=escape(title), style=style, command=escape(command),
        data=embedded_json(data), script=script,
    )  # fmt: skip


def script_policy(script: str) -> str:
    """Nothing may be loaded and only this very script may run, not even if something slipped through the escaping."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def readable(text: object) -> str:
    """Text that can stand in an HTML file: no control characters, no half of a surrogate pair."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(text))


def _number_format(meta: Mapping[str, Any]) -> str:
    name = str(meta.get("dtype") or "").removeprefix("torch.")
    return _NUMBER_FORMATS.get(name, name)


def _meta(meta: Mapping[str, Any], number_format: str) -> dict[str, Any]:
    """What the page says about the run and the machine."""
    ceilings = meta.get("ceilings") or {}
    peaks = {name: value for name, value in (ceilings.get("flops_per_s") or {}).items() if _positive(value)}
    bandwidth = ceilings.get("read_bandwidth_bytes_per_s")
    return {
        "model": str(meta.get("model") or "a model"),
        "dtype": number_format or None,
        "bandwidth": bandwidth if _positive(bandwidth) else None,
        "peaks": peaks,
        "peak": peaks.get(number_format),
        "busy": bool((meta.get("roofline") or {}).get("disturbed")),
        "machine": _machine(meta),
        "started": None if meta.get("started") is None else str(meta["started"]),
        "timing": None if meta.get("timing") is None else str(meta["timing"]),
        "energy": _energy(meta),
    }


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _machine(meta: Mapping[str, Any]) -> str | None:
    machine = meta.get("machine")
    if not isinstance(machine, Mapping):
        return None if machine is None else str(machine)
    same = machine.get("device") == machine.get("processor")
    figures = ((str(name), value) for name, value in machine.items()
               if isinstance(value, str | int | float) and not (same and name == "device"))
    return ", ".join(_named(name, value) for name, value in figures)


def _named(name: str, value: str | float) -> str:
    """``cores 2``, ``memory 8.2 GB``."""
    if name.endswith("_bytes") and isinstance(value, int | float):
        return f"{name.removesuffix('_bytes')} {format_bytes(value)}"
    return f"{name.replace('_', ' ')} {value}"


def _energy(meta: Mapping[str, Any]) -> str | None:
    """Where the energy figures come from, or why there are none."""
    energy = meta.get("energy")
    if not isinstance(energy, Mapping):
        return None
    why = energy.get("meter") or energy.get("why")
    return f"energy {energy.get('source') or 'n/a'}" + (f": {why}" if why else "")
