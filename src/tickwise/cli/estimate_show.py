"""The tables of ``tickwise estimate``."""

from typing import Any

from tickwise.core.console import (
    format_bytes,
    format_count,
    format_duration,
    format_energy,
    format_number,
    format_seconds,
)

ON_TOP = {
    "train": "not in it: preparing text in the same process, at its first use (of a megabyte), and recording with "
             "--trace: some 70 MB each",
    "serve": "not in it: recording with --trace, some 80 MB, or with tickwise trace, which also shows it, some 160 MB",
}
"""What a process of each purpose may do besides, in words: measured (see docs/trace.md), and no term of the sum."""


def _microseconds(seconds: float) -> str:
    """One decimal; two digits of what is shorter."""
    return f"{seconds * 1e6:,.1f}" if seconds >= 1e-6 or not seconds else format_number(seconds * 1e6, 2)


def print_tables(found: dict[str, Any]) -> None:
    """Memory by term, time by stage, and what follows from them."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, column in enumerate(columns):
            made.add_column(column, justify="left" if index == 0 else "right")
        return made

    what = "a training step" if found["for"] == "train" else "a tick: one more token of every text"
    console = Console(highlight=False)
    console.print(f"{what}, batch {found['batch']:,}, context {found['context']:,}, {found['dtype']}, on "
                  f"{found['hardware']} ({found['hardware_kind']}: {found['hardware_source']})")
    memory = table("Memory, modelled", "term", "bytes", "share")
    total = found["memory_bytes"]["total"]
    for name, size in found["memory_bytes"].items():
        if size is None:
            memory.add_row(name, "n/a", "n/a")
        elif size:
            memory.add_row(name, format_bytes(size), f"{100 * size / total:.0f} %")
    console.print(memory)
    if found.get("strategy") == "ddp" and found["dtype"] == "bf16":
        console.print("weights: of each parameter the float32 master (4 bytes), the bf16 weight that validation uses "
                      "(2) and the cast of the master that a rank computes a micro-batch with (2)")
    if found["memory_bytes"]["process"] is not None:
        console.print(ON_TOP[found["for"]])
    unknown = [name for name, size in found["memory_bytes"].items() if size is None]
    if unknown:
        console.print(f"not in the total: {', '.join(unknown)}, which are known of this machine's processor only")
    if found.get("compilation", {}).get("note"):
        console.print(found["compilation"]["note"])
    available = found["memory_available_bytes"]
    if available is None:
        console.print("whether it fits: n/a")
    else:
        console.print(f"{'fits into' if total <= available else 'does NOT fit into'} {format_bytes(available)}")
    times = table(f"Time, modelled ({found['time_is']})", "stage", "µs", "share")
    for name, seconds in found["time_s"].items():
        times.add_row(name, _microseconds(seconds), f"{100 * seconds / found['time_s']['total']:.0f} %")
    console.print(times)
    if found["for"] == "train":
        console.print("each stage with its backward pass, which the trace of a training shows apart, as backward")
    console.print(f"{format_count(found['tokens_per_s'])} tokens/s")
    if "communication_bytes" in found:
        parts = ", ".join(f"{name.replace('_', ' ')} {format_bytes(size)}"
                          for name, size in found["communication_bytes"].items())
        console.print(f"each of {found['ranks']} ranks ({found['strategy']}) sends a step: {parts}; memory is one "
                      "rank's, the time is of computing alone, on hardware of its own")
    if "prefill_s" in found:
        console.print(f"a prompt of {max(1, found['context'] - 1):,} tokens is read in "
                      f"{format_duration(found['prefill_s'])}")
    energy = found["energy_j"]
    console.print(f"energy: {'n/a' if energy is None else format_energy(energy)} ({found['energy_source']})")
    if "run" in found:
        run = found["run"]
        console.print(f"the whole run: {run['steps']:,} steps, {format_seconds(run['seconds'])}"
                      + ("" if run["cost"] is None else f", cost {format_number(run['cost'], 4)}"))
    if found["cost"] is not None:
        console.print(f"cost, modelled: {format_number(found['cost_per_million_tokens'], 4)} per million tokens")
